"""V7 Darwin's JSON, versions 1 and 2 (read only)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from shapely import MultiPolygon, Polygon, STRtree

from histoclick.annotations.document import Canvas, Document, Shape
from histoclick.annotations.format import Format, Holds
from histoclick.annotations.shapes import Gathering, box, ellipse, joined, polygons
from histoclick.annotations.sources import has_key, is_json, read_json
from histoclick.types import HistoclickError


def recognises(path: Path, head: bytes) -> bool:
    """By what it says of the picture and its schema."""
    if not is_json(head):
        return False
    second = has_key(head, "schema_ref", "item") or has_key(head, "item", "slots")
    return second or (has_key(head, "dataset", "image") and b"darwin" in head.lower())


def read(path: Path, canvas: Canvas | None) -> Document:
    """Polygons, ellipses, boxes, lines and keypoints of all slots."""
    content = read_json(path)
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        raise HistoclickError(f"{path}: no Darwin file: there is no list of annotations")
    gathering = Gathering(path)
    for index, annotation in enumerate(annotations):
        where = f"annotation {index + 1}"
        if not isinstance(annotation, dict):
            gathering.skip("no outline", where)
            continue
        gathering.add(_shape(annotation, gathering, where), str(annotation.get("name") or ""))
    return gathering.document(_canvas(content))


def _shape(annotation: dict[str, Any], gathering: Gathering, where: str) -> Shape | None:
    try:
        for key, read_part in (
            ("polygon", _polygon), ("ellipse", _ellipse), ("line", _line),
            ("keypoint", _keypoint), ("bounding_box", _box),  # last: most have one besides
        ):  # fmt: skip
            if isinstance(annotation.get(key), dict):
                return read_part(annotation[key], gathering, where)
    except (LookupError, TypeError, ValueError, OverflowError):
        gathering.skip("coordinates that are not numbers", where)
        return None
    if "raster_layer" in annotation or "mask" in annotation:
        gathering.skip("a raster layer, which cannot be read", where)
    else:
        gathering.skip("no outline", where)
    return None


def _polygon(value: dict[str, Any], gathering: Gathering, where: str) -> Shape | None:
    paths = value.get("paths") or [value.get("path"), *(value.get("additional_paths") or [])]
    found = [gathering.polygon(_pairs(path), where=where) for path in paths]
    rings = [part for region in found if region is not None for part in polygons(region)]
    return gathering.mended(_nested(rings), where) if rings else None


def _ellipse(value: dict[str, Any], gathering: Gathering, where: str) -> Shape | None:
    centre, radius = value["center"], value["radius"]
    gathering.tell("read {} as polygons", where, "ellipse")
    curve = ellipse(float(centre["x"]), float(centre["y"]), float(radius["x"]),
                    float(radius["y"]), float(value.get("angle") or 0))  # fmt: skip
    return gathering.polygon(curve, where=where)


def _line(value: dict[str, Any], gathering: Gathering, where: str) -> Shape | None:
    return gathering.line(_pairs(value.get("path") or value["paths"][0]), where)


def _keypoint(value: dict[str, Any], gathering: Gathering, where: str) -> Shape | None:
    return gathering.points(_pairs([value]), where)


def _box(value: dict[str, Any], gathering: Gathering, where: str) -> Shape | None:
    x, y, width, height = (float(value[key]) for key in "xywh")
    return gathering.polygon(box(x, y, x + width, y + height), where=where)


def _pairs(path: Any) -> list[tuple[float, float]]:
    return [(float(point["x"]), float(point["y"])) for point in path]


def _nested(rings: Sequence[Polygon]) -> Polygon | MultiPolygon:
    """Rings inside an odd number of others are holes in the smallest one around them."""
    order = sorted(rings, key=lambda ring: -float(ring.area))
    inner, outer = STRtree(order).query(np.array(order, object), predicate="covered_by")
    inner, outer = inner[outer < inner], outer[outer < inner]
    depth = np.bincount(inner, minlength=len(order))
    around = np.full(len(order), -1)
    np.maximum.at(around, inner, outer)  # the last one is the smallest
    pieces = []
    for index in np.flatnonzero(depth % 2 == 0):
        holes = [order[i].exterior for i in np.flatnonzero((around == index) & (depth % 2 == 1))]
        pieces.append(Polygon(order[index].exterior, holes))
    return joined(pieces)


def _canvas(content: dict[str, Any]) -> Canvas | None:
    item = content.get("item") or content.get("image")
    item = item if isinstance(item, dict) else {}
    slots = item.get("slots")
    size = slots[0] if isinstance(slots, list) and slots and isinstance(slots[0], dict) else item
    width, height = size.get("width"), size.get("height")
    if type(width) is not int or type(height) is not int or min(width, height) < 1:
        return None
    return Canvas(width, height, name=str(item.get("name") or item.get("filename") or ""))


DARWIN = Format(
    name="darwin",
    title="V7 Darwin JSON",
    suffixes=(".json",),
    decimals=2,
    holds=frozenset(
        {Holds.HOLES, Holds.PARTS, Holds.POINTS, Holds.LINES, Holds.LABELS, Holds.OBJECTS,
         Holds.OVERLAPS}
    ),
    recognises=recognises,
    read=read,
)  # fmt: skip
