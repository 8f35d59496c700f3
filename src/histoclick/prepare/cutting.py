"""Cutting one slide: where its patches lie, and their pixels.

Both are tasks for a crew (see ``crew``). Patches are written where they are cut: their pixels are
too many to be sent to another process. A file is there whole or not at all, and cutting twice
writes the same, so it does not matter when somebody falls.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib
from shapely import box

from histoclick.annotations import read
from histoclick.annotations.document import Canvas
from histoclick.datasets.cases import Case
from histoclick.files import replace
from histoclick.geometry import Rect
from histoclick.masks import Painter
from histoclick.prepare.grid import Grid
from histoclick.prepare.recipe import Recipe
from histoclick.slides import Slide, open_slide
from histoclick.tissue import MPP, TissueMap, tissue_mask
from histoclick.types import RGB8, HistoclickError, Mask

FINER = 1.05  # a slide may be coarser than the patches by this: 0.2525 um/px is called 40x too


Corner = tuple[int, int]  # x, y: top left of a patch, px of level 0


@dataclass(frozen=True)
class Cell:
    """A patch that was written. ``x0``, ``y0``: top left corner, px of level 0. ``sizes``: of the
    files of image and mask, bytes."""

    id: str
    x0: int
    y0: int
    object_fraction: float
    tissue_fraction: float
    sizes: tuple[int, int]


@dataclass(frozen=True)
class Look:
    """The job of finding the places where a slide may have patches."""

    case: Case


@dataclass(frozen=True)
class Cut:
    """The job of cutting the patches among some of them, into the patch set ``folder``."""

    case: Case
    places: tuple[Corner, ...]
    folder: Path


@dataclass(frozen=True)
class Plan:
    """Where patches may be. ``facts``: of the slide, for the manifest; ``labels``: all classes of
    its annotations."""

    case: Case
    places: tuple[Corner, ...]
    facts: dict[str, Any]
    notes: tuple[str, ...]
    labels: frozenset[str]


@dataclass(frozen=True)
class Patches:
    """The patches that were found among ``places`` places."""

    case: Case
    places: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Failure:
    """A slide that cannot be used, and why."""

    case: Case
    reason: str


class Table:
    """A slide that lies open, with its annotations. Raises ``HistoclickError``."""

    def __init__(self, case: Case, recipe: Recipe) -> None:
        self.case = case
        self.slide = open_slide(case.slide, mpp=recipe.slide_mpp, icc=recipe.icc)
        coarser = 1 / min(self.slide.scale(recipe.mpp))
        if coarser > FINER:
            mpp = recipe.mpp * coarser
            raise HistoclickError(
                f"{case.slide}: has {mpp:.4g} um/px at its finest, the patches shall have "
                f"{recipe.mpp:g}; choose a magnification of {10 / mpp:.3g} or less"
            )
        document = read(case.annotation, Canvas.of(self.slide))
        try:
            self.layers, left_out = recipe.data_set.layers(document)
        except HistoclickError as error:
            raise HistoclickError(f"{case.annotation}: {error}") from None
        self.labels = frozenset(document.labels)
        self.notes = (*self.slide.notes, *document.notes, *left_out, *self._strays())
        values = np.array([layer.adds for layer in self.layers])
        self.painter = Painter([layer.shape for layer in self.layers], values)

    def _strays(self) -> list[str]:
        """What lies outside of the slide. Raises ``HistoclickError`` if all does."""
        picture = box(0, 0, self.slide.width, self.slide.height)
        count = sum(not picture.intersects(layer.shape) for layer in self.layers)
        if count and count == len(self.layers):
            raise HistoclickError(
                f"{self.case.annotation}: all {count} outlines lie outside of the slide "
                f"({self.slide.width}x{self.slide.height} px); are they another slide's, or in px "
                "of another level?"
            )
        return [f"{count} of {len(self.layers)} outlines lie outside of the slide"] if count else []

    @cached_property
    def tissue(self) -> TissueMap:
        """Where the tissue is within the slide's bounds."""
        rect0, (scale_x, scale_y) = self.slide.bounds, self.slide.scale(MPP)
        width, height = (
            max(1, round(rect0.width / scale_x)),
            max(1, round(rect0.height / scale_y)),
        )
        return TissueMap(tissue_mask(self.slide.read(rect0, width, height)), rect0)


class Bench:
    """What a worker has: the recipe, and the slide that lies open."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._table: Table | None = None

    def table(self, case: Case) -> Table:
        """The slide of a case; the one before is closed."""
        if self._table is None or self._table.case != case:
            if self._table is not None:
                self._table.slide.close()
            self._table = None
            self._table = Table(case, self.recipe)
        return self._table


def work(bench: Bench, job: Look | Cut) -> Plan | Patches | Failure:
    """Do a job. Whatever a broken slide does, it is told, and the others go on.

    Raises ``OSError`` if a patch cannot be written.
    """
    try:
        if isinstance(job, Look):
            return look(bench, job.case)
        cells = list(cut(bench, job))
    except HistoclickError as error:
        return Failure(job.case, str(error))
    except Exception as error:  # noqa: BLE001 - decoders of strangers' files raise anything
        return Failure(job.case, f"{job.case.slide}: {type(error).__name__}: {error}")
    for cell, image, mask in cells:
        replace(job.folder / "images" / f"{cell.id}.png", image)
        replace(job.folder / "masks" / f"{cell.id}.png", mask)
    return Patches(job.case, len(job.places), tuple(cell for cell, _, _ in cells))


def look(bench: Bench, case: Case) -> Plan:
    """Find the places of a slide that have to be looked at more closely.

    Raises ``HistoclickError`` for a slide or an annotation that cannot be used.
    """
    recipe, table = bench.recipe, bench.table(case)
    slide, size = table.slide, cell_rect(table.slide, recipe, 0, 0)
    scale = recipe.step_px / recipe.size_px
    grid = Grid(slide.bounds, size.width, size.height, size.width * scale, size.height * scale)
    places = grid.corners(table.layers, inside=recipe.object_fraction[1] == 1)
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
    notes = tuple(f"{case.id}: {note}" for note in table.notes)
    return Plan(case, tuple(places), facts, notes, table.labels)


def cut(bench: Bench, job: Cut) -> Iterator[tuple[Cell, bytes, bytes]]:
    """The patches with enough object and tissue, with image and mask as PNG files.

    Raises ``HistoclickError`` where the slide is damaged.
    """
    recipe, table = bench.recipe, bench.table(job.case)
    size, (low, high) = recipe.size_px, recipe.object_fraction
    for x0, y0 in job.places:
        rect0 = cell_rect(table.slide, recipe, x0, y0)
        mask: Mask = table.painter.band(rect0, size, size)
        share = np.count_nonzero(mask) / mask.size
        if not low <= share <= high or not share:
            continue
        tissue = table.tissue.fraction(rect0)
        if tissue >= recipe.tissue_fraction:
            image, outline = encode(table.slide.read(rect0, size, size)), encode(mask)
            id_, sizes = f"{job.case.id}_x{x0}_y{y0}", (len(image), len(outline))
            yield Cell(id_, x0, y0, share, tissue, sizes), image, outline


def cell_rect(slide: Slide, recipe: Recipe, x0: float, y0: float) -> Rect:
    """What a patch covers, in px of level 0."""
    scale_x, scale_y = slide.scale(recipe.mpp)
    return Rect(x0, y0, recipe.size_px * scale_x, recipe.size_px * scale_y)


def encode(image: RGB8 | Mask) -> bytes:
    """(H, W, 3) uint8 RGB, or (H, W) bool as 0 and 255, as a PNG file.

    Written here because compressing takes longer than reading a patch: ISA-L does it in a third of
    the time of the zlib behind OpenCV and Pillow, at the same size.
    """
    pixels = image * np.uint8(255) if image.ndim == 2 else image
    height, width = pixels.shape[:2]
    lines = pixels.reshape(height, -1)
    filtered = np.empty((height, lines.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2  # each line as its difference to the one above
    filtered[0, 1:] = lines[0]
    np.subtract(lines[1:], lines[:-1], out=filtered[1:, 1:])
    colour = 0 if image.ndim == 2 else 2
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)),
        (b"IDAT", isal_zlib.compress(filtered, 1)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
