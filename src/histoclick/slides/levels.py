"""The resolutions of a slide, and where a region of level 0 lies on one of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

EXACT = 0.002  # px: places nearer than this to whole pixels are whole, but for half a grey level
SLACK = 2.0  # px of a level by which its size may be off


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution: its size in px, and px of level 0 per px of it.

    ``index``: which one of the file it is.
    """

    index: int
    width: int
    height: int
    downsample_x: float
    downsample_y: float

    @property
    def downsample(self) -> float:
        """The mean of both directions, which are the same but for rounding."""
        return (self.downsample_x + self.downsample_y) / 2


@dataclass(frozen=True, slots=True)
class Span:
    """One side of a region on a level: from ``start`` to ``end``, continuous px of that level.

    ``first``, ``last``: the pixels that have to be read, ``last`` not included. ``whole``: whether
    it starts and ends between pixels.
    """

    start: float
    end: float
    first: int
    last: int
    whole: bool

    @classmethod
    def of(cls, start0: float, end0: float, downsample: float, count: int) -> Self:
        """``start0``, ``end0``: px of level 0. ``count``: how many pixels are to be made of it."""
        start, end = start0 / downsample, end0 / downsample
        near = round(start), round(end)
        whole = abs(start - near[0]) < EXACT and abs(end - near[1]) < EXACT and near[0] < near[1]
        if whole:
            start, end = near
        margin = int(end - start < count)  # neighbours, to interpolate
        return cls(start, end, math.floor(start) - margin, math.ceil(end) + margin, whole)

    @property
    def count(self) -> int:
        """How many pixels have to be read."""
        return self.last - self.first


def levels_of(sizes: tuple[tuple[int, int], ...]) -> tuple[Level, ...]:
    """Levels with their downsamples, from (width, height) of each in px, level 0 first.

    Scanners and converters shrink by whole factors, mostly powers of two, and round the size up or
    down; by the quotient of the sizes, places would be off by up to a pixel of the level at its far
    end. So a whole factor that explains both sizes is taken, else the quotients. Levels that do not
    show the whole of level 0 are left out.
    """
    width0, height0 = sizes[0]
    levels = [Level(0, width0, height0, 1.0, 1.0)]
    for index, (width, height) in enumerate(sizes[1:], 1):
        x, y = width0 / width, height0 / height
        for factor in _whole_factors(math.sqrt(x * y)):
            if _rounds(width0, factor, width) and _rounds(height0, factor, height):
                x = y = float(factor)
                break
        shape_fits = (
            max(abs(width - width0 / max(x, y)), abs(height - height0 / max(x, y))) <= SLACK
        )
        if shape_fits and width <= levels[-1].width and height <= levels[-1].height:
            levels.append(Level(index, width, height, x, y))
    return tuple(levels)


def _whole_factors(near: float) -> Iterator[int]:
    """Powers of two around ``near``, then the nearest whole number."""
    power = 2 ** math.floor(math.log2(max(near, 1)))
    yield from sorted((power, power * 2), key=lambda factor: abs(math.log(factor / near)))
    yield round(near)


def _rounds(pixels0: int, factor: int, pixels: int) -> bool:
    return factor > 0 and pixels in (pixels0 // factor, -(-pixels0 // factor))
