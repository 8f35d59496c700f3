"""Polygons to masks: which pixels' centres lie inside.

Every edge is cut with the lines through the centres of rows; the pixels right of a cut change
sides. Rows and columns are half-open and edges are cut from top to bottom whatever their direction,
so that polygons with an edge in common share no pixel and leave none between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from histoclick.geometry import Rect
from histoclick.types import Mask

_FINE = 2.0**30  # places in a px that cuts are rounded to; far below annotations.runs.TIE_PX
_CUTS = 2**22  # made at once: about 40 bytes each

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def rasterise(shape: Polygon | MultiPolygon, rect0: Rect, width: int, height: int) -> Mask:
    """The pixels of a grid whose centres lie in ``shape``.

    ``rect0``: what the grid covers, in the frame of the shape. Returns (``height``, ``width``)
    bool. Where rings overlap, what lies in an even number of them is outside.
    """
    grid = _Grid(rect0, width, height)
    edges = _Edges.of([shape]).within(rect0)
    toggles = np.zeros((height, width + 1), np.uint8)
    for start, end in edges.pieces(grid):
        _, row, column = edges.cuts(grid, start, end)
        np.add.at(toggles.reshape(-1), row * (width + 1) + column, 1)
    toggles &= 1
    return np.bitwise_xor.accumulate(toggles[:, :-1], axis=1).view(np.bool_)


class Painter:
    """Many shapes on one canvas, later ones over earlier ones, painted a rectangle at a time.

    Edges are sorted once: a rectangle looks at those near its rows only. ``values``: of the pixels
    of each shape; the type of their array is the type of what is painted, uint16 for a list.
    """

    def __init__(self, shapes: Sequence[Polygon | MultiPolygon], values: Any) -> None:
        if len(shapes) != len(values):
            raise ValueError(f"{len(shapes)} shapes have {len(values)} values; give one for each")
        self._values = values if isinstance(values, np.ndarray) else np.array(values, np.uint16)
        edges = _Edges.of(shapes)
        # In drawers of like height, an edge that meets a rectangle starts at most that much above
        # it: what has to be looked at lies together, and one long edge does not spoil that.
        drawer = np.frexp(edges.bottom - edges.top)[1]
        order = np.lexsort((edges.top, drawer))
        self._edges = edges.take(order)
        self._drawers, first = np.unique(drawer[order], return_index=True)
        self._bounds = np.append(first, len(order))

    def spans(self, rect0: Rect, width: int, height: int) -> Iterator[Spans]:
        """The runs of pixels of every shape on a grid of ``width`` x ``height`` over ``rect0``.

        From top to bottom, as many rows at a time as need little memory.
        """
        grid = _Grid(rect0, width, height)
        edges = self._edges.take(self._near(rect0)).within(rect0)
        for start, end in edges.pieces(grid):
            shape, row, column = edges.cuts(grid, start, end)
            key = (shape * height + row) * (width + 1) + column
            key.sort()  # from one cut to the next of the same shape and row, pixels are inside
            line, column = np.divmod(key, width + 1)
            shape, row = np.divmod(line[::2], height)
            some = column[::2] < column[1::2]
            yield Spans(shape[some], row[some], column[::2][some], column[1::2][some])

    def band(self, rect0: Rect, width: int, height: int) -> NDArray[Any]:
        """(``height``, ``width``) values of the shapes on a grid over ``rect0``, 0 elsewhere."""
        canvas = np.zeros((height, width), self._values.dtype)
        for spans in self.spans(rect0, width, height):
            spans.paint(canvas, self._values)
        return canvas

    def _near(self, rect0: Rect) -> Ints:
        """Indices of the edges that may meet the rows of ``rect0``."""
        found = [np.empty(0, np.int64)]
        for exponent, a, b in zip(
            self._drawers.tolist(), self._bounds[:-1], self._bounds[1:], strict=True
        ):
            top = self._edges.top[a:b]
            first = np.searchsorted(top, rect0.y0 - 2.0**exponent)
            last = np.searchsorted(top, rect0.y1, side="right")
            found.append(np.arange(a + first, a + last))
        return np.concatenate(found)


@dataclass(frozen=True)
class Spans:
    """Runs of pixels, sorted by shape, then row: ``start`` <= column < ``end``, (n,) int64 each."""

    shape: Ints
    row: Ints
    start: Ints
    end: Ints

    def paint(self, canvas: NDArray[Any], values: NDArray[Any]) -> None:
        """Set the pixels of ``canvas``, (H, W) and contiguous, to ``values[shape]``."""
        flat, at = canvas.reshape(-1), self.row * canvas.shape[1]
        starts, ends = (at + self.start).tolist(), (at + self.end).tolist()
        for start, end, value in zip(starts, ends, values[self.shape].tolist(), strict=True):
            flat[start:end] = value


@dataclass(frozen=True)
class _Grid:
    """``width`` x ``height`` pixels over ``rect0``."""

    rect0: Rect
    width: int
    height: int

    def row(self, y: Floats) -> Ints:
        """The first row whose centre is not above ``y``, from 0 to ``height``."""
        rows = (y - self.rect0.y0) * (self.height / self.rect0.height)
        return np.ceil(np.clip(rows, 0, self.height) - 0.5).astype(np.int64)

    def column(self, x: Floats) -> Ints:
        """The first column whose centre is not left of ``x``, from 0 to ``width``."""
        columns = (x - self.rect0.x0) * (self.width / self.rect0.width)
        return np.ceil(np.clip(columns, 0, self.width) - 0.5).astype(np.int64)

    def centre(self, row: Ints) -> Floats:
        """The y of the centres of rows."""
        return self.rect0.y0 + (row.astype(np.float64) + 0.5) * (self.rect0.height / self.height)


@dataclass(frozen=True)
class _Edges:
    """Edges of rings, from top to bottom, without the horizontal ones: (n,) each.

    ``shape``: index of the shape. ``top``, ``bottom``: y of the ends, ``x0``, ``x1``: their x.
    """

    shape: Ints
    x0: Floats
    top: Floats
    x1: Floats
    bottom: Floats

    @classmethod
    def of(cls, shapes: Sequence[Polygon | MultiPolygon]) -> _Edges:
        """All edges of all rings."""
        parts, shape = shapely.get_parts(np.asarray(shapes, dtype=object), return_index=True)
        rings, part = shapely.get_rings(parts, return_index=True)
        xy, ring = shapely.get_coordinates(rings, return_index=True)
        inside = np.flatnonzero((ring[1:] == ring[:-1]) & (xy[1:, 1] != xy[:-1, 1]))
        down = xy[inside, 1] < xy[inside + 1, 1]
        above, below = np.where(down, (inside, inside + 1), (inside + 1, inside))
        return cls(shape[part[ring[inside]]], *xy[above].T.copy(), *xy[below].T.copy())

    def take(self, index: NDArray[Any]) -> _Edges:
        """Some of them: indices or a mask."""
        return _Edges(
            self.shape[index], self.x0[index], self.top[index], self.x1[index], self.bottom[index]
        )

    def within(self, rect0: Rect) -> _Edges:
        """Those that meet the rows of ``rect0``."""
        return self.take((self.bottom > rect0.y0) & (self.top < rect0.y1))

    def cuts(self, grid: _Grid, start: int, end: int) -> tuple[Ints, Ints, Ints]:
        """Where edges cross the centres of rows ``start`` to ``end``, the last one not counted.

        (n,) shape, row and first column right of the cut: 0 to the grid's width, where the last
        one stands for all beyond the grid.
        """
        first = np.clip(grid.row(self.top), start, end)
        count = np.clip(grid.row(self.bottom), start, end) - first
        edge = np.repeat(np.arange(len(count)), count)
        row = np.arange(len(edge)) + np.repeat(first - (np.cumsum(count) - count), count)
        top, x0 = self.top[edge], self.x0[edge]
        # In the frame of the shapes, where every grid finds the same place; and as a share of the
        # way, not with a slope, which could be infinite.
        way = (grid.centre(row) - top) / (self.bottom[edge] - top)
        x = x0 + way * (self.x1[edge] - x0)
        # To a billionth of a px: what is left of a float's last digits when a window's corner is
        # taken away would let the same place fall on either side of a centre.
        x = np.rint(x * _FINE) / _FINE
        return self.shape[edge], row, grid.column(x)

    def pieces(self, grid: _Grid) -> list[tuple[int, int]]:
        """All rows in pieces (start, end) of not many more than ``_CUTS`` cuts."""
        begun, ended = (
            np.bincount(grid.row(y), minlength=grid.height + 1) for y in (self.top, self.bottom)
        )
        total = np.cumsum(np.cumsum(begun - ended))
        marks = np.arange(_CUTS, total[-1], _CUTS)
        ends = np.unique(np.append(np.searchsorted(total, marks) + 1, grid.height)).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))
