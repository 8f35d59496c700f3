"""QuPath's GeoJSON, as versions 0.2 to 0.6 write it, and what others call GeoJSON.

QuPath counts from the top left corner of the slide's bounds, as does every file of it.
"""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely import LineString, MultiPoint, MultiPolygon, Point, Polygon

from histoclick.annotations import colours
from histoclick.annotations.document import Annotation, Canvas, Colour, Document, Shape
from histoclick.annotations.format import Format, Holds
from histoclick.annotations.shapes import Gathering, counted, ellipse, joined, polygons
from histoclick.annotations.sources import has_key, has_type, is_json, read_json

DECIMALS = 2
MAX_ANNOTATIONS = 10_000  # more of them make QuPath slow; detections do not
GEOMETRIES = (
    "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon",
    "GeometryCollection",
)  # fmt: skip
SPACE = uuid.UUID("5f2d1a6c-3b0e-5c57-9d5e-0c4f0f0a6b11")  # of the ids that are made here


def recognises(path: Path, head: bytes) -> bool:
    """GeoJSON of any kind."""
    if not is_json(head):
        return False
    geojson = has_type(head, "FeatureCollection", "Feature", *GEOMETRIES)
    return geojson or has_key(head, "features") or has_key(head, "geometry")


def read(path: Path, canvas: Canvas | None) -> Document:
    """Objects of all kinds; children come after their parents, as equals."""
    content = read_json(path)
    gathering = Gathering(path)
    corner = (canvas.x0, canvas.y0) if canvas else (0.0, 0.0)
    for index, feature in enumerate(_features(content)):
        _read_feature(feature, gathering, f"feature {index + 1}", corner)
    return gathering.document()


def write(document: Document, path: Path, canvas: Canvas | None) -> list[str]:
    """A FeatureCollection, one feature a line; compressed if ``path`` ends in .gz."""
    losses = []
    kind = "annotation"
    if len(document.annotations) > MAX_ANNOTATIONS:
        kind = "detection"
        losses.append(
            f"more than {MAX_ANNOTATIONS} objects: written as detections, which QuPath shows fast "
            "but does not let you edit"
        )
    changed = {label for label in document.labels if label != ": ".join(_levels(label))}
    if changed:
        losses.append(f"{counted(len(changed), 'class')} with odd colons: written as QuPath does")
    corner = (canvas.x0, canvas.y0) if canvas else (0.0, 0.0)
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for index, annotation in enumerate(document.annotations):
            feature = _feature(annotation, index, kind, corner)
            file.write(",\n" if index else "\n")
            file.write(json.dumps(feature, ensure_ascii=False))
        file.write("\n]}\n")
    return losses


def _features(content: Any) -> Iterator[Any]:
    """Of a collection, a list, one feature or a bare geometry."""
    if isinstance(content, list):
        for item in content:
            yield from _features(item)
    elif isinstance(content, dict) and isinstance(content.get("features"), list):
        yield from content["features"]
    elif isinstance(content, dict) and content.get("type") in GEOMETRIES:
        yield {"geometry": content}
    else:
        yield content


def _read_feature(
    feature: Any, gathering: Gathering, where: str, corner: tuple[float, float]
) -> None:
    if not isinstance(feature, dict):
        gathering.skip("no geometry", where)
        return
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    kind = properties.get("objectType") or properties.get("object_type")
    if kind != "root":
        _read_object(feature, properties, gathering, where, corner)
    children = properties.get("childObjects") or properties.get("children") or []
    if isinstance(children, list) and children:
        gathering.tell("read {} beside, not inside, the object that holds them", where,
                       "child object", len(children))  # fmt: skip
        for child in children:
            _read_feature(child, gathering, where, corner)


def _read_object(
    feature: dict[str, Any],
    properties: dict[str, Any],
    gathering: Gathering,
    where: str,
    corner: tuple[float, float],
) -> None:
    geometry = feature.get("geometry")
    label, colour = _class(properties)
    name = _text(properties.get("name"))
    if feature.get("nucleusGeometry"):
        gathering.tell("left out the nucleus of {}", where, "cell")
    kind = _text(properties.get("objectType"))
    if kind not in ("", "annotation", "detection"):
        gathering.tell(f"read {{}} of kind '{kind[:40]}' as plain annotations", where)
    extras = {"measurements": "measurements", "metadata": "metadata", "isLocked": "lock"}
    for key, what in extras.items():
        if properties.get(key):
            gathering.tell(f"left out the {what} of {{}}", where)
    if isinstance(geometry, dict) and isinstance(geometry.get("plane"), dict):
        plane = geometry["plane"]
        if plane.get("z") or plane.get("t"):
            gathering.tell("read {} of other focal planes or times as if of this one", where)
    for shape in _shapes(geometry, gathering, where):
        gathering.add(_shifted(shape, corner), label, colour, name)


def _shifted(shape: Shape, corner: tuple[float, float]) -> Shape:
    """In px of level 0, without the noise of adding floats."""
    if not any(corner):
        return shape
    shifted: Shape = shapely.transform(shape, lambda xy: np.round(xy + corner, 6))
    return shifted


def _shapes(geometry: Any, gathering: Gathering, where: str) -> list[Shape]:
    """The geometry as shapes of a document: usually one."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    coordinates = geometry.get("coordinates") if isinstance(geometry, dict) else None
    shapes: list[Shape | None] = []
    if kind == "GeometryCollection":
        members = geometry.get("geometries")
        if isinstance(members, list) and members:
            return [s for member in members for s in _shapes(member, gathering, where)]
        gathering.skip("no geometry", where)
    elif kind not in GEOMETRIES:
        gathering.skip("no geometry" if kind is None else "an unknown geometry", where)
    elif not isinstance(coordinates, list) or not coordinates:
        gathering.skip("no coordinates", where)
    elif kind == "Point":
        shapes = [gathering.points([coordinates], where)]
    elif kind == "MultiPoint":
        shapes = [gathering.points(coordinates, where)]
    elif kind == "LineString":
        shapes = [gathering.line(coordinates, where)]
    elif kind == "MultiLineString":
        shapes = [gathering.line(line, where) for line in coordinates]
        if len(shapes) > 1:
            gathering.tell("read {} of several lines as one object for each", where)
    elif kind == "Polygon":
        shapes = [_polygon(coordinates, gathering, where)]
        if geometry.get("isEllipse") and shapes[0] is not None:
            x0, y0, x1, y1 = shapes[0].bounds
            rings = ellipse((x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2)
            shapes = [gathering.polygon(rings, where=where)]
            gathering.tell("read {} as polygons", where, "ellipse")
    else:
        parts = [_polygon(rings, gathering, where) for rings in coordinates]
        pieces = [piece for part in parts if part is not None for piece in polygons(part)]
        shapes = [gathering.mended(joined(pieces), where)] if pieces else []
    return [shape for shape in shapes if shape is not None]


def _polygon(rings: Any, gathering: Gathering, where: str) -> Polygon | MultiPolygon | None:
    if not isinstance(rings, list) or not rings:
        gathering.skip("no coordinates", where)
        return None
    for ring in rings:
        if isinstance(ring, list) and len(ring) > 2 and ring[0] != ring[-1]:
            gathering.tell("closed {}", where, "ring that was open")
    return gathering.polygon(rings[0], rings[1:], where)


def _class(properties: dict[str, Any]) -> tuple[str, Colour | None]:
    """(class, colour) of the many places where they are written."""
    value = properties.get("classification")
    if value is None:
        value = properties.get("class", properties.get("group", properties.get("label")))
    label, colour = "", None
    if isinstance(value, dict):
        names = value.get("names")
        if isinstance(names, list):
            label = ": ".join(_text(name) for name in names)
        else:
            label = _text(value.get("name", value.get("value")))
        colour = colours.parsed(value.get("color")) or colours.parsed(value.get("colorRGB"))
    else:
        label = _text(value)
    if colour is None:
        for key in ("color", "colorRGB", "lineColor"):
            colour = colour or colours.parsed(properties.get(key))
    return label, colour


def _text(value: Any) -> str:
    """Names of strangers may be numbers."""
    return str(value) if isinstance(value, str | int | float) else ""


def _levels(label: str) -> list[str]:
    """QuPath's classes are derived from each other, with ":" between their names."""
    return [level.strip() for level in label.split(":") if level.strip()]


def _feature(
    annotation: Annotation, index: int, kind: str, corner: tuple[float, float]
) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": kind}
    if annotation.name:
        properties["name"] = annotation.name
    levels = _levels(annotation.label)
    # QuPath refuses a file with a class that has no colour.
    colour = list(annotation.colour or colours.default(annotation.label))
    if len(levels) > 1:
        properties["classification"] = {"names": levels, "color": colour}
    elif levels:
        properties["classification"] = {"name": levels[0], "color": colour}
    elif annotation.colour:
        properties["color"] = colour
    # The same document gives the same file, and its objects are the same ones to QuPath.
    id_ = uuid.uuid5(SPACE, f"{index} {annotation.label} {shapely.to_wkb(annotation.shape, True)}")
    return {
        "type": "Feature",
        "id": str(id_),
        "geometry": _geometry(annotation.shape, corner),
        "properties": properties,
    }


def _geometry(shape: Shape, corner: tuple[float, float]) -> dict[str, Any]:
    def listed(line: Any) -> list[list[float]]:
        array = np.round(shapely.get_coordinates(line) - corner, DECIMALS) + 0.0  # no "-0.0"
        result: list[list[float]] = array.tolist()
        return result

    def rings(polygon: Polygon) -> list[list[list[float]]]:
        return [listed(ring) for ring in (polygon.exterior, *polygon.interiors)]

    coordinates: Any
    if isinstance(shape, MultiPolygon) and len(shape.geoms) == 1:
        shape = shape.geoms[0]  # QuPath does not like collections of one
    if isinstance(shape, Polygon):
        coordinates = rings(shape)
    elif isinstance(shape, MultiPolygon):
        coordinates = [rings(part) for part in shape.geoms]
    elif isinstance(shape, Point):
        coordinates = listed(shape)[0]
    else:
        assert isinstance(shape, MultiPoint | LineString)
        coordinates = listed(shape)
    return {"type": shape.geom_type, "coordinates": coordinates}


QUPATH = Format(
    name="qupath",
    title="QuPath GeoJSON",
    suffixes=(".geojson", ".geojson.gz", ".json"),
    decimals=DECIMALS,
    holds=frozenset(Holds),
    recognises=recognises,
    read=read,
    write=write,
)
