"""Clicks and boxes in px of a scene, and in the frame of a window of it."""

from __future__ import annotations

from collections.abc import Sequence

from histoclick.server.scenes import Point, Scene
from histoclick.session.windows import Window
from histoclick.types import Box, Click


def holds(scene: Scene, click: Click) -> bool:
    """Whether a click lies in a scene."""
    return -0.5 <= click.x < scene.width - 0.5 and -0.5 <= click.y < scene.height - 0.5


def cut(box: Box, scene: Scene) -> Box | None:
    """The part of a box inside of the scene."""
    x0, y0 = max(box.x0, 0.0), max(box.y0, 0.0)
    x1, y1 = min(box.x1, scene.width - 1.0), min(box.y1, scene.height - 1.0)
    return Box(x0, y0, x1, y1) if x0 <= x1 and y0 <= y1 else None


def within(click: Click, window: Window) -> bool:
    """Whether a click in the frame of a window lies in it."""
    return -0.5 <= click.x < window.width - 0.5 and -0.5 <= click.y < window.height - 0.5


def middle(click: Click) -> Point:
    """Of its pixel, pixel-corner."""
    return click.x + 0.5, click.y + 0.5


def corners_of(box: Box | None) -> list[Point]:
    """Of a box, pixel-corner; none of none."""
    return [] if box is None else [(box.x0, box.y0), (box.x1 + 1, box.y1 + 1)]


def part(part: Window, whole: Window) -> tuple[slice, slice]:
    """Where a part of a window lies in its array."""
    y, x = part.y - whole.y, part.x - whole.x
    return slice(y, y + part.height), slice(x, x + part.width)


def moved(clicks: Sequence[Click], window: Window) -> tuple[Click, ...]:
    """In the frame of a window."""
    return tuple(Click(c.x - window.x, c.y - window.y, c.positive) for c in clicks)


def shifted(box: Box, window: Window) -> Box:
    """In the frame of a window, which may be smaller than the box."""
    return Box(
        min(max(box.x0 - window.x, 0.0), window.width - 1.0),
        min(max(box.y0 - window.y, 0.0), window.height - 1.0),
        min(max(box.x1 - window.x, 0.0), window.width - 1.0),
        min(max(box.y1 - window.y, 0.0), window.height - 1.0),
    )
