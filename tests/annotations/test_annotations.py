"""Reading and writing by name and suffix, and what is taken out before something is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import LineString, MultiPolygon, Point, Polygon, box

from drawings import documents, ring_with, square
from histoclick.annotations import (
    FORMATS,
    Annotation,
    Document,
    Holds,
    colours,
    fitted,
    read,
    recognise,
    write,
)
from histoclick.annotations.losses import on_grid
from histoclick.annotations.shapes import counted, ellipse
from histoclick.types import HistoclickError

SQUARE = Document((Annotation(box(0, 0, 10, 10), "Tumor"),))


def test_content_tells_the_format_and_not_the_suffix(tmp_path: Path) -> None:
    for name in ("qupath", "asap", "aperio", "dsa"):
        path = tmp_path / f"{name}.json"
        write(SQUARE, path, name)
        assert recognise(path).name == name
        assert read(path).labels == ("Tumor",)


def test_the_suffix_tells_what_to_write_where_it_can(tmp_path: Path) -> None:
    for name, wanted in (("a.geojson", "qupath"), ("a.GEOJSON.gz", "qupath"), ("a.anot", "dsa")):
        write(SQUARE, tmp_path / name)
        assert recognise(tmp_path / name).name == wanted
    with pytest.raises(HistoclickError, match="may mean asap or aperio"):
        write(SQUARE, tmp_path / "a.xml")
    with pytest.raises(HistoclickError, match="may mean qupath or dsa or coco"):
        write(SQUARE, tmp_path / "a.json")
    with pytest.raises(HistoclickError, match="tells no format"):
        write(SQUARE, tmp_path / "a.docx")
    for name in ("ncrf", "word"):
        with pytest.raises(HistoclickError, match=f"'{name}' is no format that can be written"):
            write(SQUARE, tmp_path / "a.json", name)


def test_nothing_is_written_over_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    write(SQUARE, path)
    before = path.read_bytes()
    document = read(path)
    (tmp_path / "link.geojson").symlink_to(path)
    for name in ("a.geojson", "link.geojson"):
        with pytest.raises(HistoclickError, match="is the file that was read"):
            write(document, tmp_path / name)
    assert path.read_bytes() == before
    write(Document(), path)  # of somebody else
    assert read(path).annotations == ()


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    (tmp_path / "folder.geojson").mkdir()
    with pytest.raises(HistoclickError, match="cannot be written"):
        write(SQUARE, tmp_path / "folder.geojson")
    (tmp_path / "file").touch()
    with pytest.raises(HistoclickError, match="cannot be written"):
        write(SQUARE, tmp_path / "file" / "a.geojson")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.geojson"]
    write(SQUARE, tmp_path / "new" / "a.geojson")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.geojson"]


def test_every_format_names_itself() -> None:
    assert all(name == format_.name for name, format_ in FORMATS.items())
    assert all(s.startswith(".") and s == s.lower() for f in FORMATS.values() for s in f.suffixes)


HOLED = ring_with(square(0, 0, 10), square(4, 4, 2), square(6, 6, 2))


def test_what_is_taken_out_is_counted() -> None:
    document = Document(
        (
            Annotation(HOLED, "a\x07", (1, 2, 3), "n"),
            Annotation(MultiPolygon([HOLED, square(20, 0, 5)])),
            Annotation(Point(1, 1)),
            Annotation(LineString([(0, 0), (1, 1)])),
        )
    )
    bare = FORMATS["qupath"]
    nothing = type(bare)(**{**vars(bare), "holds": frozenset(), "title": "X", "write": None})
    kept, losses = fitted(document, nothing)
    assert losses == [
        "1 name with control characters or spaces around: without them",
        "the class of 1 object cannot be held by X: left out",
        "the colour of 1 object cannot be held by X: left out",
        "the name of 1 object cannot be held by X: left out",
        "1 point object cannot be held by X: left out",
        "1 line cannot be held by X: left out",
        "1 object of several parts cannot be held by X: written as 2 objects",
        "4 holes of 2 objects cannot be held by X: filled",
        "X holds regions of classes, not objects: objects of one class that touch become one",
    ]
    assert [a.shape.area for a in kept.annotations] == [100, 100, 25]
    assert {(a.label, a.colour, a.name) for a in kept.annotations} == {("", None, "")}


@pytest.mark.parametrize("decimals", [0, 1, 2])
@given(document=documents(decimals=6))
@settings(max_examples=25, deadline=None)
def test_rounding_keeps_shapes_valid_and_near(decimals: int, document: Document) -> None:
    shapes = [a.shape for a in document.annotations]
    for shape, rounded in zip(shapes, on_grid(shapes, decimals), strict=True):
        if rounded is None:
            assert shape.area < 10.0 ** (1 - decimals) * (1 + shape.length)
            continue
        assert rounded.is_valid
        assert not rounded.is_empty
        coordinates = shapely.get_coordinates(rounded)
        assert (coordinates == np.round(coordinates, decimals)).all()
        error = 10.0**-decimals
        assert rounded.buffer(2 * error).covers(rounded)
        assert rounded.symmetric_difference(shape).area < 2 * error * (shape.length + 8 * error)


def test_what_has_enough_decimals_is_not_touched() -> None:
    shape = Polygon([(0.25, 0.5), (10.25, 0.5), (3, 9.75)])
    assert on_grid([shape], 2)[0] is shape


def test_what_vanishes_in_rounding_is_said() -> None:
    speck = square(0.001, 0.001, 0.003)
    document = Document(
        (
            Annotation(speck),
            Annotation(ring_with(square(0, 0, 10), square(4.001, 4.001, 0.003))),
            Annotation(MultiPolygon([speck, square(5, 5, 5)])),
        )
    )
    kept, losses = fitted(document, FORMATS["qupath"])
    assert [a.shape.area for a in kept.annotations] == [100, 25]
    assert "1 object too small for QuPath GeoJSON" in losses[0]
    assert losses[1].endswith("of QuPath GeoJSON: 2")


@given(st.floats(1, 1e5), st.floats(1, 1e5), st.floats(-7, 7))
def test_ellipses_lie_near_the_curve(radius_x: float, radius_y: float, rotation: float) -> None:
    points = ellipse(3, 4, radius_x, radius_y, rotation) - (3, 4)
    turned = points @ np.array(
        [[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]]
    )
    assert np.allclose(((turned / (radius_x, radius_y)) ** 2).sum(axis=1), 1)
    if radius_x == radius_y:
        assert Polygon(points).area > 0.9 * np.pi * radius_x**2


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_colours(colour: tuple[int, int, int]) -> None:
    red, green, blue = colour
    assert colours.parsed(colours.to_hex(colour)) == colour
    assert colours.parsed(list(colour)) == colour
    assert colours.parsed(f"rgb({red},{green},{blue})") == colour
    assert colours.parsed((0xFF000000 | red << 16 | green << 8 | blue) - 2**32) == colour
    assert colours.from_bgr(colours.to_bgr(colour)) == colour


def test_colours_that_are_none() -> None:
    assert colours.parsed("#abc") == (0xAA, 0xBB, 0xCC)
    for value in (None, True, 1.5, "red", "#12345", "rgb(1, 2)", "rgb(256, 0, 0)", [1, 2], {}):
        assert colours.parsed(value) is None
    assert colours.default("Tumor") == (200, 0, 0)
    assert colours.default("anything") == colours.default("Anything")


def test_counting() -> None:
    assert [counted(1, "class"), counted(2, "class"), counted(0, "hole")] == [
        "1 class",
        "2 classes",
        "0 holes",
    ]


def test_what_formats_hold_is_said_in_words() -> None:
    assert all(str(part) == part.value for part in Holds)
