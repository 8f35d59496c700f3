"""Every file of the reference data opens with what is known to be in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from histoclick.annotations import FORMATS, Canvas, read, recognise, write
from histoclick.types import HistoclickError

GREEN, YELLOW_GREEN = (0, 255, 0), (100, 254, 46)


@dataclass(frozen=True)
class Known:
    """``kinds``: how many shapes of each type. ``area``: of all together, px."""

    file: str
    format: str
    labels: dict[str, int]
    kinds: dict[str, int]
    area: float
    colours: tuple[tuple[int, int, int] | None, ...]
    notes: tuple[str, ...] = ()


KNOWN = (
    Known("asap/CMU-1_classification.xml", "asap", {"malignant": 2, "benign": 3},
          {"Polygon": 4, "Point": 1}, 4606270.17, (YELLOW_GREEN,), ("3 splines",)),
    Known("asap/CMU-1_detection.xml", "asap", {"malignant": 22, "benign": 1, "cell": 1},
          {"Polygon": 23, "MultiPoint": 1}, 139991.45, (YELLOW_GREEN,), ("1 dot of several",)),
    Known("asap/CMU-1_segmentation.xml", "asap", {"malignant": 2, "benign": 2},
          {"Polygon": 4}, 3320032.12, (YELLOW_GREEN,), ("1 spline",)),
    Known("asap/best2_008_059_HE_spline_tissue.xml", "asap", {"tissue": 4, "background": 1},
          {"Polygon": 5}, 125489665.13, (YELLOW_GREEN,), ("5 splines",)),
    Known("asap/camelyon16_tumor_009.xml", "asap", {"metastasis": 6},
          {"Polygon": 4, "MultiPolygon": 2}, 850599383.18, ((0, 0, 255),),
          ("6 splines", "mended 3 objects")),
    Known("asap/camelyon16_tumor_076.xml", "asap", {"metastasis": 39},
          {"Polygon": 39}, 2341503387.44, (YELLOW_GREEN,),
          ("mended 3 objects", "1 spline", "own colours of the objects in 1 group")),
    Known("imagescope/TCGA-EJ-5519-01Z-00-DX1.xml", "aperio", {"CaP": 1, "3": 1, "4": 1},
          {"Polygon": 2, "MultiPolygon": 1}, 3080184571.44,
          (GREEN, (255, 0, 0), (0, 255, 255)), ("mended 2 objects",)),
    Known("qupath/TCGA-EJ-5519-01Z-00-DX1_qupath_array.json", "qupath",
          {"Tumor": 1, "Other": 1, "Negative": 1}, {"Polygon": 2, "MultiPolygon": 1},
          3080184633.51, ((200, 0, 0), (255, 200, 0), (112, 112, 225)), ("the lock of 3 objects",)),
    Known("qupath/qupath05.geojson", "qupath", {"": 3}, {"Polygon": 3}, 168998.0,
          ((255, 0, 0),)),
    Known("geojson/test_annotation.geojson", "qupath", {"0": 1}, {"Polygon": 1}, 1.0, (None,)),
    Known("geojson/large_image_sample_xyz.geojson", "qupath", {"": 10}, {"Polygon": 10}, 2168.0,
          (GREEN,)),
    Known("ncrf_json/Tumor_009.json", "ncrf", {"positive": 6}, {"Polygon": 3, "MultiPolygon": 3},
          850599996.38, (None,), ("mended 4 objects",)),
    Known("darwin_v7/103S.json", "darwin",
          {"ROI (segmentation)": 1, "stroma (area)": 2, "lymphocyte (cell)": 5, "tumor (cell)": 7,
           "tumor (area)": 2},
          {"Polygon": 11, "MultiPolygon": 1, "Point": 5}, 29910037.53, (None,)),
)  # fmt: skip


def counts(values: list[str]) -> dict[str, int]:
    return {value: values.count(value) for value in dict.fromkeys(values)}


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.file)
def test_every_file_says_what_is_in_it(known: Known, shared: Path) -> None:
    path = shared / "data" / "annotations" / known.file
    assert recognise(path).name == known.format
    document = read(path)
    assert counts([a.label for a in document.annotations]) == known.labels
    assert counts([a.shape.geom_type for a in document.annotations]) == known.kinds
    assert sum(a.shape.area for a in document.annotations) == pytest.approx(known.area, abs=0.01)
    assert tuple(dict.fromkeys(a.colour for a in document.annotations)) == known.colours
    assert all(a.shape.is_valid for a in document.annotations)
    assert len(document.notes) == len(known.notes)
    for note, words in zip(document.notes, known.notes, strict=True):
        assert words in note


def test_a_raster_layer_is_refused(shared: Path) -> None:
    with pytest.raises(HistoclickError, match="1 object with a raster layer"):
        read(shared / "data/annotations/darwin_v7/raster.json")


def test_the_table_has_every_file(shared: Path) -> None:
    folder = shared / "data" / "annotations"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files - {known.file for known in KNOWN} == {"darwin_v7/raster.json"}


def test_two_exports_of_the_same_outlines_agree(shared: Path) -> None:
    """CAMELYON16's XML and NCRF's JSON of it, which has whole pixels."""
    asap = read(shared / "data/annotations/asap/camelyon16_tumor_009.xml").annotations
    ncrf = read(shared / "data/annotations/ncrf_json/Tumor_009.json").annotations
    assert [a.name for a in asap] == [a.name for a in ncrf]
    for one, other in zip(asap, ncrf, strict=True):
        assert one.shape.symmetric_difference(other.shape).area < 0.5 * one.shape.length


def test_imagescope_and_qupath_agree(shared: Path) -> None:
    """The same outlines, exported by both programs; classes in another order."""
    folder = shared / "data" / "annotations"
    aperio = read(folder / "imagescope/TCGA-EJ-5519-01Z-00-DX1.xml").annotations
    qupath = read(folder / "qupath/TCGA-EJ-5519-01Z-00-DX1_qupath_array.json").annotations
    for one in aperio:
        nearest = min(one.shape.symmetric_difference(other.shape).area for other in qupath)
        assert nearest < 0.1 * one.shape.length


@pytest.mark.parametrize("name", ["qupath", "asap", "dsa", "aperio", "coco"])
def test_real_files_survive_every_format(name: str, shared: Path, tmp_path: Path) -> None:
    document = read(shared / "data/annotations/asap/camelyon16_tumor_009.xml")
    path = tmp_path / f"file{FORMATS[name].suffixes[0]}"
    write(document, path, name, Canvas(100_000, 200_000))
    again = read(path)
    assert again.labels == document.labels
    assert sum(a.shape.area for a in again.annotations) == pytest.approx(850599383.18, rel=1e-6)
