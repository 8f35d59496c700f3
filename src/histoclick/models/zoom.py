"""Where a network looks: the region of interest around the object, and when it moves.

The zoom-in of RITM (Sofiiuk et al. 2022), which SimpleClick and FocalClick share with other
numbers. Python's ``round`` (half to even) is part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from histoclick.types import Click


@dataclass(frozen=True, slots=True)
class Roi:
    """A rectangle of pixels: rows ``y0`` to ``y1`` and columns ``x0`` to ``x1``, all inclusive."""

    y0: int
    y1: int
    x0: int
    x1: int

    @classmethod
    def whole(cls, shape: tuple[int, int]) -> Roi:
        """All of an image of ``shape`` (height, width)."""
        return cls(0, shape[0] - 1, 0, shape[1] - 1)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in px."""
        return self.y1 - self.y0 + 1, self.x1 - self.x0 + 1

    def expand(self, ratio: float, min_side: float = 0) -> Roi:
        """``ratio`` times as high and wide about the same centre, at least ``min_side`` px."""
        height, width = (max(ratio * side, min_side) for side in self.shape)
        y, x = 0.5 * (self.y0 + self.y1), 0.5 * (self.x0 + self.x1)
        return Roi(
            round(y - 0.5 * height),
            round(y + 0.5 * height),
            round(x - 0.5 * width),
            round(x + 0.5 * width),
        )

    def clamp(self, shape: tuple[int, int]) -> Roi:
        """The part inside an image of ``shape`` (height, width)."""
        height, width = shape
        return Roi(
            max(self.y0, 0), min(self.y1, height - 1), max(self.x0, 0), min(self.x1, width - 1)
        )

    def iou(self, other: Roi) -> float:
        """Product of the rows' IoU and the columns' IoU: stricter than that of the areas."""
        rows = _interval_iou(self.y0, self.y1, other.y0, other.y1)
        return rows * _interval_iou(self.x0, self.x1, other.x0, other.x1)

    def holds(self, clicks: Iterable[Click]) -> bool:
        """Whether every positive click lies inside; one on the last row or column does not."""
        return all(
            self.y0 <= click.y < self.y1 and self.x0 <= click.x < self.x1
            for click in clicks
            if click.positive
        )

    def crop(self, maps: Tensor) -> Tensor:
        """The part of (..., H, W), a view."""
        return maps[..., self.y0 : self.y1 + 1, self.x0 : self.x1 + 1]

    def paste(self, maps: Tensor, shape: tuple[int, int]) -> Tensor:
        """The reverse of ``crop``: (..., h, w) to (..., H, W) of ``shape``, zeros around it."""
        full = maps.new_zeros(*maps.shape[:-2], *shape)
        self.crop(full).copy_(maps)
        return full

    def place(self, click: Click, shape: tuple[int, int]) -> Click:
        """A click on the image, as one on this region resized to ``shape`` (height, width).

        No half pixels: the published weights were evaluated with clicks placed like this.
        """
        height, width = self.shape
        return Click(
            shape[1] * (click.x - self.x0) / width,
            shape[0] * (click.y - self.y0) / height,
            click.positive,
        )


@dataclass(frozen=True, slots=True)
class ZoomRule:
    """How a family zooms in. The defaults are RITM's.

    ``target``: longest side in px of what the network sees, or its fixed (height, width).
    ``skip_clicks``: up to so many clicks, the network sees the whole image at its own size; -1:
    never, and while there is no object the whole image is the region. ``expansion`` and
    ``min_side`` (px): of the region around the object.
    """

    target: int | tuple[int, int] = 400
    skip_clicks: int = 1
    expansion: float = 1.4
    min_side: int = 200
    threshold: float = 0.5  # probability, of the object that is zoomed in on
    keep_iou: float = 0.5  # a region less like the one in use than this takes its place

    def next_roi(
        self, probabilities: Tensor, clicks: Sequence[Click], roi: Roi | None
    ) -> Roi | None:
        """The region to look at next; ``None``: the whole image at its own size.

        ``probabilities``: (H, W) before the last of ``clicks``. ``roi``: the region in use. It
        stays until a positive click falls outside or the object has become another. (Where the
        object has vanished, the reference looks at the whole image but puts the answer into the old
        region; we forget the region.)
        """
        if len(clicks) <= self.skip_clicks:
            return None
        height, width = probabilities.shape
        found = object_roi(probabilities > self.threshold, clicks)
        if found is not None:
            found = found.expand(self.expansion, self.min_side).clamp((height, width))
        elif self.skip_clicks >= 0:
            return None
        else:
            found = Roi.whole((height, width))
        if roi is not None and roi.holds(clicks) and found.iou(roi) >= self.keep_iou:
            return roi
        return found

    def __str__(self) -> str:
        target = self.target
        size = f"{target} px" if isinstance(target, int) else f"{target[0]} x {target[1]} px"
        begin = "always" if self.skip_clicks < 0 else f"from click {self.skip_clicks + 1} on"
        return f"to {size}, {begin}, expansion {self.expansion:g}, at least {self.min_side} px"

    def resized(self, roi: Roi) -> tuple[int, int]:
        """(height, width) at which the network sees ``roi``."""
        return self.target if isinstance(self.target, tuple) else fit(roi.shape, self.target)


def fit(shape: tuple[int, int], long_side: int) -> tuple[int, int]:
    """``shape`` (height, width) scaled to a longest side of ``long_side`` px.

    Half to even, unlike ``geometry.fit``, which rounds as SAM's reference does.
    """
    scale = long_side / max(shape)
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def object_roi(mask: Tensor, clicks: Iterable[Click]) -> Roi | None:
    """Bounds of ``mask`` (H, W) bool and the positive clicks; ``None`` for an empty mask."""
    height = mask.shape[0]
    filled = torch.cat([mask.any(1), mask.any(0)]).cpu()  # one transfer from an accelerator
    parts = filled[:height], filled[height:]
    rows, columns = (part.nonzero().flatten().tolist() for part in parts)
    if not rows:
        return None
    for click in clicks:
        if click.positive:  # a click on the outer edge of the last pixel rounds beyond it
            rows.append(min(round(click.y), height - 1))
            columns.append(min(round(click.x), mask.shape[1] - 1))
    return Roi(min(rows), max(rows), min(columns), max(columns))


def _interval_iou(a0: int, a1: int, b0: int, b1: int) -> float:
    """Of two runs of whole numbers, ends inclusive."""
    shared = max(0, min(a1, b1) - max(a0, b0) + 1)
    return shared / max(1e-6, max(a1, b1) - min(a0, b0) + 1)
