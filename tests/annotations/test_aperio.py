"""ImageScope's XML: layers, negative regions, BGR, and the two layers of PAIP2019."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import shapely
from shapely import LineString, Polygon, box

from drawings import ring_with, square
from histoclick.annotations import Annotation, Canvas, Document, read, write

SQUARE = [(0, 0), (10, 0), (10, 10), (0, 10)]
HOLE = [(2, 2), (8, 2), (8, 8), (2, 8)]


def region(vertices: list[tuple[float, float]], **attributes: object) -> str:
    words = "".join(f' {name}="{value}"' for name, value in attributes.items())
    inside = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in vertices)
    return f"<Region{words}><Attributes/><Vertices>{inside}</Vertices></Region>"


def layer(*regions: str, attributes: str = "", **words: object) -> str:
    said = "".join(f' {name}="{value}"' for name, value in words.items())
    return (
        f"<Annotation{said}><Attributes>{attributes}</Attributes><Regions>"
        f"<RegionAttributeHeaders/>{''.join(regions)}</Regions><Plots/></Annotation>"
    )


def read_back(tmp_path: Path, *layers: str) -> Document:
    path = tmp_path / "a.xml"
    path.write_text(f'<Annotations MicronsPerPixel="0.25">{"".join(layers)}</Annotations>')
    return read(path)


def test_paip2019(tmp_path: Path) -> None:
    """Layer 1 is the whole tumour, layer 2 what is viable; they have no names."""
    document = read_back(
        tmp_path,
        layer(region(SQUARE, Id=1), Id=1, Name="", LineColor=65535),
        layer(
            region(SQUARE, Id=1),
            region(HOLE, Id=2, NegativeROA=1),
            attributes='<Attribute Name="Description" Id="0" Value=""/>',
            Id=2,
            LineColor=255,
        ),
    )
    whole, viable = document.annotations
    assert (whole.label, whole.colour, whole.shape.area) == ("1", (255, 255, 0), 100)
    assert (viable.label, viable.colour) == ("2", (255, 0, 0))
    assert viable.shape == Polygon(SQUARE, [HOLE])


@pytest.mark.parametrize(
    ("name", "attributes", "label"),
    [
        ("Tumor", '<Attribute Name="CaP" Id="0" Value=""/>', "Tumor"),
        ("", '<Attribute Name="CaP" Id="0" Value=""/>', "CaP"),
        ("", '<Attribute Name="Description" Id="0" Value="gland"/>', "gland"),
        ("", '<Attribute Name="Description" Id="0" Value="no class"/>', ""),
        ("", "", "7"),
    ],
)
def test_how_layers_are_named(tmp_path: Path, name: str, attributes: str, label: str) -> None:
    inside = region(SQUARE).replace(
        "<Attributes/>", '<Attributes><Attribute Name="of the region" Id="1"/></Attributes>'
    )
    document = read_back(tmp_path, layer(inside, attributes=attributes, Id=7, Name=name))
    assert document.labels == (label,)


def test_a_negative_region_is_cut_out_of_all_around_it(tmp_path: Path) -> None:
    """As the masks of PAIP2019 were made: a hole is no tumour, whatever else covers it."""
    wide = [(-5, -5), (15, -5), (15, 15), (-5, 15)]
    for regions in (
        (region(SQUARE), region(wide), region(HOLE, NegativeROA=1)),
        (region(HOLE, NegativeROA=1), region(wide), region(SQUARE)),
    ):
        document = read_back(tmp_path, layer(*regions, Id=1))
        assert sorted(a.shape.area for a in document.annotations) == [100 - 36, 400 - 36]


@pytest.mark.parametrize(
    ("kind", "vertices", "wanted"),
    [
        (0, [*SQUARE, SQUARE[0]], box(0, 0, 10, 10)),
        (1, [(0, 0), (10, 10)], box(0, 0, 10, 10)),
        (1, SQUARE, box(0, 0, 10, 10)),
        (3, [(0, 0), (5, 5)], LineString([(0, 0), (5, 5)])),
        (4, [(0, 0), (5, 5)], LineString([(0, 0), (5, 5)])),
    ],
)
def test_types_of_regions(
    tmp_path: Path, kind: int, vertices: list[tuple[float, float]], wanted: shapely.Geometry
) -> None:
    document = read_back(tmp_path, layer(region(vertices, Type=kind), Id=1))
    assert document.annotations[0].shape.equals(wanted)


def test_ellipses(tmp_path: Path) -> None:
    document = read_back(tmp_path, layer(region([(10, 20), (410, 220)], Type=2), Id=1))
    shape = document.annotations[0].shape
    assert shape.area == pytest.approx(math.pi * 200 * 100, rel=1e-3)
    assert shape.bounds == pytest.approx((10, 20, 410, 220), abs=0.1)


def test_what_is_written(tmp_path: Path) -> None:
    holed = ring_with(square(0, 0, 10), square(4, 4, 2))
    document = Document(
        (
            Annotation(holed, "Tumor", (1, 2, 3), "lesion 1"),
            Annotation(square(1, 1, 20), "Tumor", (1, 2, 3)),
            Annotation(square(0, 0, 5), "", (255, 255, 0)),
        )
    )
    write(document, tmp_path / "a.xml", "aperio", Canvas(100, 100, mpp=0.5))
    text = (tmp_path / "a.xml").read_text(encoding="utf-8")
    assert 'MicronsPerPixel="0.500000"' in text
    assert f'LineColor="{3 * 65536 + 2 * 256 + 1}"' in text
    assert 'LineColor="65535"' in text  # yellow
    assert text.count("<Annotation ") == 2
    assert text.count('NegativeROA="1"') == 1
    assert 'Area="100.0" LengthMicrons="20.0" AreaMicrons="25.0" Text="lesion 1"' in text
    again = read(tmp_path / "a.xml")
    assert [(a.label, a.name, a.colour, a.shape.area) for a in again.annotations] == [
        ("Tumor", "lesion 1", (1, 2, 3), 96),
        ("Tumor", "", (1, 2, 3), 400),  # the hole of the other one is not cut out of it
        ("", "", (255, 255, 0), 25),
    ]
