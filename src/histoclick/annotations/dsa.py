"""The Digital Slide Archive's JSON (HistomicsUI, large_image): elements of many kinds.

Points are 3-vectors in px of level 0; ``group`` is the class and ``label`` the object's own name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely import LineString, Point, Polygon

from histoclick.annotations import colours
from histoclick.annotations.document import Annotation, Canvas, Colour, Document, Shape
from histoclick.annotations.format import Format, Holds
from histoclick.annotations.shapes import Gathering, box, ellipse
from histoclick.annotations.sources import has_key, has_type, is_json, read_json

DECIMALS = 3
KINDS = ("polyline", "rectangle", "ellipse", "circle", "point", "arrow")
OVERLAYS = ("pixelmap", "image", "heatmap", "griddata", "rectanglegrid")


def recognises(path: Path, head: bytes) -> bool:
    """By its list of elements."""
    return is_json(head) and has_key(head, "elements") | has_type(head, "polyline")


def read(path: Path, canvas: Canvas | None) -> Document:
    """Elements of one annotation or of a list, as the server or its database exports them."""
    gathering = Gathering(path)
    for index, element in enumerate(_elements(read_json(path))):
        _read_element(element, gathering, f"element {index + 1}")
    return gathering.document()


def write(document: Document, path: Path, canvas: Canvas | None) -> list[str]:
    """What the server accepts as one annotation."""
    name = canvas.name if canvas and canvas.name else "histoclick"
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'{{"name": {json.dumps(name, ensure_ascii=False)}, "description": "", ')
        file.write('"elements": [')
        for index, annotation in enumerate(document.annotations):
            file.write(",\n" if index else "\n")
            file.write(json.dumps(_element(annotation), ensure_ascii=False))
        file.write("\n]}\n")
    return []


def _elements(content: Any) -> Iterator[Any]:
    if isinstance(content, list):
        for item in content:
            yield from _elements(item)
    elif isinstance(content, dict) and isinstance(content.get("annotation"), dict):
        yield from _elements(content["annotation"])
    elif isinstance(content, dict) and isinstance(content.get("elements"), list):
        yield from content["elements"]
    else:
        yield content


def _read_element(element: Any, gathering: Gathering, where: str) -> None:
    kind = element.get("type") if isinstance(element, dict) else None
    if kind in OVERLAYS:
        gathering.skip(
            "pixels instead of an outline (pixelmap, image, heatmap), which cannot be read", where
        )
    elif kind not in KINDS:
        gathering.skip("an unknown type", where)
    else:
        label = element.get("label")
        value = label.get("value") if isinstance(label, dict) else label
        name = value if isinstance(value, str) else ""
        group = element.get("group")
        if not isinstance(group, str):
            group, name = name, ""
        colour = colours.parsed(element.get("lineColor"))
        shape = _shape(element, kind, gathering, where)
        gathering.add(shape, group, colour, "" if name == group else name)


def _shape(element: dict[str, Any], kind: str, gathering: Gathering, where: str) -> Shape | None:
    points = element.get("points")
    if kind == "polyline" and element.get("closed"):
        holes = element.get("holes")
        return gathering.polygon(points, holes if isinstance(holes, list) else (), where)
    if kind in ("polyline", "arrow"):
        return gathering.line(points, where)
    if kind == "point":
        return gathering.points([element.get("center")], where)
    try:
        x, y = (float(value) for value in element["center"][:2])
        if kind == "circle":
            across = along = 2 * float(element["radius"])
        else:
            across, along = float(element["width"]), float(element["height"])
        rotation = float(element.get("rotation") or 0)
        if not all(map(math.isfinite, (x, y, across, along, rotation))):
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError):
        gathering.skip("no proper center and size", where)
        return None
    if kind != "rectangle":
        gathering.tell("read {} as polygons", where, "ellipse or circle")
        return gathering.polygon(ellipse(x, y, across / 2, along / 2, rotation), where=where)
    cos, sin = math.cos(rotation), math.sin(rotation)
    corners = box(-across / 2, -along / 2, across / 2, along / 2)
    turned = corners @ np.array([(cos, sin), (-sin, cos)])
    return gathering.polygon(turned + np.array([x, y]), where=where)


def _element(annotation: Annotation) -> dict[str, Any]:
    shape = annotation.shape
    colour: Colour = annotation.colour or colours.default(annotation.label)
    red, green, blue = colour
    element: dict[str, Any] = {
        "group": annotation.label,
        "lineColor": f"rgb({red}, {green}, {blue})",
        "lineWidth": 2,
    }
    if name := annotation.name or annotation.label:
        element["label"] = {"value": name}
    if isinstance(shape, Point):
        return {"type": "point", **element, "center": _points(shape)[0]}
    if isinstance(shape, LineString):
        return {"type": "polyline", **element, "closed": False, "points": _points(shape)}
    assert isinstance(shape, Polygon)
    element["fillColor"] = f"rgba({red}, {green}, {blue}, 0.2)"
    element |= {"closed": True, "points": _points(shape.exterior)[:-1]}
    if shape.interiors:
        element["holes"] = [_points(ring)[:-1] for ring in shape.interiors]
    return {"type": "polyline", **element}


def _points(line: Any) -> list[list[float]]:
    """(x, y, 0) of all vertices."""
    array = np.round(shapely.get_coordinates(line), DECIMALS) + 0.0
    points: list[list[float]] = np.pad(array, [(0, 0), (0, 1)]).tolist()
    return points


DSA = Format(
    name="dsa",
    title="DSA JSON",
    suffixes=(".anot", ".json"),
    decimals=DECIMALS,
    holds=frozenset(Holds) - {Holds.PARTS, Holds.POINT_SETS},
    recognises=recognises,
    read=read,
    write=write,
)
