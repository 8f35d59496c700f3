"""Masks as GeoJSON features, for programs that want outlines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from shapely import Polygon
from shapely.affinity import translate

from histoclick.masks import trace
from histoclick.session.windows import Window
from histoclick.types import Mask

MAX_CORNERS = 1_000_000  # of one mask: some 20 MB of JSON


def outlines(mask: Mask, window: Window) -> list[Polygon]:
    """The exact outlines of a mask, (H, W) bool of ``window``, in px of what the window lies in.

    Pixel-corner: rasterised they give the mask again. Holes are kept, and so are all parts. Raises
    ``HistoclickError`` for more than ``MAX_CORNERS``.
    """
    polygons = trace([mask], MAX_CORNERS, "the model's answer").get(1, [])
    return [translate(polygon, window.x, window.y) for polygon in polygons]


def feature(polygons: Sequence[Polygon], properties: dict[str, Any]) -> dict[str, Any]:
    """One object of one or several parts as a GeoJSON feature; coordinates are whole numbers."""
    parts = [
        [shapely.get_coordinates(ring).astype(np.int64).tolist() for ring in _rings(polygon)]
        for polygon in polygons
    ]
    single = len(parts) == 1  # QuPath does not like collections of one
    geometry = {
        "type": "Polygon" if single else "MultiPolygon",
        "coordinates": parts[0] if single else parts,
    }
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _rings(polygon: Polygon) -> list[Any]:
    return [polygon.exterior, *polygon.interiors]
