"""Polygons as one ring each, for formats that have no holes.

A slit without width joins each hole with the ring around it. What is inside by the even-odd rule,
and the area by the shoelace formula, are those of the polygon with its holes.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon
from shapely.geometry.polygon import orient

Ring = NDArray[np.float64]  # (N, 2), x and y, not closed


def one_ring(polygon: Polygon) -> Ring:
    """The outline of a polygon with slits to its holes."""
    polygon = orient(polygon)  # holes run the other way, so that their area is subtracted
    ring = _open(polygon.exterior)
    # From the left to the right: what a slit to the left meets first is part of the ring already.
    for hole in sorted(map(_open, polygon.interiors), key=lambda hole: _leftmost(hole)[1]):
        start, _ = _leftmost(hole)
        hole = np.roll(hole, -start, axis=0)
        edge, x = _left_of(ring, *hole[0])
        foot = np.array([[x, hole[0, 1]]])
        ring = np.concatenate([ring[: edge + 1], foot, hole, hole[:1], foot, ring[edge + 1 :]])
    return ring


def _open(line: shapely.LinearRing) -> Ring:
    coordinates: Ring = shapely.get_coordinates(line)[:-1]
    return coordinates


def _leftmost(ring: Ring) -> tuple[int, tuple[float, float]]:
    """Index and (x, y) of the leftmost vertex, of several the upper one."""
    index = int(np.lexsort((ring[:, 1], ring[:, 0]))[0])
    return index, (float(ring[index, 0]), float(ring[index, 1]))


def _left_of(ring: Ring, x: float, y: float) -> tuple[int, float]:
    """The edge that is nearest to the left of a point inside, and where on it: (index, x).

    Edges count from their upper end, without their lower one: a point just below sees the same.
    """
    start, end = ring, np.roll(ring, -1, axis=0)
    crosses = (start[:, 1] <= y) != (end[:, 1] <= y)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (y - start[:, 1]) / (end[:, 1] - start[:, 1])
        at = np.where(crosses, start[:, 0] + share * (end[:, 0] - start[:, 0]), -np.inf)
    at[at > x] = -np.inf
    edge = int(np.argmax(at))
    return edge, float(at[edge])
