"""From every format through every other one and back: this is what proves the table in the docs."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from shapely import LineString, MultiPoint, MultiPolygon, Point, Polygon

from dicoms import dicom_slide
from drawings import SIZE_PX, documents, ring_with, square
from histoclick.annotations import FORMATS, Annotation, Canvas, Document, Holds, read, write
from histoclick.geometry import Rect
from histoclick.masks import rasterise
from histoclick.types import Mask

WRITABLE = [name for name, format_ in FORMATS.items() if format_.write is not None]
RASTERS = [name for name in WRITABLE if FORMATS[name].decimals is None]
VECTORS = [name for name in WRITABLE if name not in RASTERS]
QUICK = [name for name in WRITABLE if name != "dicom-seg"]  # which takes 0.1 s a file
CANVAS = Canvas(SIZE_PX, SIZE_PX, mpp=0.5, x0=16, y0=-8, name="slide.svs")


def through(document: Document, name: str) -> tuple[Document, list[str]]:
    """Written and read again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{FORMATS[name].suffixes[0]}"
        canvas = CANVAS
        if name == "dicom-seg":  # refers to a slide
            slide = dicom_slide(Path(folder) / "slide.dcm", SIZE_PX, SIZE_PX)
            canvas = replace(CANVAS, source=slide)
        losses = write(document, path, name, canvas)
        again = read(path, canvas)
    assert again.notes == ()
    return Document(again.annotations), losses


def expected(document: Document, holds: frozenset[Holds]) -> list[Annotation]:
    """What should be there after a format that holds this much: an obvious twin of ``fitted``."""
    kept = []
    for a in document.annotations:
        split = [a.shape]
        if isinstance(a.shape, MultiPolygon) and Holds.PARTS not in holds:
            split = list(a.shape.geoms)
        if isinstance(a.shape, MultiPoint) and Holds.POINT_SETS not in holds:
            split = list(a.shape.geoms)
        if isinstance(a.shape, Point | MultiPoint) and Holds.POINTS not in holds:
            split = []
        if isinstance(a.shape, LineString) and Holds.LINES not in holds:
            split = []
        name = a.name if Holds.NAMES in holds else ""
        kept += [Annotation(shape, a.label, a.colour, name) for shape in split]
    return kept


def words(annotation: Annotation) -> tuple[object, ...]:
    return annotation.label, annotation.name, annotation.colour, annotation.shape.geom_type


def has_holes(annotation: Annotation) -> bool:
    return bool(shapely.get_num_interior_rings(shapely.get_parts(annotation.shape)).any())


def is_region(annotation: Annotation) -> bool:
    return isinstance(annotation.shape, Polygon | MultiPolygon)


def pieces(annotation: Annotation) -> int:
    return len(shapely.get_parts(annotation.shape))


def exactly(annotation: Annotation) -> tuple[object, ...]:
    """Equal for equal objects, wherever their rings begin."""
    shape = annotation.shape
    wkt = shapely.normalize(shape).wkt
    return annotation.label, annotation.name, annotation.colour, shape.geom_type, wkt


def masks(annotations: Iterable[Annotation]) -> list[tuple[str, Mask]]:
    """(class, its pixels) of each region."""
    grid = Rect(0, 0, SIZE_PX, SIZE_PX)
    regions = filter(is_region, annotations)
    return [(a.label, rasterise(a.shape, grid, SIZE_PX, SIZE_PX)) for a in regions]


def check_pixels(annotations: Iterable[Annotation], wanted: Iterable[Annotation]) -> None:
    """Each pixel has the same class on top.

    But those whose centre lies on an outline: there the last bit of a float decides.
    """
    wanted = list(wanted)
    pictures = []
    for drawn in (annotations, wanted):
        canvas = np.full((SIZE_PX, SIZE_PX), "no region", object)
        for label, mask in masks(drawn):
            canvas[mask] = label
        pictures.append(canvas)
    y, x = np.nonzero(pictures[0] != pictures[1])
    outlines = shapely.union_all([shapely.boundary(a.shape) for a in wanted if is_region(a)])
    assert (shapely.distance(shapely.points(x + 0.5, y + 0.5), outlines) < 1e-6).all()


def check_exactly(one: str, document: Document, others: Iterable[str]) -> None:
    """``document`` survives the way from ``one`` to each of the ``others`` and back."""
    first, _ = through(document, one)
    if one in RASTERS:
        check_pixels(first.annotations, document.annotations)
    for other in others:
        there, losses = through(first, other)
        last, _ = through(there, one)
        wanted = expected(document, FORMATS[one].holds & FORMATS[other].holds)
        way = f"{one} -> {other} -> {one}"
        holed = any(map(has_holes, document.annotations))
        if one in RASTERS or other in RASTERS:
            check_pixels(last.annotations, first.annotations)
        elif "coco" in (one, other) and holed:  # which has holes in whole pixels: class by class
            for label in first.labels:
                same = [[a for a in d if a.label == label] for d in (last.annotations, wanted)]
                check_pixels(*same)
        else:
            assert Counter(map(exactly, last.annotations)) == Counter(map(exactly, wanted)), way
        if expected(first, FORMATS[other].holds) != list(first.annotations):
            assert losses, f"{one} -> {other} loses something in silence"


def check_closely(one: str, document: Document) -> None:
    """Nothing moves by more than the coarser precision on the way to the others and back."""
    for other in VECTORS:
        drawn = document
        if "coco" in (one, other):  # which has holes in whole pixels
            drawn = Document(tuple(a for a in document.annotations if not has_holes(a)))
        last = through(through(through(drawn, one)[0], other)[0], one)[0]
        error = 2 * 10.0 ** -min(FORMATS[one].decimals, FORMATS[other].decimals)
        left = list(last.annotations)
        for annotation in expected(drawn, FORMATS[one].holds & FORMATS[other].holds):
            near = [
                a
                for a in left
                if exactly(a)[:3] == exactly(annotation)[:3]
                and shapely.hausdorff_distance(a.shape, annotation.shape) < error
            ]
            if near:
                left.remove(near[0])
                assert pieces(near[0]) == pieces(annotation)
            else:  # only what is too small to be drawn may be gone
                assert annotation.shape.area < 1e-3, f"{one} -> {other} -> {one}"
        assert not left


@pytest.mark.parametrize("one", QUICK)
@given(document=documents(decimals=2))
@settings(max_examples=10, deadline=None)
def test_what_both_hold_survives_exactly(one: str, document: Document) -> None:
    check_exactly(one, document, QUICK)


@pytest.mark.parametrize("one", WRITABLE)
@given(document=documents(decimals=2))
@settings(max_examples=2, deadline=None)
def test_dicom_is_as_good_as_a_mask(one: str, document: Document) -> None:
    assume(any(mask.any() for _, mask in masks(document.annotations)))  # DICOM has no empty files
    check_exactly(one, document, ["dicom-seg"])


@pytest.mark.parametrize("one", VECTORS)
@given(document=documents(decimals=6))
@settings(max_examples=6, deadline=None)
def test_finer_coordinates_move_by_no_more_than_the_coarser_precision(
    one: str, document: Document
) -> None:
    check_closely(one, document)


@pytest.mark.slow
@pytest.mark.parametrize("one", VECTORS)
@given(coarse=documents(decimals=2), fine=documents(decimals=6))
@settings(max_examples=60, deadline=None)
def test_round_trips_of_many_documents(one: str, coarse: Document, fine: Document) -> None:
    check_exactly(one, coarse, QUICK)
    check_closely(one, fine)


FEATURES = {
    Holds.HOLES: Annotation(ring_with(square(10, 10, 20), square(15, 15, 5)), "Tumor", (1, 2, 3)),
    Holds.PARTS: Annotation(MultiPolygon([square(10, 10, 5), square(30, 30, 5)]), "Tumor"),
    Holds.POINTS: Annotation(Point(5, 5), "Tumor"),
    Holds.POINT_SETS: Annotation(MultiPoint([(5, 5), (9, 9)]), "Tumor"),
    Holds.LINES: Annotation(LineString([(5, 5), (9, 9)]), "Tumor"),
    Holds.LABELS: Annotation(square(40, 40, 5), "Tumor"),
    Holds.COLOURS: Annotation(square(40, 40, 5), "Tumor", (1, 2, 3)),
    Holds.NAMES: Annotation(square(40, 40, 5), "Tumor", name="lesion 3"),
}


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("part", FEATURES)
def test_what_is_lost_is_said_and_nothing_else(name: str, part: Holds) -> None:
    format_ = FORMATS[name]
    annotation = FEATURES[part]
    other = Annotation(square(60, 60, 5), "Stroma")  # DICOM has no empty files
    again, losses = through(Document((annotation, other)), name)
    held = part in format_.holds
    if part is Holds.HOLES and name in ("asap", "coco"):
        assert len(losses) == 1  # kept, in a way of their own
    else:
        assert bool(losses) == (not held)
    if held and format_.decimals is not None:
        assert len(again.annotations) == 2
        assert shapely.normalize(again.annotations[0].shape) == shapely.normalize(annotation.shape)
        assert again.annotations[0].name == annotation.name
