"""QuPath's GeoJSON: what its versions write is read, and what is written it accepts."""

from __future__ import annotations

import gzip
import json
import math
import uuid
from pathlib import Path
from typing import Any

import pytest
import shapely
from shapely import LineString, MultiPoint, MultiPolygon, Point, box

from drawings import ISLAND, square
from histoclick.annotations import Annotation, Canvas, Document, read, write

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]


def feature(**properties: Any) -> dict[str, Any]:
    geometry = {"type": "Polygon", "coordinates": [SQUARE]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def read_back(tmp_path: Path, content: Any, canvas: Canvas | None = None) -> Document:
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(content), encoding="utf-8")
    return read(path, canvas)


def written(tmp_path: Path, *annotations: Annotation, canvas: Canvas | None = None) -> Any:
    path = tmp_path / "b.geojson"
    write(Document(annotations), path, canvas=canvas)
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "content",
    [
        {"type": "FeatureCollection", "features": [feature(), feature()]},
        {"features": [feature(), feature()]},
        [feature(), feature()],
        [{"type": "FeatureCollection", "features": [feature()]}, feature()],
    ],
)
def test_all_kinds_of_collections(tmp_path: Path, content: Any) -> None:
    assert len(read_back(tmp_path, content).annotations) == 2


@pytest.mark.parametrize(
    ("geometry", "wanted"),
    [
        ({"type": "Point", "coordinates": [1, 2, 3]}, Point(1, 2)),
        ({"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}, MultiPoint([(1, 2), (3, 4)])),
        ({"type": "LineString", "coordinates": [[1, 2], [3, 4]]}, LineString([(1, 2), (3, 4)])),
        ({"type": "Polygon", "coordinates": [[[0, 0, 9], [2, 0, 9], [2, 2, 9], [0, 0, 9]]]},
         shapely.Polygon([(0, 0), (2, 0), (2, 2)])),
        ({"type": "MultiPolygon", "coordinates": [[SQUARE]]}, box(0, 0, 10, 10)),
    ],
)  # fmt: skip
def test_bare_geometries(tmp_path: Path, geometry: Any, wanted: shapely.Geometry) -> None:
    assert read_back(tmp_path, geometry).annotations[0].shape.equals(wanted)


def test_collections_and_lines_of_several_become_objects(tmp_path: Path) -> None:
    lines = {"type": "MultiLineString", "coordinates": [[[0, 0], [1, 1]], [[2, 2], [3, 3]]]}
    content = feature(name="x")
    content["geometry"] = {"type": "GeometryCollection", "geometries": [
        {"type": "Polygon", "coordinates": [SQUARE]}, lines]}  # fmt: skip
    document = read_back(tmp_path, content)
    assert [a.shape.geom_type for a in document.annotations] == ["Polygon"] + ["LineString"] * 2
    assert {a.name for a in document.annotations} == {"x"}


@pytest.mark.parametrize(
    ("properties", "label", "colour"),
    [
        ({"classification": {"name": "Tumor", "color": [200, 0, 0]}}, "Tumor", (200, 0, 0)),
        ({"classification": {"name": "Tumor", "color": [200, 0, 0, 128]}}, "Tumor", (200, 0, 0)),
        ({"classification": {"name": "Tumor", "colorRGB": -3670016}}, "Tumor", (200, 0, 0)),
        ({"classification": {"names": ["Tumor", "Positive"], "color": [1, 2, 3]}},
         "Tumor: Positive", (1, 2, 3)),
        ({"classification": "Tumor"}, "Tumor", None),
        ({"classification": {"name": "Tumor"}, "color": [9, 9, 9]}, "Tumor", (9, 9, 9)),
        ({"color": [255, 0, 0], "name": "I"}, "", (255, 0, 0)),
        ({"class": 3}, "3", None),
        ({"label": {"value": "gland"}, "lineColor": "rgba(1, 2, 3, 0.5)"}, "gland", (1, 2, 3)),
        ({"classification": {"name": "Tumor", "color": [300, 0, 0]}}, "Tumor", None),
        ({"classification": {"name": "Tumor", "color": "#0a0b0C"}}, "Tumor", (10, 11, 12)),
        ({"classification": None}, "", None),
    ],
)  # fmt: skip
def test_classes_and_colours(
    tmp_path: Path, properties: Any, label: str, colour: tuple[int, int, int] | None
) -> None:
    annotation = read_back(tmp_path, feature(**properties)).annotations[0]
    assert (annotation.label, annotation.colour) == (label, colour)


def test_children_measurements_nuclei_and_planes_are_told(tmp_path: Path) -> None:
    child = feature(objectType="cell", measurements={"Area": 1.0})
    child["nucleusGeometry"] = {"type": "Polygon", "coordinates": [SQUARE]}
    child["geometry"]["plane"] = {"c": -1, "z": 3, "t": 0}
    root = feature(objectType="root", childObjects=[feature(childObjects=[child]), feature()])
    document = read_back(tmp_path, root)
    assert len(document.annotations) == 3
    notes = " ".join(document.notes)
    for words in ("3 child objects", "nucleus of 1 cell", "measurements of 1", "focal planes"):
        assert words in notes


def test_ellipses_are_as_large_as_drawn(tmp_path: Path) -> None:
    content = feature()
    content["geometry"]["isEllipse"] = True
    shape = read_back(tmp_path, content).annotations[0].shape
    assert shape.area == pytest.approx(math.pi * 25, rel=0.03)
    assert shape.bounds == pytest.approx((0, 0, 10, 10))


def test_the_frame_starts_at_the_bounds_of_the_slide(tmp_path: Path) -> None:
    canvas = Canvas(1000, 1000, x0=100, y0=50)
    document = read_back(tmp_path, feature(), canvas)
    assert document.annotations[0].shape.bounds == (100, 50, 110, 60)
    content = written(tmp_path, *document.annotations, canvas=canvas)
    ring = shapely.Polygon(content["features"][0]["geometry"]["coordinates"][0])
    assert ring.equals(box(0, 0, 10, 10))


def test_what_is_written_keeps_the_rules_of_qupath(tmp_path: Path) -> None:
    content = written(
        tmp_path,
        Annotation(square(0, 0, 10), "Tumor"),
        Annotation(ISLAND, "Stroma: Ödem: +", name="n"),
        Annotation(MultiPolygon([square(0, 0, 9)]), "", (1, 2, 3)),
        Annotation(Point(1.23456, -0.001)),
    )
    assert content["type"] == "FeatureCollection"
    one, two, three, four = content["features"]
    assert one["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "Tumor", "color": [200, 0, 0]},
    }
    classification = two["properties"]["classification"]
    assert classification["names"] == ["Stroma", "Ödem", "+"]
    assert len(classification["color"]) == 3
    assert two["geometry"]["type"] == "MultiPolygon"
    assert three["geometry"]["type"] == "Polygon"
    assert three["properties"] == {"objectType": "annotation", "color": [1, 2, 3]}
    assert four["geometry"] == {"type": "Point", "coordinates": [1.23, 0.0]}
    for item in content["features"]:
        uuid.UUID(item["id"])
    assert len({item["id"] for item in content["features"]}) == 4
    for polygon in [one["geometry"]["coordinates"], *two["geometry"]["coordinates"]]:
        for ring in polygon:
            assert ring[0] == ring[-1]
            assert len(ring) >= 4


def test_the_same_document_gives_the_same_file(tmp_path: Path) -> None:
    document = Document((Annotation(ISLAND, "Tumor"),))
    for name in ("a.geojson", "b.geojson"):
        write(document, tmp_path / name)
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


def test_many_objects_are_detections(tmp_path: Path) -> None:
    document = Document((Annotation(Point(1, 1), "cell"),) * 10_001)
    losses = write(document, tmp_path / "a.geojson.gz")
    assert "detections" in losses[0]
    with gzip.open(tmp_path / "a.geojson.gz", "rt", encoding="utf-8") as file:
        content = json.load(file)
    assert {f["properties"]["objectType"] for f in content["features"]} == {"detection"}
    assert len(read(tmp_path / "a.geojson.gz").annotations) == 10_001


def test_odd_colons_are_told(tmp_path: Path) -> None:
    losses = write(Document((Annotation(Point(1, 1), "a:b::"),)), tmp_path / "a.geojson")
    assert "odd colons" in losses[0]
    assert read(tmp_path / "a.geojson").labels == ("a: b",)
