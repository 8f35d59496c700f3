"""What FocalClick's refiner is shown in training (Chen et al. 2022): a crop of the object or of its
outline, and where on it the outline is uncertain.

Sizes that were published for crops of 256 px are fractions here. Boxes and points are placed as
``models.focalclick`` does when it predicts.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histoclick.models.clickmaps import PADDING
from histoclick.models.focalclick.crops import FEWEST
from histoclick.models.focalclick.refiner import resize
from histoclick.models.zoom import Roi
from histoclick.types import Mask

COARSE = 8  # px; what is smaller than that is the refiner's business
SMALL = 60**2 / 256**2  # of the image; a smaller object is always shown as a whole
OUTLINE = 0.4  # chance that of a larger one a piece of outline is shown
LEAST_SIDE = 32 / 256  # of the image's side
SHIFT = 0.3  # of a crop's side that it may be off its object


def trimap(target: Mask) -> Mask:
    """Where a mask at an eighth of the resolution is wrong, and 2 px around that, (H, W) bool.

    ``target``: (H, W) bool, at least ``COARSE`` px high and wide.
    """
    height, width = target.shape
    full = target.astype(np.uint8) * 255
    small = cv2.resize(full, (width // COARSE, height // COARSE), interpolation=cv2.INTER_LINEAR)
    small = (small > 128).astype(np.uint8) * 255
    back = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR) > 128
    wrong = (back != target).astype(np.uint8)
    return np.asarray(cv2.dilate(wrong, np.ones((5, 5), np.uint8)) > 0)


def draw_focus(target: Mask, rng: np.random.Generator) -> Roi:
    """A crop for the refiner: the object with a margin, a bit beside its centre, or a piece of its
    outline. ``target``: (H, W) bool."""
    if target.mean() >= SMALL and rng.random() < OUTLINE:
        return _on_outline(target, rng)
    return _on_object(target, rng)


def look(maps: Tensor, rois: Sequence[Roi], size: tuple[int, int]) -> Tensor:
    """The crops of (B, C, H, W), one each, resized: (B, C, *size) float32."""
    crops = [roi.crop(each[None]).float() for each, roi in zip(maps, rois, strict=True)]
    return torch.cat([resize(crop, size) for crop in crops])


def place(points: Tensor, rois: Sequence[Roi], size: tuple[int, int]) -> Tensor:
    """Points (B, 2n, 3) on the image as points on its crops resized to ``size`` (height, width).

    Those outside stay outside; padding stays padding.
    """
    origins = points.new_tensor([[roi.y0, roi.x0, 0] for roi in rois])
    scales = [[size[0] / roi.shape[0], size[1] / roi.shape[1], 1] for roi in rois]
    placed = (points - origins[:, None]) * points.new_tensor(scales)[:, None]
    absent = points[:, :, :2].amax(2, keepdim=True) < 0
    return placed.masked_fill(absent, PADDING)


def boxes(rois: Sequence[Roi]) -> Tensor:
    """(B, 4) float32 of x0, y0, x1, y1, ends excluded, in px of the image."""
    edges = [[roi.x0, roi.y0, roi.x1 + 1, roi.y1 + 1] for roi in rois]
    return torch.tensor(edges, dtype=torch.float32)


def _on_object(target: Mask, rng: np.random.Generator) -> Roi:
    """Around the largest part of the object, 1.1 to 1.6 times as large as that, shifted."""
    part = _largest_part(target)
    ratio = int(rng.integers(11, 17)) / 10
    top, bottom = _around(np.any(part, 1), ratio, rng)
    left, right = _around(np.any(part, 0), ratio, rng)
    return Roi(top, bottom - 1, left, right - 1)


def _around(line: NDArray[np.bool_], ratio: float, rng: np.random.Generator) -> tuple[int, int]:
    """First and one behind the last of the pixels shown, on one axis; ``line``: (N,) bool, where
    the object is."""
    covered = np.flatnonzero(line)
    first, last = int(covered[0]), int(covered[-1])
    length = max(ratio * (last - first + 1), LEAST_SIDE * len(line))
    most = int(length * SHIFT)
    centre, shift = 0.5 * (first + last), int(rng.integers(-most, most + 1))
    low, high = (int(centre + sign * 0.5 * length) + shift for sign in (-1, 1))
    return max(low, 0), min(high, len(line))


def _on_outline(target: Mask, rng: np.random.Generator) -> Roi:
    """A crop 1.5 to 3.9 times smaller than the image, its centre just outside the object if it
    fits there."""
    shape = target.shape
    height, width = (int(side / (int(rng.integers(15, 40)) / 10)) for side in shape)
    grown = cv2.dilate(target.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    outline = grown & ~target
    fits = np.zeros_like(outline)
    fits[height // 2 : shape[0] - height // 2, width // 2 : shape[1] - width // 2] = True
    for candidates in (outline & fits, outline):
        pixels = np.flatnonzero(candidates)
        if len(pixels):
            y, x = divmod(int(pixels[rng.integers(len(pixels))]), shape[1])
            break
    else:
        y, x = height // 2, width // 2
    top = min(max(y - height // 2, 0), shape[0] - height)
    left = min(max(x - width // 2, 0), shape[1] - width)
    return Roi(top, top + height - 1, left, left + width - 1)


def _largest_part(target: Mask) -> Mask:
    """Its largest component (8 neighbours); everywhere if the object has next to no pixels."""
    if np.count_nonzero(target) < FEWEST:
        return np.ones_like(target)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(target.astype(np.uint8))
    return np.asarray(labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))
