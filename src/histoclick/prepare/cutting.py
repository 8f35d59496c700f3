"""Cutting one slide: where its patches lie, and their pixels.

Both are tasks for a crew (see ``crew``): they read slides and annotations and write nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from histoclick.annotations import read
from histoclick.annotations.document import Canvas
from histoclick.datasets.cases import Case, Layer
from histoclick.geometry import Rect
from histoclick.masks import Painter
from histoclick.prepare.recipe import Recipe
from histoclick.slides import Slide, open_slide
from histoclick.tissue import MPP, TissueMap, tissue_mask
from histoclick.types import RGB8, HistoclickError, Mask

FINER = 1.05  # a slide may be coarser than the patches by this: 0.2525 um/px is called 40x too
PNG = [  # half the seconds of the defaults; files are a tenth larger
    cv2.IMWRITE_PNG_COMPRESSION, 1,
    cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP,
]  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A patch to be cut. ``x0``, ``y0``: top left corner, px of level 0. ``mask``: as PNG."""

    x0: int
    y0: int
    object_fraction: float
    tissue_fraction: float
    mask: bytes


@dataclass(frozen=True)
class Look:
    """The job of finding the patches of a slide."""

    case: Case


@dataclass(frozen=True)
class Cut:
    """The job of reading some of them."""

    case: Case
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Plan:
    """The patches of a slide. ``facts``: of the slide, for the manifest."""

    case: Case
    cells: tuple[Cell, ...]
    facts: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Images:
    """The pixels of some patches, as PNG, in their order."""

    case: Case
    cells: tuple[Cell, ...]
    images: tuple[bytes, ...]


@dataclass(frozen=True)
class Failure:
    """A slide that cannot be used, and why."""

    case: Case
    reason: str


class Bench:
    """What a worker has: the recipe, and the slide that lies open."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._open: Slide | None = None

    def slide(self, case: Case) -> Slide:
        """The slide of a case; the one before is closed."""
        if self._open is None or self._open.path != case.slide:
            if self._open is not None:
                self._open.close()
            self._open = None
            self._open = open_slide(case.slide, mpp=self.recipe.slide_mpp, icc=self.recipe.icc)
        return self._open


def work(bench: Bench, job: Look | Cut) -> Plan | Images | Failure:
    """Do a job. Whatever a broken slide does, it is told, and the others go on."""
    try:
        return look(bench, job.case) if isinstance(job, Look) else cut(bench, job)
    except HistoclickError as error:
        return Failure(job.case, str(error))
    except Exception as error:  # noqa: BLE001 - decoders of strangers' files raise anything
        return Failure(job.case, f"{job.case.slide}: {type(error).__name__}: {error}")


def look(bench: Bench, case: Case) -> Plan:
    """Find the patches of a slide: the cells of the grid with enough object and tissue.

    Raises ``HistoclickError`` for a slide or an annotation that cannot be used.
    """
    recipe, slide = bench.recipe, bench.slide(case)
    coarser = 1 / min(slide.scale(recipe.mpp))
    if coarser > FINER:
        mpp = recipe.mpp * coarser
        raise HistoclickError(
            f"{case.slide}: has {mpp:.4g} um/px at its finest, the patches shall have "
            f"{recipe.mpp:g}; choose a magnification of {10 / mpp:.3g} or less"
        )
    document = read(case.annotation, Canvas.of(slide))
    try:
        layers, left_out = recipe.data_set.layers(document)
    except HistoclickError as error:
        raise HistoclickError(f"{case.annotation}: {error}") from None
    cells = tuple(_cells(slide, recipe, layers))
    facts = {
        "slide_file": case.slide.name,
        "slide_width": slide.width,
        "slide_height": slide.height,
        "slide_mpp_x": slide.mpp_x,
        "slide_mpp_y": slide.mpp_y,
        "source_hash": slide.fingerprint,
        "annotation_file": case.annotation.name,
        "annotation_hash": f"sha256:{hashlib.sha256(case.annotation.read_bytes()).hexdigest()}",
    }
    notes = [f"{case.annotation.name}: {note}" for note in (*document.notes, *left_out)]
    return Plan(case, cells, facts, tuple(notes))


def cut(bench: Bench, job: Cut) -> Images:
    """Read patches. Raises ``HistoclickError`` where the slide is damaged."""
    slide, size = bench.slide(job.case), bench.recipe.size_px
    images = [
        encode(slide.read(cell_rect(slide, bench.recipe, cell.x0, cell.y0), size, size))
        for cell in job.cells
    ]
    return Images(job.case, job.cells, tuple(images))


def cell_rect(slide: Slide, recipe: Recipe, x0: float, y0: float) -> Rect:
    """What a patch covers, in px of level 0."""
    scale_x, scale_y = slide.scale(recipe.mpp)
    return Rect(x0, y0, recipe.size_px * scale_x, recipe.size_px * scale_y)


def encode(image: RGB8 | Mask) -> bytes:
    """(H, W, 3) uint8 RGB, or (H, W) bool as 0 and 255, as a PNG file."""
    grey_or_bgr = image[..., ::-1] if image.ndim == 3 else image * np.uint8(255)
    return bytes(cv2.imencode(".png", grey_or_bgr.astype(np.uint8), PNG)[1])


def _cells(slide: Slide, recipe: Recipe, layers: list[Layer]) -> Iterator[Cell]:
    """The cells to be cut, row by row."""
    low, high = recipe.object_fraction
    painter = Painter([layer.shape for layer in layers], [int(layer.adds) for layer in layers])
    tissue: TissueMap | None = None
    for x0, y0 in _near(slide, recipe, layers):
        rect0 = cell_rect(slide, recipe, x0, y0)
        mask = painter.band(rect0, recipe.size_px, recipe.size_px) > 0
        fraction = float(mask.mean())
        if not (low <= fraction <= high and fraction > 0):
            continue
        tissue = tissue or tissue_map(slide)
        share = tissue.fraction(rect0)
        if share >= recipe.tissue_fraction:
            yield Cell(x0, y0, fraction, share, encode(mask))


def _near(slide: Slide, recipe: Recipe, layers: list[Layer]) -> Iterator[tuple[int, int]]:
    """Top left corners of the grid's cells that meet the bounding box of a shape.

    The grid begins at the corner of the slide's bounds; cells lie inside them; corners are whole
    pixels of level 0.
    """
    bounds, size = slide.bounds, cell_rect(slide, recipe, 0, 0)
    scale = recipe.step_px / recipe.size_px
    step_x, step_y = size.width * scale, size.height * scale
    columns = int((bounds.width - size.width) / step_x + 1e-6) + 1
    rows = int((bounds.height - size.height) / step_y + 1e-6) + 1
    if bounds.width < size.width or bounds.height < size.height:
        return
    near = np.zeros((rows, columns), np.bool_)
    for layer in layers:
        if layer.adds:
            x0, y0, x1, y1 = layer.shape.bounds
            left, right = ((x - bounds.x0) / step_x for x in (x0 - size.width, x1))
            top, bottom = ((y - bounds.y0) / step_y for y in (y0 - size.height, y1))
            near[
                max(0, int(top)) : max(0, int(bottom) + 1),
                max(0, int(left)) : max(0, int(right) + 1),
            ] = True
    for row, column in np.argwhere(near):
        yield round(bounds.x0 + column * step_x), round(bounds.y0 + row * step_y)


def tissue_map(slide: Slide) -> TissueMap:
    """Where the tissue is within the slide's bounds."""
    rect0, (scale_x, scale_y) = slide.bounds, slide.scale(MPP)
    width, height = max(1, round(rect0.width / scale_x)), max(1, round(rect0.height / scale_y))
    return TissueMap(tissue_mask(slide.read(rect0, width, height)), rect0)
