"""What other programs show a model, and in which part of it the model looks.

A view of 2,500 px squeezed into the 448 px that a model sees would cost all detail. So the model
looks at a window around the clicks, at the resolution of the view, which the user chose; where the
object runs out of the window, the window doubles, until it shows the whole object or all there is.
First windows lie on a lattice, so that the next object nearby needs no new encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from histoclick.session.windows import Grid, Window
from histoclick.types import RGB8, Click, Mask

Point = tuple[float, float]  # x, y


class Scene(Protocol):
    """Something to segment in: a picture that was sent, or a region of a slide.

    ``key``: names its content for good. ``width``, ``height``: px, which clicks, boxes, windows
    and masks are counted in.
    """

    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def height(self) -> int: ...  # noqa: D102

    def part(self, window: Window) -> RGB8:
        """(height, width, 3) uint8 RGB of a window that lies inside."""
        ...


def first(scene: Scene, points: Sequence[Point], side: int) -> Window:
    """Where to look for an object around ``points``, pixel-corner px.

    The smallest window that has them all well inside; ``side``: the least, what the model sees at
    once, px.
    """
    grid = Grid(scene.width, scene.height, 1, 1)
    xs, ys = zip(*points, strict=True)
    x, y = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    while True:
        window = grid.nearest(x, y, side)
        everything = (window.width, window.height) == (scene.width, scene.height)
        if everything or all(grid.is_inner(window, *point, side) for point in points):
            return window
        side *= 2


def wider(scene: Scene, window: Window, mask: Mask) -> Window:
    """Where to look next for an object that runs out of a window: twice as wide, around what there
    is of it. ``mask``: (H, W) bool of the window."""
    xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    x, y = window.x + (xs[0] + xs[-1] + 1) / 2, window.y + (ys[0] + ys[-1] + 1) / 2
    side = 2 * max(window.width, window.height)
    return Grid(scene.width, scene.height, 1, 1).centred(float(x), float(y), side)


def cut_off(scene: Scene, window: Window, mask: Mask, clicks: Sequence[Click]) -> bool:
    """Whether the object that was clicked on runs out of the window.

    ``mask``: (H, W) bool of the window. ``clicks``: in the frame of the window; without positive
    ones every part of the mask counts.
    """
    border = np.zeros_like(mask)
    border[0] |= window.y > 0
    border[-1] |= window.y1 < scene.height
    border[:, 0] |= window.x > 0
    border[:, -1] |= window.x1 < scene.width
    border &= mask
    if not border.any():
        return False
    seeds = [(round(click.y), round(click.x)) for click in clicks if click.positive]
    if not seeds:
        return True
    _, parts = cv2.connectedComponents(mask.view(np.uint8))
    clicked = {int(parts[y, x]) for y, x in seeds} - {0}
    return bool(np.isin(parts[border], list(clicked)).any())
