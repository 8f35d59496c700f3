"""Where patches may lie: the cells of a grid over a slide's bounds that an outline passes through.

Cells without an outline are all object or none, so of thousands only these have to be painted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from histoclick.datasets.cases import Layer
from histoclick.geometry import Rect

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Cells of ``width`` x ``height`` px of level 0, ``step_x``, ``step_y`` apart, inside
    ``bounds``; the first one lies in the top left corner of those."""

    bounds: Rect
    width: float
    height: float
    step_x: float
    step_y: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (
            _count(self.bounds.height, self.height, self.step_y),
            _count(self.bounds.width, self.width, self.step_x),
        )

    def corners(self, layers: list[Layer], *, inside: bool) -> Iterator[tuple[int, int]]:
        """Top left corners, in whole px of level 0, row by row, of all cells that an outline of
        the layers passes through, and perhaps a few more. ``inside``: also of all cells in the
        bounding boxes of what adds to the object."""
        wanted = self._crossed(layers)
        if inside:
            wanted |= self._met([Rect(*_box(layer)) for layer in layers if layer.adds])
        for row, column in np.argwhere(wanted):
            x, y = self.bounds.x0 + column * self.step_x, self.bounds.y0 + row * self.step_y
            yield round(x), round(y)

    def _crossed(self, layers: list[Layer]) -> NDArray[np.bool_]:
        rings = shapely.get_rings([layer.shape for layer in layers])
        points, ring = shapely.get_coordinates(rings, return_index=True)
        same = ring[1:] == ring[:-1]
        start, end = points[:-1][same], points[1:][same]
        reach = min(self.width, self.height, self.step_x, self.step_y) / 16
        # Along an edge no place is farther than ``reach`` from one of these.
        pieces = np.ceil(np.hypot(*(end - start).T) / reach).astype(np.int64) + 1
        edge = np.repeat(np.arange(len(start)), pieces)
        place = np.arange(len(edge)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        share = (place / np.maximum(pieces[edge] - 1, 1))[:, None]
        x, y = (start[edge] + share * (end - start)[edge]).T
        return self._marked(x - reach, x + reach, y - reach, y + reach)

    def _met(self, rects: list[Rect]) -> NDArray[np.bool_]:
        sides = np.array([(r.x0, r.x1, r.y0, r.y1) for r in rects]).reshape(-1, 4)
        return self._marked(*sides.T)

    def _marked(self, x0: Floats, x1: Floats, y0: Floats, y1: Floats) -> NDArray[np.bool_]:
        """The cells that meet any of the rectangles: each adds 1 to a block of cells, by its four
        corners and running sums."""
        rows, columns = self.shape
        left, right = _span(
            x0 - self.bounds.x0, x1 - self.bounds.x0, self.width, self.step_x, columns
        )
        top, bottom = _span(
            y0 - self.bounds.y0, y1 - self.bounds.y0, self.height, self.step_y, rows
        )
        counts = np.zeros((rows + 1, columns + 1), np.int64)
        some = (left < right) & (top < bottom)
        for row, column, sign in (
            (top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1),
        ):  # fmt: skip
            np.add.at(counts, (row[some], column[some]), sign)
        marked: NDArray[np.bool_] = counts.cumsum(0).cumsum(1)[:rows, :columns] > 0
        return marked


def _count(extent: float, cell: float, step: float) -> int:
    return int((extent - cell) / step + 1e-6) + 1 if extent + 1e-6 >= cell else 0


def _span(
    low: Floats, high: Floats, cell: float, step: float, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First cell, and one behind the last, that meets each interval."""
    first = np.ceil((low - cell - 1) / step)  # 1 px: corners are rounded
    last = np.floor((high + 1) / step) + 1
    first, last = (np.clip(each, 0, count).astype(np.int64) for each in (first, last))
    return first, last


def _box(layer: Layer) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = layer.shape.bounds
    return x0, y0, x1 - x0, y1 - y0
