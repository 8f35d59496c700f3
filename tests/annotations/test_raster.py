"""Masks as annotation files: what is traced, what is painted, what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from shapely import LineString, MultiPolygon, Point, Polygon, box

from histoclick.annotations import Annotation, Canvas, Document, raster, read, write
from histoclick.geometry import Rect
from histoclick.masks import rasterise
from histoclick.rasters import open_raster
from histoclick.types import HistoclickError

CANVAS = Canvas(60, 40, mpp=0.25)
RING = box(2, 2, 30, 30).difference(box(5, 5, 20, 20))
SUFFIXES = ["mask.png", "mask.tif", "mask.tiff", "MASK.PNG"]


def values(path: Path) -> NDArray[np.uint16]:
    with open_raster(path) as image:
        return image.read(Rect(0, 0, image.width, image.height), image.width, image.height)


def plain(document: Document) -> set[tuple[object, ...]]:
    return {(a.shape.normalize().wkt, a.label, a.colour) for a in document.annotations}


@pytest.mark.parametrize("name", SUFFIXES)
def test_names_colours_holes_and_pixels_come_back(tmp_path: Path, name: str) -> None:
    document = Document(
        (
            Annotation(RING, "Tumör", (200, 0, 0)),
            Annotation(box(7, 7, 9, 9), "島"),
            Annotation(box(40, 3, 44, 6), "Tumör", (200, 0, 0)),
            Annotation(box(50, 30, 60, 40), "", (1, 2, 3)),
        )
    )
    path = tmp_path / name
    assert write(document, path, "mask", CANVAS)[0].startswith("Mask PNG/TIFF holds regions")
    again = read(path)
    assert again.canvas == CANVAS
    assert again.notes == ()
    assert plain(again) == plain(document)
    assert plain(read(path, CANVAS)) == plain(document)
    assert sorted(np.unique(values(path)).tolist()) == [0, 1, 2, 3]


shapes = st.builds(
    lambda x, y, w, h, angle: Polygon(
        [(x, y), (x + w, y + angle), (x + w, y + h + angle), (x, y + h)]
    ),
    *[st.floats(-5, 60)] * 2,
    *[st.floats(0.2, 30)] * 3,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.lists(st.tuples(shapes, st.sampled_from(["a", "b", "ü", "3"])), min_size=1, max_size=6),
    st.sampled_from(SUFFIXES),
)
def test_every_class_has_the_pixels_that_are_not_under_later_ones(
    tmp_path: Path, objects: list[tuple[Polygon, str]], name: str
) -> None:
    document = Document(tuple(Annotation(shape, label) for shape, label in objects))
    path = tmp_path / name
    losses = write(document, path, "mask", CANVAS)
    rect0 = Rect(0, 0, CANVAS.width, CANVAS.height)
    painted = np.full((CANVAS.height, CANVAS.width), None, object)
    masks = [rasterise(shape, rect0, CANVAS.width, CANVAS.height) for shape, _ in objects]
    on_top = np.full(painted.shape, -1)
    for index, mask in enumerate(masks):
        painted[mask] = objects[index][1]
        on_top[mask] = index
    again = read(path)
    for label in document.labels:
        found = [a.shape for a in again.annotations if a.label == label]
        mask = rasterise(MultiPolygon(found), rect0, CANVAS.width, CANVAS.height)
        assert np.array_equal(mask, painted == label)
    seen = [np.count_nonzero(on_top == index) for index in range(len(masks))]
    own = [np.count_nonzero(mask) for mask in masks]
    for words, count in (
        ("no pixel's centre lies in", sum(o == 0 for o in own)),
        (
            "hidden by later ones as a whole",
            sum(s == 0 < o for s, o in zip(seen, own, strict=True)),
        ),
        ("hidden by later ones in part", sum(0 < s < o for s, o in zip(seen, own, strict=True))),
        (
            "beyond the border of the slide",
            sum(not box(0, 0, 60, 40).covers(shape) for shape, _ in objects),
        ),
    ):
        said = [loss for loss in losses if words in loss]
        assert len(said) == (count > 0)
        if count:
            assert f"{count} object" in said[0]


def test_numbers_as_names_stay_the_values(tmp_path: Path) -> None:
    image = np.zeros((40, 60), np.uint8)
    image[3:9, 4:20], image[20:30, 4:20] = 200, 7
    Image.fromarray(image).save(tmp_path / "mask.png")
    document = read(tmp_path / "mask.png")
    assert document.labels == ("7", "200")
    write(document, tmp_path / "again.tif", "mask")
    assert np.array_equal(values(tmp_path / "again.tif"), image)
    mixed = Document((Annotation(box(0, 0, 5, 5), "7"), Annotation(box(9, 9, 12, 12), "07")))
    write(mixed, tmp_path / "mixed.png", "mask", CANVAS)
    assert np.unique(values(tmp_path / "mixed.png")).tolist() == [0, 1, 2]
    assert read(tmp_path / "mixed.png").labels == ("7", "07")


@pytest.mark.parametrize(("value", "label"), [(1, "object"), (255, "object"), (2, "2")])
def test_a_single_class_without_a_name(tmp_path: Path, value: int, label: str) -> None:
    tifffile.imwrite(tmp_path / "viable.tif", np.full((4, 4), value, np.uint8))
    document = read(tmp_path / "viable.tif")
    assert plain(document) == {(box(0, 0, 4, 4).normalize().wkt, label, None)}
    assert document.canvas == Canvas(4, 4)


def test_many_classes_take_two_bytes(tmp_path: Path) -> None:
    boxes = [box(x, y, x + 1, y + 1) for y in range(0, 40, 2) for x in range(0, 60, 2)]
    document = Document(tuple(Annotation(shape, f"cell {i}") for i, shape in enumerate(boxes)))
    for name in SUFFIXES[:2]:
        assert write(document, tmp_path / name, "mask", CANVAS) == []
        assert values(tmp_path / name).max() == 600
        assert read(tmp_path / name).labels == document.labels


def test_a_smaller_copy_is_enlarged_and_said(tmp_path: Path) -> None:
    image = np.zeros((10, 16), np.uint8)
    image[2:4, 3:9] = 1
    Image.fromarray(image).save(tmp_path / "mask.png")
    for size, corners in (
        ((64, 40), (12, 8, 36, 16)),
        ((63, 37), (12, 8, 36, 16)),  # rounded up when it was made
        ((66, 41), (12, 8, 36, 16)),  # or down
        ((24, 15), (4.5, 3, 13.5, 6)),
    ):
        document = read(tmp_path / "mask.png", Canvas(*size))
        assert [a.shape.bounds for a in document.annotations] == [corners]
        assert "16x10 px and the slide" in document.notes[0]
        assert document.canvas == Canvas(*size)
    for size in ((64, 64), (15, 9), (8, 5), (1600, 10)):
        with pytest.raises(HistoclickError, match=r"mask\.png: the mask has 16x10 px and the"):
            read(tmp_path / "mask.png", Canvas(*size))


def test_points_and_lines_are_left_out_and_said(tmp_path: Path) -> None:
    document = Document((Annotation(Point(3, 3), "a"), Annotation(LineString([(0, 0), (9, 9)]))))
    losses = write(document, tmp_path / "mask.png", "mask", CANVAS)
    assert len(losses) == 2
    assert not values(tmp_path / "mask.png").any()
    assert read(tmp_path / "mask.png").annotations == ()


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    document = Document((Annotation(box(0, 0, 5, 5), "a"),))
    with pytest.raises(HistoclickError, match="needs the size of the slide"):
        write(document, tmp_path / "mask.png", "mask")
    with pytest.raises(HistoclickError, match="the size of the slide"):
        raster.write(document, tmp_path / "mask.png", None)
    with pytest.raises(HistoclickError, match=r"mask\.png: .*write a \.tif"):
        write(document, tmp_path / "mask.png", "mask", Canvas(100_000, 100_000))
    many = Document(tuple(Annotation(box(0, 0, 1, 1), str(i)) for i in range(70_000)))
    with pytest.raises(HistoclickError, match="70000 classes"):
        write(many, tmp_path / "mask.tif", "mask", CANVAS)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_no_mask(tmp_path: Path, shared: Path) -> None:
    for name in ("CMU-1-Small-Region.svs", "unopenable.tiff", "broken.svs"):
        with pytest.raises(HistoclickError, match=name):
            read(shared / "data" / "slides" / name)


def test_noise_is_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (6000, 6000), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png", compress_level=1)
    with pytest.raises(HistoclickError, match=r"noise\.png has more than 10,000,000 corners"):
        read(tmp_path / "noise.png")
