from __future__ import annotations

import sys
from pathlib import Path

import highdicom
import numpy as np
import openslide
import pydicom
import pytest
import shapely
from shapely import MultiPolygon, Polygon, box

from dicoms import dicom_slide
from histoclick.annotations import Annotation, Canvas, Document, dicomseg, read, write
from histoclick.geometry import Rect
from histoclick.masks import rasterise
from histoclick.types import HistoclickError

RING = box(3, 4, 40, 42).difference(box(8, 8, 30, 31))
ISLAND = box(10, 10, 12, 13)
LINE = shapely.LineString([(1, 1), (60, 50)]).buffer(0.3)


@pytest.fixture
def canvas(tmp_path: Path) -> Canvas:
    return Canvas(70, 50, source=dicom_slide(tmp_path / "slide.dcm", 70, 50))


def pixels(annotations: tuple[Annotation, ...], label: str, canvas: Canvas) -> np.ndarray:
    shapes = [a.shape for a in annotations if a.label == label]
    rect0 = Rect(0, 0, canvas.width, canvas.height)
    masks = [rasterise(shape, rect0, canvas.width, canvas.height) for shape in shapes]
    return np.any(masks, axis=0)


def test_classes_colours_holes_and_pixels_come_back(tmp_path: Path, canvas: Canvas) -> None:
    document = Document(
        (
            Annotation(RING, "Tumör 1", (200, 0, 0)),
            Annotation(ISLAND, "島", (1, 2, 254)),
            Annotation(LINE, "島", (1, 2, 254)),
            Annotation(box(50, 0, 70, 20), ""),
        )
    )
    path = tmp_path / "seg.dcm"
    losses = write(document, path, canvas=canvas)
    again = read(path, canvas)
    assert any("hidden by later ones in part" in loss for loss in losses)
    assert again.labels == ("Tumör 1", "島", "")
    assert {a.label: a.colour for a in again.annotations} == {
        "Tumör 1": (200, 0, 0),
        "島": (1, 2, 254),
        "": None,
    }
    line = pixels(document.annotations, "島", canvas)
    assert np.array_equal(pixels(again.annotations, "島", canvas), line)
    ring = pixels(document.annotations, "Tumör 1", canvas) & ~line
    assert np.array_equal(pixels(again.annotations, "Tumör 1", canvas), ring)
    assert again.canvas == Canvas(70, 50, mpp=0.5)
    assert again.notes == ()


def test_it_refers_to_the_slide_and_leaves_out_empty_tiles(tmp_path: Path, canvas: Canvas) -> None:
    path = tmp_path / "seg.dcm"
    write(Document((Annotation(box(17, 1, 31, 15), "tumour"),)), path, canvas=canvas)
    slide, file = pydicom.dcmread(canvas.source), highdicom.seg.segread(path)
    assert file.NumberOfFrames == 1
    assert file.DimensionOrganizationType == "TILED_SPARSE"
    assert file.segmentation_type.value == "BINARY"
    assert file.StudyInstanceUID == slide.StudyInstanceUID
    assert file.FrameOfReferenceUID == slide.FrameOfReferenceUID
    assert (file.TotalPixelMatrixRows, file.TotalPixelMatrixColumns) == (50, 70)
    sources = [uid for *_, uid in file.get_source_image_uids()]
    assert sources == [slide.SOPInstanceUID]
    assert file.get_segment_description(1).segmented_property_type.meaning == "Neoplasm"
    assert file.TotalPixelMatrixOriginSequence == slide.TotalPixelMatrixOriginSequence
    position = file.PerFrameFunctionalGroupsSequence[0].PlanePositionSlideSequence[0]
    assert position.ColumnPositionInTotalImagePixelMatrix == 17
    assert position.RowPositionInTotalImagePixelMatrix == 1


def test_the_slide_is_one_that_openslide_opens(canvas: Canvas) -> None:
    """So that the fixture is a slide to others as well."""
    with openslide.OpenSlide(canvas.source) as slide:
        assert slide.dimensions == (70, 50)


def test_level_0_is_found_among_the_other_files(tmp_path: Path) -> None:
    folder = tmp_path / "slide"
    folder.mkdir()
    (folder / "a.txt").write_text("no DICOM")
    small = dicom_slide(folder / "b.dcm", 20, 10)
    dicom_slide(folder / "c.dcm", 40, 20)
    document = Document((Annotation(box(1, 1, 5, 5), "a"),))
    for source in (small, folder):
        path = tmp_path / "seg.dcm"
        assert write(document, path, canvas=Canvas(40, 20, source=source)) == []
        assert read(path).canvas == Canvas(40, 20, mpp=0.5)
    with pytest.raises(HistoclickError, match="no DICOM slide of 41x20 px is there"):
        write(document, path, canvas=Canvas(41, 20, source=small))


@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP", "TILED_FULL"])
def test_other_segmentations_are_read(tmp_path: Path, canvas: Canvas, kind: str) -> None:
    slide = pydicom.dcmread(canvas.source)
    mask = np.zeros((1, 50, 70), np.uint8)
    mask[0, 5:20, 7:60] = 1
    values = mask * np.float32(0.6) if kind == "FRACTIONAL" else mask
    values[0, 30:33, 7:60] = 0.3 if kind == "FRACTIONAL" else 0
    segment = highdicom.seg.SegmentDescription(
        1,
        "tissue",
        highdicom.sr.CodedConcept("85756007", "SCT", "Tissue"),
        highdicom.sr.CodedConcept("85756007", "SCT", "Tissue"),
        highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    file = highdicom.seg.Segmentation(
        [slide],
        values,
        kind if kind != "TILED_FULL" else "BINARY",
        [segment],
        highdicom.UID(),
        1,
        highdicom.UID(),
        1,
        "nobody",
        "nothing",
        "1",
        "1",
        tile_pixel_array=True,
        dimension_organization_type=kind if kind == "TILED_FULL" else None,
        omit_empty_frames=kind != "TILED_FULL",
    )
    file.save_as(tmp_path / "seg.dcm")
    document = read(tmp_path / "seg.dcm")
    (annotation,) = document.annotations
    assert annotation.label == "tissue"
    assert annotation.shape.equals(box(7, 5, 60, 20))
    assert len(document.notes) == (kind == "FRACTIONAL")


def test_a_real_slide(tmp_path: Path, shared: Path) -> None:
    slide = shared / "data" / "slides" / "sm_image_50x50.dcm"
    path = tmp_path / "seg.dcm"
    ring = Annotation(Polygon(RING.exterior, RING.interiors), "tumour", (0, 255, 0))
    assert write(Document((ring,)), path, canvas=Canvas(50, 50, source=slide)) == []
    again = read(path)
    assert [a.shape.normalize() for a in again.annotations] == [ring.shape.normalize()]
    assert again.annotations[0].colour == (0, 255, 0)
    with pytest.raises(HistoclickError, match="is no segmentation, but VL Whole Slide"):
        read(slide)


def test_long_names_and_classes_without_pixels_are_told(tmp_path: Path, canvas: Canvas) -> None:
    document = Document(
        (
            Annotation(box(0, 0, 5, 5), "a" * 70),
            Annotation(box(9.1, 9.1, 9.3, 9.3), "dust"),
            Annotation(MultiPolygon([box(10, 10, 20, 20), box(30, 30, 40, 40)]), "b\\c"),
        )
    )
    path = tmp_path / "seg.dcm"
    losses = " ".join(write(document, path, canvas=canvas))
    assert "no pixel's centre lies in 1 object" in losses
    assert f"written as '{'a' * 64}'" in losses
    assert "written as 'b/c'" in losses
    assert read(path).labels == ("a" * 64, "b/c")


def test_nothing_can_be_written(tmp_path: Path, canvas: Canvas) -> None:
    path = tmp_path / "seg.dcm"
    assert write(Document(), path, canvas=canvas) == []
    assert read(path).annotations == ()
    assert len(write(Document((Annotation(box(90, 90, 95, 95), "a"),)), path, canvas=canvas)) == 2
    assert read(path).annotations == ()


def test_what_cannot_be_written_is_told(
    tmp_path: Path, canvas: Canvas, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "seg.dcm"
    document = Document((Annotation(box(0, 0, 5, 5), "a"),))
    with pytest.raises(HistoclickError, match="refers to a DICOM slide"):
        write(document, path, canvas=Canvas(70, 50))
    monkeypatch.setattr(dicomseg, "MAX_PX", 100)
    with pytest.raises(HistoclickError, match="cover more than 100 px"):
        write(document, path, canvas=canvas)
    assert not path.exists()


def test_without_highdicom_the_extra_is_named(
    tmp_path: Path, canvas: Canvas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(HistoclickError, match=r"pip install 'histoclick\[dicom\]'"):
        read(canvas.source)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("TotalPixelMatrixRows", 2**31 - 1),
        ("TotalPixelMatrixColumns", 0),
        ("PerFrameFunctionalGroupsSequence", []),
        ("SharedFunctionalGroupsSequence", []),
        ("SegmentSequence", []),
        ("PixelData", b"\0\0"),
        ("Rows", 60_000),
    ],
)
def test_files_that_lie_are_refused(
    tmp_path: Path, canvas: Canvas, keyword: str, value: object
) -> None:
    path = tmp_path / "seg.dcm"
    write(Document((Annotation(RING, "a"),)), path, canvas=canvas)
    file = pydicom.dcmread(path)
    setattr(file, keyword, value)
    file.save_as(path)
    with pytest.raises(HistoclickError, match=r"seg\.dcm"):
        read(path)


@pytest.mark.parametrize("kept", [140, 400, 0.5, 0.9, 0.999])
def test_files_that_end_early_are_refused(tmp_path: Path, canvas: Canvas, kept: float) -> None:
    path = tmp_path / "seg.dcm"
    write(Document((Annotation(RING, "a"),)), path, canvas=canvas)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if kept < 1 else int(kept)])
    with pytest.raises(HistoclickError, match=r"seg\.dcm"):
        read(path)


def test_deflated_files_are_refused(tmp_path: Path, canvas: Canvas) -> None:
    """They would be unpacked as a whole before anything is known of them."""
    path = tmp_path / "seg.dcm"
    write(Document((Annotation(RING, "a"),)), path, canvas=canvas)
    file = pydicom.dcmread(path)
    file.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    file.save_as(path)
    with pytest.raises(HistoclickError, match="deflated"):
        read(path)
