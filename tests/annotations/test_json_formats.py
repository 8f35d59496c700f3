"""DSA, COCO, NCRF and Darwin: all they may say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import LineString, MultiPolygon, Point, Polygon, box
from shapely.affinity import translate

from drawings import regions, ring_with, square
from histoclick.annotations import Annotation, Canvas, Document, read, recognise, runs, write
from histoclick.geometry import Rect
from histoclick.masks import rasterise
from histoclick.types import HistoclickError

SQUARE = [[0, 0, 0], [10, 0, 0], [10, 10, 0], [0, 10, 0]]
HOLE = [[2, 2, 0], [8, 2, 0], [8, 8, 0], [2, 8, 0]]


def read_back(tmp_path: Path, content: Any, canvas: Canvas | None = None) -> Document:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return read(path, canvas)


# DSA


def polyline(**more: Any) -> dict[str, Any]:
    return {"type": "polyline", "closed": True, "points": SQUARE, **more}


@pytest.mark.parametrize(
    "content",
    [
        {"name": "a", "description": "", "elements": [polyline()]},
        {"_id": "0", "annotation": {"name": "a", "elements": [polyline()]}},
        [{"annotation": {"elements": [polyline()]}}],
        [polyline()],
    ],
)
def test_dsa_wrappers(tmp_path: Path, content: Any) -> None:
    document = read_back(tmp_path, content)
    assert recognise(tmp_path / "a.json").name == "dsa"
    assert document.annotations[0].shape.equals(box(0, 0, 10, 10))


@pytest.mark.parametrize(
    ("element", "wanted"),
    [
        (polyline(holes=[HOLE]), Polygon([p[:2] for p in SQUARE], [[p[:2] for p in HOLE]])),
        ({"type": "polyline", "points": SQUARE[:2]}, LineString([(0, 0), (10, 0)])),
        ({"type": "arrow", "points": SQUARE[:2]}, LineString([(0, 0), (10, 0)])),
        ({"type": "point", "center": [1, 2, 0]}, Point(1, 2)),
        ({"type": "rectangle", "center": [5, 5, 0], "width": 10, "height": 4},
         box(0, 3, 10, 7)),
        ({"type": "rectangle", "center": [5, 5, 0], "width": 10, "height": 4,
          "rotation": math.pi / 2}, box(3, 0, 7, 10)),
    ],
)  # fmt: skip
def test_dsa_elements(tmp_path: Path, element: Any, wanted: shapely.Geometry) -> None:
    shape = read_back(tmp_path, {"elements": [element]}).annotations[0].shape
    assert shape.normalize().equals_exact(wanted.normalize(), 1e-9)


def test_dsa_turns_from_x_to_y(tmp_path: Path) -> None:
    """As large_image does: a long rectangle, turned by a little, goes down to the right."""
    element = {"type": "rectangle", "center": [0, 0, 0], "width": 100, "height": 1, "rotation": 0.1}
    for kind in ("rectangle", "ellipse"):
        shape = read_back(tmp_path, {"elements": [{**element, "type": kind}]}).annotations[0].shape
        assert shape.contains(Point(40 * math.cos(0.1), 40 * math.sin(0.1)))
        assert not shape.contains(Point(40 * math.cos(0.1), -40 * math.sin(0.1)))


def test_dsa_circles(tmp_path: Path) -> None:
    shape = read_back(
        tmp_path, {"elements": [{"type": "circle", "center": [500, 0, 0], "radius": 400}]}
    ).annotations[0].shape  # fmt: skip
    assert shape.area == pytest.approx(math.pi * 400**2, rel=1e-3)
    assert shape.hausdorff_distance(Point(500, 0).buffer(400, quad_segs=1000)) < 0.11


def test_dsa_words(tmp_path: Path) -> None:
    for words, wanted in (
        ({"group": "Tumor", "label": {"value": "lesion 1"}}, ("Tumor", "lesion 1")),
        ({"group": "Tumor", "label": {"value": "Tumor"}}, ("Tumor", "")),
        ({"label": {"value": "Tumor"}}, ("Tumor", "")),
        ({"group": "", "label": {"value": "lesion 1"}}, ("", "lesion 1")),
        ({}, ("", "")),
    ):
        element = polyline(lineColor="rgb(1, 2, 3)", **words)
        annotation = read_back(tmp_path, {"elements": [element]}).annotations[0]
        assert (annotation.label, annotation.name) == wanted
        assert annotation.colour == (1, 2, 3)


def test_dsa_overlays_are_left_out_and_told(tmp_path: Path) -> None:
    overlay = {"type": "pixelmap", "girderId": "0", "values": [1]}
    document = read_back(tmp_path, {"elements": [overlay, polyline(), {"type": "x"}]})
    assert len(document.annotations) == 1
    assert "pixelmap" in document.notes[0]
    with pytest.raises(HistoclickError, match="pixelmap"):
        read_back(tmp_path, {"elements": [overlay]})


def test_dsa_bad_elements(tmp_path: Path) -> None:
    for element in (
        {"type": "rectangle", "center": [0, 0, 0]},
        {"type": "circle", "center": None, "radius": 1},
        {"type": "circle", "center": [0, 0], "radius": "x"},
        {"type": "circle", "center": [0, 0], "radius": 1e300},
        {"type": "ellipse", "center": [0, 0], "width": float("nan"), "height": 1},
        {"type": "rectangle", "center": [0, 0], "width": 1, "height": float("inf")},
        {"type": "point"},
        {"type": "polyline", "closed": True},
    ):
        with pytest.raises(HistoclickError, match="left out 1 object"):
            read_back(tmp_path, {"elements": [element]})


# COCO


def coco(*annotations: dict[str, Any], images: int = 1) -> dict[str, Any]:
    return {
        "images": [
            {"id": n, "file_name": f"dir/{n}.png", "width": 20, "height": 10} for n in range(images)
        ],
        "categories": [{"id": 7, "name": "Tumor", "color": [1, 2, 3]}],
        "annotations": [{"image_id": 0, "category_id": 7, **item} for item in annotations],
    }


@pytest.mark.parametrize(
    ("item", "wanted"),
    [
        ({"segmentation": [[0, 0, 9, 0, 9, 9]]}, Polygon([(0, 0), (9, 0), (9, 9)])),
        ({"segmentation": [0, 0, 9, 0, 9, 9]}, Polygon([(0, 0), (9, 0), (9, 9)])),
        ({"segmentation": [[0, 0, 4, 0, 4, 4, 0, 4], [6, 0, 9, 0, 9, 4, 6, 4]]},
         MultiPolygon([box(0, 0, 4, 4), box(6, 0, 9, 4)])),
        # 10 high: column 1, rows 2 and 3; column 3, all rows
        ({"segmentation": {"size": [10, 20], "counts": [12, 2, 16, 10, 160]}},
         MultiPolygon([box(1, 2, 2, 4), box(3, 0, 4, 10)])),
        # "1 background, 199 object": differences, 5 bits a character
        ({"segmentation": {"size": [10, 20], "counts": "1W6"}},
         box(0, 0, 20, 10).difference(box(0, 0, 1, 1))),
        ({"segmentation": [], "bbox": [1, 2, 3, 4]}, box(1, 2, 4, 6)),
    ],
)  # fmt: skip
def test_coco_segmentations(tmp_path: Path, item: Any, wanted: shapely.Geometry) -> None:
    document = read_back(tmp_path, coco(item))
    annotation = document.annotations[0]
    assert (annotation.label, annotation.colour) == ("Tumor", (1, 2, 3))
    assert annotation.shape.equals(wanted)
    assert document.canvas == Canvas(20, 10, name="dir/0.png")


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [10, 20], "counts": [12, 2]},
        {"size": [10, 20], "counts": [-1, 201]},
        {"size": [10, 20], "counts": [2**62, 2**62]},
        {"size": [10, 20], "counts": "x" * 50},
        {"size": [10, 20], "counts": "\u00e9"},
        {"size": [10, 20], "counts": "zz"},
        {"size": [10**12, 10**12], "counts": [5]},
        {"size": "x", "counts": [5]},
        {"counts": [5]},
        {"size": [10, 20], "counts": [200]},
        {"size": [0, 20], "counts": [0]},
        [[1, 2, 3]],
        [[1, 2], "x"],
    ],
)
def test_coco_damaged_segmentations(tmp_path: Path, segmentation: Any) -> None:
    with pytest.raises(HistoclickError, match="left out"):
        read_back(tmp_path, coco({"segmentation": segmentation}))


def test_coco_masks_of_too_many_pixels(tmp_path: Path) -> None:
    size = 2**20
    segmentation = {"size": [size, size], "counts": [0, size * size]}
    with pytest.raises(HistoclickError, match="too many pixels"):
        read_back(tmp_path, coco({"segmentation": segmentation}))


def test_coco_of_several_images(tmp_path: Path) -> None:
    content = coco({"segmentation": [[0, 0, 9, 0, 9, 9]]}, images=3)
    content["annotations"] += [{**content["annotations"][0], "image_id": 2}] * 2
    for name, count in (("0.png", 1), ("1.svs", 0), ("2.png", 2), ("2.svs", 2)):
        document = read_back(tmp_path, content, Canvas(20, 10, name=name))
        assert len(document.annotations) == count
    for canvas in (None, Canvas(20, 10, name="other.svs")):
        with pytest.raises(HistoclickError, match="about 3 images"):
            read_back(tmp_path, content, canvas)


def test_coco_holes_are_runs(tmp_path: Path) -> None:
    holed = ring_with(square(2, 2, 10), square(4, 4, 2))
    document = Document((Annotation(holed, "Tumor"), Annotation(square(0, 0, 2.5), "Tumor")))
    losses = write(document, tmp_path / "a.json", "coco", Canvas(30, 20, name="a.svs"))
    assert losses == [
        "1 object with holes written as run lengths, in whole pixels: COCO's polygons have no holes"
    ]
    content = json.loads((tmp_path / "a.json").read_text())
    one, two = content["annotations"]
    assert one["segmentation"]["size"] == [20, 30]
    assert (one["area"], one["bbox"]) == (96, [2, 2, 10, 10])
    assert two["segmentation"] == [[2.5, 0.0, 2.5, 2.5, 0.0, 2.5, 0.0, 0.0]]
    again = read(tmp_path / "a.json")
    assert again.annotations[0].shape.equals(holed)
    with pytest.raises(HistoclickError, match="needs the size of the slide"):
        write(document, tmp_path / "b.json", "coco")


def test_coco_runs_of_a_slide_need_no_mask(tmp_path: Path) -> None:
    """An object of 100 pixels on a canvas of 10^10."""
    holed = ring_with(square(90_000, 80_000, 10), square(90_004, 80_004, 2))
    canvas = Canvas(100_000, 100_000)
    losses = write(Document((Annotation(holed),)), tmp_path / "a.json", "coco", canvas)
    assert "2^32" in losses[1]
    assert read(tmp_path / "a.json").annotations[0].shape.equals(holed)


def slow_decoded(text: str) -> list[int]:
    """Character by character, as the format is described."""
    counts: list[int] = []
    position = 0
    while position < len(text):
        value = shift = 0
        while True:
            code = ord(text[position]) - 48
            value |= (code & 31) << shift
            shift += 5
            position += 1
            if not code & 32:
                break
        if code & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=30))
def test_compressed_runs_and_their_slow_twin(counts: list[int]) -> None:
    text = runs.encoded(np.array(counts))
    assert slow_decoded(text) == counts
    assert runs.decoded(text).tolist() == counts


@given(regions(), st.integers(1, 50), st.integers(1, 50), st.floats(-5, 40), st.floats(-5, 40))
@settings(deadline=None)
def test_runs_are_the_columns_of_the_mask(
    shape: Polygon, width: int, height: int, x: float, y: float
) -> None:
    shape = translate(shape, x + 0.0123, y + 0.0456)  # no outline through a pixel's centre
    mask = rasterise(shape, Rect(0, 0, width, height), width, height)
    counts = runs.of_shape(shape, width, height)
    values = np.repeat(np.arange(len(counts)) % 2, counts)
    assert np.array_equal(values.reshape(width, height).T, mask)
    found = runs.polygons(counts, width, height)
    again = rasterise(MultiPolygon(found), Rect(0, 0, width, height), width, height)
    assert (again == mask).all()
    assert bool(found) == mask.any()


def test_runs_of_outlines_through_the_centres_of_pixels() -> None:
    diamond = Polygon([(8.5, 0.5), (16.5, 8.5), (8.5, 16.5), (0.5, 8.5)])
    for shape in (diamond, square(1.5, 2.5, 4), ring_with(square(0.5, 0.5, 8), square(2.5, 2, 4))):
        mask = rasterise(shape, Rect(0, 0, 20, 18), 20, 18)
        counts = runs.of_shape(shape, 20, 18)
        values = np.repeat(np.arange(len(counts)) % 2, counts)
        assert np.array_equal(values.reshape(20, 18).T, mask)


# NCRF and Darwin


def test_ncrf(tmp_path: Path) -> None:
    positive = {"name": "Annotation 0", "vertices": [[0, 0], [9, 0], [9, 9]]}
    content = {"positive": [positive], "negative": [{"vertices": [[1, 1], [2, 1], [2, 2]]}]}
    document = read_back(tmp_path, content)
    assert [(a.label, a.name) for a in document.annotations] == [
        ("positive", "Annotation 0"),
        ("negative", ""),
    ]
    assert document.annotations[0].shape.area == 40.5
    assert read_back(tmp_path, {"positive": [], "negative": []}).annotations == ()
    for bad in ({"positive": 3, "negative": []}, {"positive": [3], "negative": []}):
        with pytest.raises(HistoclickError):
            read_back(tmp_path, bad)


def darwin(*annotations: dict[str, Any]) -> dict[str, Any]:
    slot = {"type": "image", "slot_name": "0", "width": 100, "height": 50}
    return {
        "version": "2.0",
        "item": {"name": "a.tif", "slots": [slot]},
        "annotations": [{"name": "Tumor", **item} for item in annotations],
    }


def path_of(polygon: Polygon) -> list[dict[str, float]]:
    return [{"x": x, "y": y} for x, y in polygon.exterior.coords[:-1]]


def test_darwin_paths_are_holes_islands_and_parts(tmp_path: Path) -> None:
    rings = [square(12, 12, 2), square(40, 0, 5), square(0, 0, 30), square(10, 10, 10)]
    item = {"polygon": {"paths": [path_of(ring) for ring in rings]}, "bounding_box": {}}
    document = read_back(tmp_path, darwin(item))
    shape = document.annotations[0].shape
    assert shape.area == 900 - 100 + 4 + 25
    assert shape.geom_type == "MultiPolygon"
    assert document.canvas == Canvas(100, 50, name="a.tif")
    assert document.notes == ()


def test_darwin_version_1(tmp_path: Path) -> None:
    content = {
        "dataset": "x",
        "image": {"filename": "a.png", "width": 9, "height": 9, "url": "https://darwin.v7labs.com"},
        "annotations": [
            {
                "name": "Tumor",
                "polygon": {
                    "path": path_of(square(0, 0, 9)),
                    "additional_paths": [path_of(square(2, 2, 2))],
                },
            }
        ],
    }
    assert read_back(tmp_path, content).annotations[0].shape.area == 81 - 4


@pytest.mark.parametrize(
    ("item", "wanted"),
    [
        ({"bounding_box": {"x": 1, "y": 2, "w": 3, "h": 4}}, box(1, 2, 4, 6)),
        ({"keypoint": {"x": 1, "y": 2}}, Point(1, 2)),
        ({"line": {"path": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}}, LineString([(1, 2), (3, 4)])),
    ],
)
def test_darwin_kinds(tmp_path: Path, item: Any, wanted: shapely.Geometry) -> None:
    assert read_back(tmp_path, darwin(item)).annotations[0].shape.equals(wanted)


def test_darwin_ellipses(tmp_path: Path) -> None:
    value = {"center": {"x": 50, "y": 60}, "radius": {"x": 40, "y": 10}, "angle": math.pi / 2}
    shape = read_back(tmp_path, darwin({"ellipse": value})).annotations[0].shape
    assert shape.bounds == pytest.approx((40, 20, 60, 100), abs=0.1)


@pytest.mark.parametrize(
    "item",
    [
        {"raster_layer": {}},
        {"tag": {}},
        {"polygon": {"paths": 3}},
        {"polygon": {"paths": [[{"x": 1}]]}},
        {"polygon": {}},
        {"bounding_box": {"x": None, "y": 0, "w": 1, "h": 1}},
        {"ellipse": {"center": 3}},
        {"line": {"paths": []}},
        {"keypoint": {"x": "a", "y": 1}},
    ],
)
def test_darwin_what_cannot_be_read(tmp_path: Path, item: Any) -> None:
    good = {"keypoint": {"x": 1, "y": 2}}
    document = read_back(tmp_path, darwin(good, item))
    assert len(document.annotations) == 1
    assert "left out 1 object" in document.notes[0]
    with pytest.raises(HistoclickError):
        read_back(tmp_path, darwin(item))
