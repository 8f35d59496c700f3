"""Outlines with fewer vertices, and a promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

Ints = NDArray[np.int64]
Points = NDArray[np.complex128]  # x + iy


def simplify(shape: Polygon | MultiPolygon, tolerance_px: float) -> Polygon | MultiPolygon:
    """Fewer vertices: none of the old ones is farther than ``tolerance_px`` from the new outline.

    Nothing collapses: holes and parts all stay, as triangles at least, and the result is valid;
    where rings would cross, vertices are kept. To drop what is small is up to the caller. Shapes
    simplified one by one need not share their borders any more.
    """
    if shape.is_empty:
        return shape
    simple = shapely.simplify(shape, tolerance_px, preserve_topology=True)
    if _deviation(shape, simple) > tolerance_px:
        # GEOS dropped the vertex a ring begins with at the end: as far again at most.
        simple = shapely.simplify(shape, tolerance_px / 2, preserve_topology=True)
    return simple if simple.is_valid else shape


def _deviation(old: Any, new: Any) -> float:
    """How far vertices are at most from the edges that took their place; infinite if unclear."""
    points, ring = _vertices(old)
    kept = _common((points, ring), _vertices(new))
    count = np.bincount(ring[kept], minlength=ring[-1] + 1)
    if len(kept) != len(_vertices(new)[0]) or not count.all():
        return np.inf
    # Of the vertices that are kept: how many lie up to each one in its ring, from 0.
    first = (np.cumsum(count) - count)[ring]
    rank = np.searchsorted(kept, np.arange(len(points)), side="right") - 1 - first
    before = points[kept[first + rank % count[ring]]]
    after = points[kept[first + (rank + 1) % count[ring]]]
    edge, way = after - before, points - before
    share = np.clip((way * edge.conj()).real / np.maximum(np.abs(edge) ** 2, 1e-300), 0, 1)
    return float(np.abs(way - share * edge).max())


def _vertices(shape: Any) -> tuple[Points, Ints]:
    """The vertices of all rings, each once, and the index of their ring."""
    rings = shapely.get_rings(shapely.get_parts(shape))
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    once = np.append(ring[1:] == ring[:-1], False)
    return (xy @ np.array([1, 1j]))[once], ring[once]


def _common(one: tuple[Points, Ints], other: tuple[Points, Ints]) -> Ints:
    """Indices of the vertices of ``one`` that the same ring of ``other`` has as well."""
    points, ring = (np.concatenate(pair) for pair in zip(one, other, strict=True))
    order = np.lexsort((points, ring))
    same = (np.diff(points[order]) == 0) & (np.diff(ring[order]) == 0)
    return np.sort(order[:-1][same])  # stable: what comes first is of the first
