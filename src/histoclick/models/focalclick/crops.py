"""Where FocalClick looks twice, and what it takes over. Masks are (H, W) bool."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from histoclick.models.zoom import Roi
from histoclick.types import Click, Mask

FEWEST = 10  # pixels; a smaller mask has no bounds worth cropping to
THIN = 3  # a change thinner than the object by this factor is looked at around the click
NEAR = 0.2  # of the object's longer side: how far "around the click" reaches


def focus_crop(mask: Mask, before: Mask, target: Roi, click: Click, ratio: float) -> Roi:
    """The part of ``target`` in which the newest ``click`` changed the mask.

    ``before``: the mask without the click; where that is empty, the object itself is the change.
    ``ratio``: by how much the crop is larger than the change.
    """
    x, y = int(click.x), int(click.y)
    top, bottom, left, right = _bounds(mask)
    if before.any():
        tall, wide = bottom - top, right - left
        top, bottom, left, right = _bounds(_component(before ^ mask, click))
        if bottom - top < tall / THIN or right - left < wide / THIN:
            reach = NEAR * max(tall, wide)
            top, bottom, left, right = y - reach, y + reach, x - reach, x + reach
    half_height = 0.5 * ratio * (bottom - top + 1)
    half_width = 0.5 * ratio * (right - left + 1)
    row, column = 0.5 * (top + bottom), 0.5 * (left + right)
    crop = Roi(
        max(int(row - half_height), target.y0),
        min(int(row + half_height) - 1, target.y1),
        max(int(column - half_width), target.x0),
        min(int(column + half_width) - 1, target.x1),
    )
    # a change outside the target leaves nothing of the crop; the published code fails there
    return crop if min(crop.shape) > 0 else target


def progressive_merge(mask: Mask, before: Mask, click: Click) -> Mask:
    """``before``, changed only where ``mask`` differs and is connected with ``click``.

    As published: in a changed region, the whole region becomes what ``before`` is not at the click.
    For a click in no changed region, all that did not change is taken as the region, which hardly
    anyone wants; the published numbers have it so.
    """
    region = _component(before ^ mask, click)
    at_click = before[int(click.y), int(click.x)]
    return before & ~region if at_click else before | region


def _component(changed: Mask, click: Click) -> Mask:
    """The pixels connected with the click (8 neighbours); if it is on none, the unchanged ones."""
    labels = cv2.connectedComponents(changed.astype(np.uint8))[1]
    found: NDArray[np.bool_] = labels == labels[int(click.y), int(click.x)]
    return found


def _bounds(mask: Mask) -> tuple[float, float, float, float]:
    """First and last row and column; of fewer than ``FEWEST`` pixels, the image's corners."""
    if np.count_nonzero(mask) < FEWEST:
        return 0, mask.shape[0], 0, mask.shape[1]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
