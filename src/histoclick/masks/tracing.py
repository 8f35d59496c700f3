"""Masks to polygons: outlines along the sides of pixels.

Where the border of a piece turns, and only there, lie its vertices. They are found in bands of
rows, in two by two pixels each; sorted by rows they pair to horizontal edges, sorted by columns to
vertical ones, and edges chain to rings. Of the mask nothing but its corners is kept.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon

from histoclick.types import HistoclickError, Mask

_PIXELS = 2**24  # looked at together
_HOLES = 2**12  # whose pieces are looked for together

Ints = NDArray[np.int64]
Pixels = NDArray[Any]  # (h, W) whole numbers or bool


def trace(
    bands: Iterable[Pixels], corners: int = 10_000_000, name: str = "the mask"
) -> dict[int, list[Polygon]]:
    """The exact outlines of every value of a label image but 0, which is background.

    ``bands``: the image from top to bottom in pieces of any height, (h, W) whole numbers or bool.
    A polygon is a piece of one value whose pixels hang together by their sides, in px of the image;
    pixels that only meet in a corner are two polygons that touch there. Only corners are vertices.
    Values are in order, and so are the polygons of one, by their top left vertex.

    Raises ``HistoclickError`` for more than ``corners`` corners, which are those of a picture or of
    noise, and says ``name`` then; each takes up to 200 bytes.
    """
    return _Corners.of(bands, corners, name).polygons()


@dataclass(frozen=True)
class _Corners:
    """Where the borders of pieces turn: (n,) each, sorted by value, y, x and ``right``.

    A horizontal and a vertical side of pixels meet at a corner. ``right``: the horizontal one goes
    to the right from here; ``down``: the vertical one goes down. ``leaves``: walking with the piece
    to the right hand, one comes along the vertical side and leaves along the horizontal one. Where
    two pixels of one value meet in a point there are two corners, one for each.
    """

    value: Ints
    y: Ints
    x: Ints
    right: Mask
    down: Mask
    leaves: Mask

    @classmethod
    def of(cls, bands: Iterable[Pixels], limit: int, name: str) -> _Corners:
        """Those of a label image, from top to bottom."""
        found = [(*np.zeros((3, 0), np.int32), *np.zeros((3, 0), np.bool_))]
        count = 0
        for y, pixels in _windows(bands):
            for turns in _turns(y, pixels):
                found.append(turns)
                count += len(turns[0])
            if count > limit:
                raise HistoclickError(
                    f"{name} has more than {limit:,} corners in its first {y + len(pixels)} rows:"
                    " this is a picture or noise; give a mask whose pixels name classes"
                )
        value, y_, x, right, down, leaves = map(np.concatenate, zip(*found, strict=True))
        order = _order(value, y_, x, right)
        columns = (value, y_, x, right, down, leaves)
        return cls(*(column[order] for column in columns))

    def polygons(self) -> dict[int, list[Polygon]]:
        """The pieces of every value."""
        if not len(self.x):
            return {}
        # Horizontal edge k goes between corners 2k and 2k + 1.
        start = np.arange(0, len(self.x), 2) + ~self.leaves[::2]
        end = start ^ 1
        column = _order(self.value, self.x, self.y, self.down)
        beyond = np.empty_like(column)  # the other end of a corner's vertical edge
        beyond[column[::2]], beyond[column[1::2]] = column[1::2], column[::2]
        edges, first = _rings(beyond[end] >> 1)
        # A piece that meets itself in a point was walked around through it twice. Taking the other
        # turn there makes it two rings that touch, as polygons must have them.
        ring = np.empty_like(edges)
        ring[edges] = np.repeat(np.arange(len(first)), np.diff(first, append=len(edges)))
        one = np.arange(1, len(self.x) - 1, 2)  # of two in a point the first goes left
        two = one + 1
        met = (self.x[one] == self.x[two]) & (self.y[one] == self.y[two])
        met &= (self.value[one] == self.value[two]) & (ring[one >> 1] == ring[two >> 1])
        if met.any():
            turn = np.arange(len(self.x))
            turn[one[met]], turn[two[met]] = two[met], one[met]
            edges, first = _rings(turn[beyond[turn[end]]] >> 1)
        start, end = start[edges], end[edges]
        # After each edge's two corners the ring's first one again, where the ring ends.
        size = 2 * np.diff(first, append=len(edges)) + 1
        corners = np.insert(
            np.stack([start, end], 1).reshape(-1),
            2 * np.append(first[1:], len(edges)),
            start[first],
        )
        rings = _Rings(
            self.value[start[first]],
            np.add.reduceat((self.x[start] - self.x[end]) * self.y[start], first),
            np.stack([self.x[corners], self.y[corners]], 1).astype(np.float64),
            np.append(0, np.cumsum(size)),
        )
        return rings.polygons()


@dataclass(frozen=True)
class _Rings:
    """Closed rings, sorted by value, y, x of their top left vertex; each begins with its top edge.

    ``value``, ``area``: (r,), the area below 0 for holes. ``xy``: (n, 2) vertices of all, those of
    ring i from ``bounds[i]`` to ``bounds[i + 1]``.
    """

    value: Ints
    area: Ints
    xy: NDArray[np.float64]
    bounds: Ints

    def polygons(self) -> dict[int, list[Polygon]]:
        """Pieces with their holes."""
        shells, holes = np.flatnonzero(self.area > 0), np.flatnonzero(self.area < 0)
        owner = np.arange(len(self.area))
        owner[holes] = self._owners(shells, holes)
        order = np.argsort(owner * 2 + (self.area < 0), kind="stable")
        pieces = self._assembled(order, np.flatnonzero(self.area[order] > 0))
        values, first = np.unique(self.value[shells], return_index=True)
        groups = np.split(pieces, first[1:])
        return {value: list(group) for value, group in zip(values.tolist(), groups, strict=True)}

    def _assembled(self, rings: Ints, shells: Ints) -> NDArray[Any]:
        """Polygons of some rings; ``shells``: which of them begin a polygon."""
        size = np.diff(self.bounds)[rings]
        bounds = np.append(0, np.cumsum(size))
        vertices = np.arange(bounds[-1]) + np.repeat(self.bounds[rings] - bounds[:-1], size)
        polygons: NDArray[Any] = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON,
            self.xy[vertices],
            (bounds, np.append(shells, len(rings))),
        )
        return polygons

    def _owners(self, shells: Ints, holes: Ints) -> Ints:
        """The shell of every hole: the smallest one of its value around its top left pixel."""
        low = np.minimum.reduceat(self.xy, self.bounds[:-1])[shells]
        high = np.maximum.reduceat(self.xy, self.bounds[:-1])[shells]
        tree = shapely.STRtree(shapely.box(*low.T, *high.T))
        filled = self._assembled(shells, np.arange(len(shells)))
        x, y = self.xy[self.bounds[holes] + 1].T + 0.5  # a hole's top edge goes to the left
        found = [np.empty(0, np.int64)]
        for start in range(0, len(holes), _HOLES):
            some = slice(start, start + _HOLES)
            hole, shell = tree.query(shapely.points(x[some], y[some]))
            hole += start
            alike = self.value[holes[hole]] == self.value[shells[shell]]
            hole, shell = hole[alike], shell[alike]
            by_size = np.lexsort((self.area[shells[shell]], hole))
            hole, shell = hole[by_size], shell[by_size]
            at = np.flatnonzero(np.diff(hole, prepend=-1))
            last = np.append(at[1:], len(hole)) - 1
            open_ = np.flatnonzero(at < last)
            while len(open_):  # around the last one left, if no other is
                around = filled[shell[at[open_]]]
                shapely.prepare(around)
                inside = shapely.contains_xy(around, x[hole[at[open_]]], y[hole[at[open_]]])
                open_ = open_[~inside]
                at[open_] += 1
                open_ = open_[at[open_] < last[open_]]
            found.append(shells[shell[at]])
        return np.concatenate(found)


def _windows(bands: Iterable[Pixels]) -> Iterator[tuple[int, Pixels]]:
    """Pieces of the image inside a frame of 0, each with the last row of the one before.

    y of the second row, (h + 1, W + 2) pixels. Pieces of background are left out.
    """
    y = 0
    last: Pixels = np.zeros((1, 0), np.uint8)
    for band in chain(bands, [None]):
        rows = np.zeros_like(last) if band is None else band
        rows = rows.view(np.uint8) if rows.dtype == np.bool_ else rows
        step = max(1, _PIXELS // max(1, rows.shape[1]))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            if not y:
                last = np.zeros_like(some[:1])
            if some.any() or last.any():
                yield y, np.pad(np.concatenate([last, some]), [(0, 0), (1, 1)])
            last, y = some[-1:], y + len(some)


def _turns(y: int, pixels: Pixels) -> Iterator[tuple[NDArray[Any], ...]]:
    """The corners between ``pixels``, as the columns of ``_Corners``."""
    across, down = pixels[:, 1:] != pixels[:, :-1], pixels[1:] != pixels[:-1]
    turn = (across[1:] | across[:-1]) & (down[:, 1:] | down[:, :-1])
    row, x = np.divmod(np.flatnonzero(turn), turn.shape[1])
    window = [[pixels[row + i, x + j] for j in (0, 1)] for i in (0, 1)]
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        own, beside, over = window[i][j], window[i][1 - j], window[1 - i][j]
        opposite = window[1 - i][1 - j]
        juts = (own != 0) & (own != beside) & (own != over)
        lacks = (beside != 0) & (own != beside) & (beside == over) & (beside == opposite)
        for some, value, leaves in ((juts, own, i == j), (lacks, beside, i != j)):
            at = np.flatnonzero(some)
            flags = (np.full(len(at), flag) for flag in (j == 1, i == 1, leaves))
            yield value[at].astype(np.int64), row[at] + y, x[at], *flags


def _order(value: Ints, line: Ints, along: Ints, ahead: Mask) -> Ints:
    """Indices that sort by all four: one number, as they are never so large, sorts fastest."""
    _, value = np.unique(value, return_inverse=True)
    key = value * (line.max(initial=0) + 1) + line
    return np.argsort((key * (along.max(initial=0) + 1) + along) * 2 + ahead)


def _rings(after: Ints) -> tuple[Ints, Ints]:
    """The rings of a chain: all its members ring by ring, and where each ring begins."""
    following = array("i", after.astype(np.int32).tobytes())  # a list would miss the caches
    order, first = array("i"), array("i")
    for start in range(len(following)):
        member, behind = start, following[start]
        if behind < 0:
            continue
        first.append(len(order))
        while behind >= 0:
            order.append(member)
            following[member] = -1
            member, behind = behind, following[behind]
    return np.array(order, np.int64), np.array(first, np.int64)
