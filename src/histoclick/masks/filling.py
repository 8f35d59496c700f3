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

_CUTS = 2**22  # made at once: about 40 bytes each

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def rasterise(shape: Polygon | MultiPolygon, rect0: Rect, width: int, height: int) -> Mask:
    """The pixels of a grid whose centres lie in ``shape``.

    ``rect0``: what the grid covers, in the frame of the shape. Returns (``height``, ``width``)
    bool. Where rings overlap, what lies in an even number of them is outside.
    """
    edges = _Edges.of([shape]).on(rect0, width, height)
    toggles = np.zeros((height, width + 1), np.uint8)
    for start, end in edges.pieces(height):
        _, row, column = edges.cuts(start, end, width)
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
        edges = self._edges.take(self._near(rect0)).on(rect0, width, height)
        for start, end in edges.pieces(height):
            shape, row, column = edges.cuts(start, end, width)
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

    def on(self, rect0: Rect, width: int, height: int) -> _Edges:
        """Those that meet the rows of a grid over ``rect0``, in pixels of the grid."""
        some = self.take((self.bottom > rect0.y0) & (self.top < rect0.y1))
        x, y = width / rect0.width, height / rect0.height
        return _Edges(
            some.shape,
            (some.x0 - rect0.x0) * x,
            (some.top - rect0.y0) * y,
            (some.x1 - rect0.x0) * x,
            (some.bottom - rect0.y0) * y,
        )

    def cuts(self, start: int, end: int, width: int) -> tuple[Ints, Ints, Ints]:
        """Where edges cross the centres of rows ``start`` to ``end``, the last one not counted.

        (n,) shape, row and first column right of the cut: 0 to ``width``, where the last one
        stands for all beyond the grid.
        """
        first, count = self._rows(start, end)
        edge = np.repeat(np.arange(len(count)), count)
        row = np.arange(len(edge)) + np.repeat(first - (np.cumsum(count) - count), count)
        top, x0 = self.top[edge], self.x0[edge]
        # A share of the way, in [0, 1]: a slope could be infinite.
        way = (row + 0.5 - top) / (self.bottom[edge] - top)
        x = x0 + way * (self.x1[edge] - x0)
        column = np.ceil(np.clip(x, 0, width + 1) - 0.5).astype(np.int64)
        return self.shape[edge], row, np.minimum(column, width)

    def pieces(self, height: int) -> list[tuple[int, int]]:
        """All rows in pieces (start, end) of not many more than ``_CUTS`` cuts."""
        first, count = self._rows(0, height)
        begun, ended = (np.bincount(row, minlength=height + 1) for row in (first, first + count))
        total = np.cumsum(np.cumsum(begun - ended))
        marks = np.arange(_CUTS, total[-1], _CUTS)
        ends = np.unique(np.append(np.searchsorted(total, marks) + 1, height)).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _rows(self, start: int, end: int) -> tuple[Ints, Ints]:
        """The first row whose centre an edge crosses, and how many there are."""
        first = np.ceil(np.clip(self.top, start, end) - 0.5).astype(np.int64)
        last = np.ceil(np.clip(self.bottom, start, end) - 0.5).astype(np.int64)
        return first, last - first
