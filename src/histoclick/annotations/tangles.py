"""Outlines that nobody draws: whether looking at one, or mending it, would take for ever.

What takes time is known: whether an outline is valid costs some 0.1 us for every pair of edges
whose boxes overlap, and mending it 0.1 ms for every crossing. Both are estimated from samples, in
well under a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

MAX_NEAR = 2e8  # pairs of edges whose boxes overlap, of one object
MAX_CROSSINGS = 100_000  # of all objects of a file that need mending
SAMPLE = 20  # pairs that are found in an outline that is just too tangled
TESTS = 2**24  # of crossing, at most

Ends = NDArray[np.float64]  # (N, 2), x and y


@dataclass(frozen=True)
class Edges:
    """Of all rings: from ``start`` to ``end``."""

    start: Ends
    end: Ends

    @classmethod
    def of(cls, shape: BaseGeometry) -> Edges:
        """Those of a polygon, or of several."""
        rings = shapely.get_rings(shapely.get_parts(shape))
        xy, ring = shapely.get_coordinates(rings, return_index=True)
        inside = np.flatnonzero(ring[1:] == ring[:-1])
        return cls(xy[inside], xy[inside + 1])

    def __len__(self) -> int:
        return len(self.start)

    def _boxes(self, index: NDArray[np.int64]) -> tuple[Ends, Ends]:
        start, end = self.start[index], self.end[index]
        return np.minimum(start, end), np.maximum(start, end)

    def near(self) -> float:
        """About how many pairs of edges have boxes that overlap; 0 where there are few pairs."""
        pairs = len(self) ** 2 / 2
        if pairs <= MAX_NEAR:
            return 0.0
        tries = int(SAMPLE * pairs / MAX_NEAR)
        one, other = np.random.default_rng(0).integers(0, len(self), (2, tries))
        (low, high), (low_, high_) = self._boxes(one), self._boxes(other)
        return float(((low < high_) & (low_ < high)).all(axis=1).mean()) * pairs

    def crossings(self) -> float:
        """About how many pairs of edges cross: exact for small outlines.

        Of large ones the longest edges are looked at, and others at random.
        """
        count = min(len(self), max(16, TESTS // max(1, len(self))))
        order = np.argsort(-np.abs(self.end - self.start).sum(axis=1))
        if count == len(self):
            return sum(map(self._crossed, order)) / 2
        longest, others = order[: count // 2], order[count // 2 :]
        some = np.random.default_rng(0).choice(others, count - len(longest), replace=False)
        rate = sum(map(self._crossed, some)) / len(some)
        return sum(map(self._crossed, longest)) + rate * len(others) / 2

    def _crossed(self, index: int) -> int:
        """How many edges cross one."""
        start, end = self.start[index], self.end[index]
        apart = _left(start, end, self.start) != _left(start, end, self.end)
        start, end = self.start[apart], self.end[apart]
        one, other = self.start[index], self.end[index]
        return int((_left(start, end, one) != _left(start, end, other)).sum())


def _left(start: Ends, end: Ends, point: Ends) -> NDArray[np.bool_]:
    """Whether points lie to the left of lines; one of the two may be a single one, (2,)."""
    along, to = end - start, point - start
    left: NDArray[np.bool_] = along[..., 0] * to[..., 1] > along[..., 1] * to[..., 0]
    return left
