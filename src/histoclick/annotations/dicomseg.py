"""DICOM segmentations of slides: a mask for each class, in tiles (extra `histoclick[dicom]`).

Written beside a slide that is DICOM itself, to which they refer: binary, without empty tiles, in
the tiles of the slide's level 0. Read tile by tile, whoever wrote them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histoclick.annotations.document import Annotation, Canvas, Document
from histoclick.annotations.format import Format, Holds
from histoclick.annotations.regions import (
    Painting,
    ValueClass,
    annotations_of,
    classes_of,
    on_canvas,
)
from histoclick.masks import trace
from histoclick.types import HistoclickError

MAX_FILES = 10_000  # of a folder that are looked at for the slide
MAX_PX = 2**30  # of written tiles that are not empty: they are in memory, a byte each
MAX_SIDE = 2**21
NAME_CHARACTERS = 64  # that DICOM allows
# Binary or fractional ones, and label maps.
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
DEFLATED = "1.2.840.10008.1.2.1.99"
NO_CLASS = "unlabelled"  # a segment has to have a name
NEOPLASMS = ("tumor", "tumour", "cancer", "carcinoma", "metastas", "lesion", "neoplas")


def recognises(path: Path, head: bytes) -> bool:
    """Any DICOM file: slides are DICOM too, and told apart when they are read."""
    return head[128:132] == b"DICM"


def read(path: Path, canvas: Canvas | None) -> Document:
    """See ``Format``."""
    highdicom, pydicom = _libraries()
    with _told(path):
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.MediaStorageSOPClassUID not in SEGMENTATIONS:
            name = pydicom.uid.UID(meta.MediaStorageSOPClassUID).name
            raise HistoclickError(f"{path}: is no segmentation, but {name}")
        if meta.TransferSyntaxUID == DEFLATED:  # unpacked as a whole, however large it gets
            raise HistoclickError(f"{path}: is a deflated DICOM file; save it uncompressed")
        file = highdicom.seg.segread(path, lazy_frame_retrieval=True)
        if "TotalPixelMatrixRows" not in file:
            raise HistoclickError(f"{path}: is a segmentation of something else than a slide")
        width, height = int(file.TotalPixelMatrixColumns), int(file.TotalPixelMatrixRows)
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
            raise HistoclickError(f"{path}: says it has {width}x{height} px, which cannot be")
        if not file.segment_numbers:
            raise HistoclickError(f"{path}: is a segmentation without segments; export it again")
        notes = []
        if file.segmentation_type.value == "FRACTIONAL":
            notes.append("classes are probabilities: taken where they are 0.5 or more")
        annotations: list[Annotation] = []
        for number in file.segment_numbers:
            segment = file.get_segment_description(number)
            pieces = trace(_bands(file, int(number), width, height), name=str(path))
            label = str(segment.SegmentLabel).strip()
            colour = _rgb(highdicom, segment)
            labels = {1: "" if label == NO_CLASS else label}
            annotations += annotations_of(pieces, labels, {1: colour})
        measures = file.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence")
        mpp = float(measures[0].PixelSpacing[0]) * 1000 if measures else None
    found = tuple(annotations)
    size = Canvas(width, height, mpp)
    if canvas is not None and (width, height) != (canvas.width, canvas.height):
        found, size = on_canvas(path, found, width, height, canvas), canvas
        notes.append(
            f"the mask has {width}x{height} px and the slide {canvas.width}x{canvas.height}: "
            "outlines were enlarged, in steps of that size"
        )
    return Document(found, tuple(notes), size)


def write(document: Document, path: Path, canvas: Canvas | None) -> list[str]:
    """See ``Format``. The canvas has to come from a DICOM slide."""
    highdicom, pydicom = _libraries()
    canvas = canvas or document.canvas
    if canvas is None or canvas.source is None:
        raise HistoclickError(
            f"{path}: a DICOM segmentation refers to a DICOM slide; name the slide (--slide)"
        )
    slide = _level_0(pydicom, canvas.source, canvas)
    named, losses = classes_of(document)
    classes = [ValueClass(i, one.label, one.colour) for i, one in enumerate(named, 1)]
    classes = classes or [ValueClass(1, "", None)]  # there has to be one, and a tile
    painting = Painting(document, classes, canvas)
    tiles, places = _tiles(painting, int(slide.Rows), int(slide.Columns), canvas, path)
    losses += painting.losses()
    segments = []
    for one in classes:
        label = one.label.replace("\\", "/")[:NAME_CHARACTERS].strip() or NO_CLASS
        if one.label not in (label, ""):
            losses.append(f"class '{one.label}' cannot be held by DICOM: written as '{label}'")
        segments.append(_segment(highdicom, one, label))
    with _told(canvas.source):
        file = highdicom.seg.Segmentation(
            source_images=[slide],
            pixel_array=np.stack(tiles),
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=highdicom.UID(),
            series_number=100,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="histoclick",
            manufacturer_model_name="histoclick",
            software_versions=version("histoclick"),
            device_serial_number="0",
            plane_positions=[_position(highdicom, slide, *place) for place in places],
            dimension_organization_type="TILED_SPARSE",
            content_label="REGIONS",
            specific_character_set="ISO_IR 192",
        )
        # highdicom lets the matrix end with the last tile that is not empty.
        file.TotalPixelMatrixRows, file.TotalPixelMatrixColumns = canvas.height, canvas.width
        file.TotalPixelMatrixOriginSequence = slide.TotalPixelMatrixOriginSequence
        file.save_as(path)
    return losses


DICOM_SEG = Format(
    name="dicom-seg",
    title="DICOM SEG",
    suffixes=(".dcm",),
    decimals=None,
    holds=frozenset({Holds.LABELS, Holds.COLOURS, Holds.HOLES}),
    recognises=recognises,
    read=read,
    write=write,
    needs_canvas=True,
)


def _libraries() -> tuple[Any, Any]:
    """The packages highdicom and pydicom."""
    try:
        import highdicom
        import highdicom.seg
        import pydicom
    except ImportError:
        raise HistoclickError(
            "DICOM segmentations need highdicom; install it with: pip install 'histoclick[dicom]'"
        ) from None
    return highdicom, pydicom


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Errors of the libraries over damaged files, as a sentence."""
    _, pydicom = _libraries()
    try:
        yield
    except OSError as error:
        raise HistoclickError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
        pydicom.errors.InvalidDicomError,
    ) as error:
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise HistoclickError(f"{path}: incomplete or damaged DICOM ({reason})") from None


def _bands(file: Any, segment: int, width: int, height: int) -> Iterator[NDArray[np.bool_]]:
    """One segment from top to bottom, in rows of tiles."""
    step = max(1, min(int(file.Rows), 2**26 // width))
    for y in range(0, height, step):
        end = min(y + step, height)
        pixels = file.get_total_pixel_matrix(
            row_start=y + 1, row_end=end + 1, segment_numbers=[segment]
        )
        yield pixels[:, :, 0] >= 0.5


def _level_0(pydicom: Any, path: Path, canvas: Canvas) -> Any:
    """The header of the instance with the slide's level 0: a file, or one beside it."""
    folder = path if path.is_dir() else path.parent
    first = [] if path.is_dir() else [path]
    for file in [*first, *islice(sorted(folder.iterdir()), MAX_FILES)]:
        try:
            meta = pydicom.filereader.read_file_meta_info(file)
            if meta.MediaStorageSOPClassUID != SLIDE or meta.TransferSyntaxUID == DEFLATED:
                continue
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except (pydicom.errors.InvalidDicomError, AttributeError, OSError, ValueError, LookupError):
            continue
        size = header.get("TotalPixelMatrixColumns"), header.get("TotalPixelMatrixRows")
        if size == (canvas.width, canvas.height):
            return header
    raise HistoclickError(
        f"{path}: no DICOM slide of {canvas.width}x{canvas.height} px is there; segmentations refer"
        " to a DICOM slide, so choose another format for this one"
    )


def _tiles(
    painting: Painting, rows: int, columns: int, canvas: Canvas, path: Path
) -> tuple[list[NDArray[Any]], list[tuple[int, int]]]:
    """The tiles that are not empty, or the first, and their row and column among all, from 0."""
    tiles, places = [], []
    for row, band in enumerate(painting.bands(rows)):
        for column in np.unique(np.flatnonzero(band.any(axis=0)) // columns).tolist():
            tile = np.zeros((rows, columns), band.dtype)
            some = band[:, column * columns : (column + 1) * columns]
            tile[: some.shape[0], : some.shape[1]] = some
            tiles.append(tile)
            places.append((row, column))
        if len(tiles) * rows * columns > MAX_PX:
            raise HistoclickError(
                f"{path}: the objects cover more than {MAX_PX:,} px, too much for a DICOM "
                "segmentation; write a TIFF mask"
            )
    if not tiles:
        return [np.zeros((rows, columns), painting.dtype)], [(0, 0)]
    return tiles, places


def _segment(highdicom: Any, one: ValueClass, label: str) -> Any:
    """What a segment means, in codes of SNOMED CT."""
    code = highdicom.sr.CodedConcept
    kind = category = code("85756007", "SCT", "Body tissue structure")
    if any(word in label.lower() for word in NEOPLASMS):
        category = code("49755003", "SCT", "Morphologically Altered Structure")
        kind = code("108369006", "SCT", "Neoplasm")
    return highdicom.seg.SegmentDescription(
        segment_number=one.value,
        segment_label=label,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        display_color=highdicom.color.CIELabColor.from_rgb(*one.colour) if one.colour else None,
    )


def _position(highdicom: Any, slide: Any, row: int, column: int) -> Any:
    """Where a tile lies, in px and on the glass."""
    origin = slide.TotalPixelMatrixOriginSequence[0]
    measures = slide.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    return highdicom.utils.compute_plane_position_tiled_full(
        row_index=row + 1,
        column_index=column + 1,
        x_offset=origin.XOffsetInSlideCoordinateSystem,
        y_offset=origin.YOffsetInSlideCoordinateSystem,
        rows=slide.Rows,
        columns=slide.Columns,
        image_orientation=slide.ImageOrientationSlide,
        pixel_spacing=measures.PixelSpacing,
    )


def _rgb(highdicom: Any, segment: Any) -> tuple[int, int, int] | None:
    value = segment.get("RecommendedDisplayCIELabValue")
    if value is None:
        return None
    red, green, blue = highdicom.color.CIELabColor.from_dicom_value(list(value)).to_rgb()
    return round(red), round(green), round(blue)
