"""ASAP's XML: its types, its groups, and holes, which it does not have."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import shapely
from shapely import LineString, MultiPoint, Point, Polygon, box

from drawings import ring_with, square
from histoclick.annotations import Annotation, Document, read, write
from histoclick.types import HistoclickError

SQUARE = [(0, 0), (10, 0), (10, 10), (0, 10)]


def drawn(
    vertices: list[tuple[float, float]],
    kind: str = "Polygon",
    group: str = "Tumor",
    name: str = "a",
    orders: list[object] | None = None,
) -> str:
    coordinates = "".join(
        f'<Coordinate Order="{order}" X="{x}" Y="{y}" />'
        for order, (x, y) in zip(orders or range(len(vertices)), vertices, strict=True)
    )
    return (
        f'<Annotation Name="{name}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">'
        f"<Coordinates>{coordinates}</Coordinates></Annotation>"
    )


def groups(**parents: str) -> str:
    return "".join(
        f'<Group Name="{name.replace("_", " ")}" PartOfGroup="{parent}" Color="#0000ff">'
        "<Attributes /></Group>"
        for name, parent in parents.items()
    )


def read_back(tmp_path: Path, annotations: str, declared: str) -> Document:
    path = tmp_path / "a.xml"
    path.write_text(
        f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{annotations}</Annotations>'
        f"<AnnotationGroups>{declared}</AnnotationGroups></ASAP_Annotations>",
        encoding="utf-8",
    )
    return read(path)


TUMOR = groups(Tumor="None")
WITH_HOLES = groups(Tumor="None", Tumor_hole="Tumor")


@pytest.mark.parametrize(
    ("kind", "vertices", "wanted"),
    [
        ("Polygon", SQUARE, box(0, 0, 10, 10)),
        ("Spline", SQUARE, box(0, 0, 10, 10)),
        ("Rectangle", SQUARE, box(0, 0, 10, 10)),
        ("Rectangle", [(0, 0), (10, 10)], box(0, 0, 10, 10)),
        ("Dot", [(1, 2)], Point(1, 2)),
        ("PointSet", [(1, 2), (3, 4)], MultiPoint([(1, 2), (3, 4)])),
        ("Measurement", [(1, 2), (3, 4)], LineString([(1, 2), (3, 4)])),
        ("None", SQUARE, box(0, 0, 10, 10)),
    ],
)
def test_all_types(
    tmp_path: Path, kind: str, vertices: list[tuple[float, float]], wanted: shapely.Geometry
) -> None:
    annotation = read_back(tmp_path, drawn(vertices, kind), TUMOR).annotations[0]
    assert annotation.shape.equals(wanted)
    assert (annotation.label, annotation.colour, annotation.name) == ("Tumor", (0, 0, 255), "a")


def test_vertices_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    mixed = drawn([SQUARE[i] for i in (2, 0, 3, 1)], orders=[2, 0, 3, 1])
    document = read_back(tmp_path, mixed, TUMOR)
    assert document.annotations[0].shape.equals(box(0, 0, 10, 10))
    assert document.notes == ()
    for orders in ([0, 1, 1, 2], [0, 1, "x", 2]):
        document = read_back(tmp_path, drawn(SQUARE, orders=orders), TUMOR)
        assert document.annotations[0].shape.equals(box(0, 0, 10, 10))
        assert "proper order" in document.notes[0]


def test_decimal_commas(tmp_path: Path) -> None:
    text = drawn([(1.5, 2.5), (10.25, 2.5), (10.25, 9)]).replace(".5", ",5").replace(".25", ",25")
    shape = read_back(tmp_path, text, TUMOR).annotations[0].shape
    assert shape.equals(Polygon([(1.5, 2.5), (10.25, 2.5), (10.25, 9)]))


def test_groups(tmp_path: Path) -> None:
    annotations = drawn(SQUARE, group="None") + drawn(SQUARE, group="_2") + drawn(SQUARE, group="x")
    document = read_back(tmp_path, annotations, groups(_0="None", x="_0").replace('" 0"', '"_0"'))
    assert [a.label for a in document.annotations] == ["", "_2", "x"]
    assert document.annotations[0].colour == (0xF4, 0xFA, 0x58)
    assert "1 group that the file uses but does not declare" in document.notes[0]
    assert "(the first: _2)" in document.notes[0]
    assert "1 group inside others" in document.notes[1]


def test_a_hole_is_cut_out_of_what_it_lies_in(tmp_path: Path) -> None:
    hole, island = [(2, 2), (8, 2), (8, 8), (2, 8)], [(4, 4), (6, 4), (6, 6), (4, 6)]
    apart = [(20, 0), (30, 0), (30, 10)]
    annotations = "".join([
        drawn(hole, group="Tumor hole"), drawn(SQUARE), drawn(island, group="Stroma"),
        drawn(apart),
    ])  # fmt: skip
    document = read_back(tmp_path, annotations, WITH_HOLES + groups(Stroma="None"))
    assert [a.label for a in document.annotations] == ["Tumor", "Stroma", "Tumor"]
    assert document.annotations[0].shape == Polygon(SQUARE, [hole])
    assert document.annotations[1].shape.area == 4  # of another class: not cut
    assert document.annotations[2].shape.equals(Polygon(apart))
    assert document.notes == ()


def test_holes_across_borders_and_outside(tmp_path: Path) -> None:
    across, outside = [(5, 5), (15, 5), (15, 8), (5, 8)], [(50, 50), (60, 50), (60, 60)]
    annotations = drawn(SQUARE) + drawn(across, group="Tumor hole")
    document = read_back(tmp_path, annotations + drawn(outside, group="Tumor hole"), WITH_HOLES)
    assert document.annotations[0].shape.area == 100 - 15
    assert any("cross the border" in note for note in document.notes)
    assert any("1 hole that lie in no object" in note for note in document.notes)
    all_of_it = [(-1, -1), (11, -1), (11, 11), (-1, 11)]
    with pytest.raises(HistoclickError, match="no area besides its holes"):
        read_back(tmp_path, drawn(SQUARE) + drawn(all_of_it, group="Tumor hole"), WITH_HOLES)


def test_holes_that_meet_become_one(tmp_path: Path) -> None:
    one, two = [(2, 2), (5, 2), (5, 5), (2, 5)], [(4, 4), (8, 4), (8, 8), (4, 8)]
    holes = drawn(one, group="Tumor hole") + drawn(two, group="Tumor hole")
    document = read_back(tmp_path, drawn(SQUARE) + holes, WITH_HOLES)
    assert document.annotations[0].shape.area == 100 - (9 + 16 - 1)
    assert "joined holes" in document.notes[0]


def test_a_hole_belongs_to_its_object_even_where_another_one_lies(tmp_path: Path) -> None:
    """Two objects of one class overlap; only one of them has the hole."""
    holed, whole = ring_with(square(0, 0, 10), square(4, 4, 2)), square(2, 2, 20)
    for shapes in ((holed, whole), (whole, holed)):
        document = Document(tuple(Annotation(shape, "Tumor") for shape in shapes))
        write(document, tmp_path / "a.xml", "asap")
        again = read(tmp_path / "a.xml")
        assert [a.shape.area for a in again.annotations] == [shape.area for shape in shapes]


def test_what_is_written_the_loader_of_asap_accepts(tmp_path: Path) -> None:
    holed = ring_with(square(0, 0, 10), square(4, 4, 2))
    document = Document(
        (
            Annotation(holed, "Tumor", (1, 2, 3)),
            Annotation(holed),
            Annotation(holed, "None"),
            Annotation(Point(1, 1), "Tumor hole"),
        )
    )
    losses = write(document, tmp_path / "a.xml", "asap")
    assert any("'None' means no class" in loss for loss in losses)
    root = ElementTree.parse(tmp_path / "a.xml").getroot()  # noqa: S314 - written here
    declared = [group.get("Name") for group in root.iter("Group")]
    assert len(declared) == len(set(declared))
    for annotation in root.iter("Annotation"):
        assert annotation.get("PartOfGroup") in [*declared, "None"]
        vertices = list(annotation.iter("Coordinate"))
        assert [v.get("Order") for v in vertices] == [str(n) for n in range(len(vertices))]
        first, last = ((v.get("X"), v.get("Y")) for v in (vertices[0], vertices[-1]))
        assert len(vertices) == 1 or first != last
    again = read(tmp_path / "a.xml")
    assert again.notes == ()
    assert [a.label for a in again.annotations] == ["Tumor", "", "None_", "Tumor hole"]
    assert [a.shape.area for a in again.annotations] == [96, 96, 96, 0]


def test_a_class_of_several_colours_is_told(tmp_path: Path) -> None:
    document = Document(
        (Annotation(Point(1, 1), "a", (1, 1, 1)), Annotation(Point(2, 2), "a", (2, 2, 2)))
    )
    assert any("another colour" in loss for loss in write(document, tmp_path / "a.xml", "asap"))
