"""Phantom slides: whole slides of phantom tissue with exact truth, drawn band by band.

The picture is drawn in blocks at about half a micrometre per pixel, whatever the scale of level 0,
and enlarged for finer ones; a block sees beyond its border, so that none is seen in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from histoclick.annotations.document import Annotation, Document
from histoclick.datasets.lattice import Field, Window
from histoclick.datasets.nuclei import Nuclei
from histoclick.datasets.section import photograph, section
from histoclick.datasets.specimen import Specimen
from histoclick.geometry import Rect
from histoclick.masks import Painter
from histoclick.types import RGB8, HistoclickError, Mask

_BLOCK = 640.0  # um, side of what is drawn at once
_MARGIN = 52.0  # um, drawn around a block and cut off
_BLUR = 4.0  # um, how far light strays
_FINEST = 0.4  # um per px; finer pixels are enlarged
_CONTEXT = 2  # px that enlarging sees beyond a strip
_AROUND = 2 * _CONTEXT
_STRIP = 64  # px, height of what is enlarged at once
_RAGGED = 12.0  # um, how far tissue reaches beyond its outline
_PIECE, _SHIFT = 4096, 64  # px of level 0, of the noise that strips get
_LEAST = 800.0  # um, side of a slide
_RED = (200, 0, 0)


@dataclass(frozen=True)
class PhantomSlide:
    """A slide to be drawn: ``width`` x ``height`` px of ``mpp`` um; the same for the same seed.

    Raises ``HistoclickError`` for a seed below 0, sides below 800 um and an ``mpp`` that is not
    between 0.1 and 2.
    """

    seed: int
    width: int
    height: int
    mpp: float = 0.25

    def __post_init__(self) -> None:
        if self.seed < 0 or not 0.1 <= self.mpp <= 2:
            raise HistoclickError(
                f"a phantom slide cannot have seed {self.seed} and {self.mpp} um per px; give a "
                "seed of 0 or more and 0.1 to 2 um"
            )
        if min(self.width, self.height) * self.mpp < _LEAST:
            raise HistoclickError(
                f"a phantom slide of {self.width}x{self.height} px at {self.mpp} um per px has no "
                f"room for tissue; give sides of {math.ceil(_LEAST / self.mpp)} px or more"
            )

    @property
    def name(self) -> str:
        """Of its files, without suffix."""
        return f"phantom-{self.seed:05d}"

    @cached_property
    def truth(self) -> Document:
        """The tumour's outlines, with holes, in px of level 0 to the hundredth."""
        scaled = [
            shapely.set_precision(shapely.transform(polygon, lambda xy: xy / self.mpp), 0.01)
            for polygon in self._specimen.tumour
        ]
        pieces = [piece for piece in shapely.get_parts(scaled) if piece.area > 0]
        return Document(
            tuple(
                Annotation(piece, "Tumor", _RED, f"lesion {number}")
                for number, piece in enumerate(pieces, 1)
            )
        )

    def bands(self) -> Iterator[RGB8]:
        """Level 0 from top to bottom: (h, ``width``, 3) uint8 RGB."""
        for row in range(math.ceil(self.height / (self._side * self._factor))):
            drawn = self._row(row)
            for y in range(0, self._side, _STRIP):
                strip = self._enlarged(drawn[y : y + _STRIP + _AROUND])
                done = (row * self._side + y) * self._factor
                if done < self.height:
                    yield self._grained(strip, done)[: self.height - done]
            del drawn, strip  # before the next row is drawn

    def masks(self, rows: int = 512) -> Iterator[NDArray[np.uint8]]:
        """The truth at level 0 from top to bottom: (h, ``width``) uint8, 1 is tumour."""
        for y in range(0, self.height, rows):
            h = min(rows, self.height - y)
            yield self._painter.band(Rect(0, y, self.width, h), self.width, h)

    @cached_property
    def _specimen(self) -> Specimen:
        return Specimen.draw(self.seed, self.width * self.mpp, self.height * self.mpp)

    @cached_property
    def _painter(self) -> Painter:
        shapes = [annotation.shape for annotation in self.truth.annotations]
        return Painter(shapes, np.ones(len(shapes), np.uint8))

    @cached_property
    def _factor(self) -> int:
        """Px of level 0 per px drawn, each way."""
        return int(2 ** max(0, math.ceil(math.log2(_FINEST / self.mpp))))

    @property
    def _um(self) -> float:
        """Um per px drawn."""
        return self.mpp * self._factor

    @cached_property
    def _side(self) -> int:
        """Px drawn, side of a block: a multiple of a strip."""
        return _STRIP * round(_BLOCK / self._um / _STRIP)

    @cached_property
    def _grain(self) -> NDArray[np.int16]:
        """Noise of the sensor for a piece of a strip, and more to begin elsewhere in it."""
        rng = np.random.default_rng([self.seed, 2])
        shape = _STRIP * self._factor + _SHIFT, _PIECE + _SHIFT, 3
        noise = self._specimen.style.grain * rng.standard_normal(shape, np.float32)
        return np.asarray(np.rint(noise), np.int16)

    def _row(self, row: int) -> RGB8:
        """A row of blocks with context around it."""
        columns = math.ceil(self.width / (self._side * self._factor))
        drawn = np.empty((self._side + _AROUND, columns * self._side + _AROUND, 3), np.uint8)
        for column in range(columns):
            x = column * self._side
            drawn[:, x : x + self._side + _AROUND] = self._block(row, column)
        return drawn

    def _block(self, row: int, column: int) -> RGB8:
        """A block with context on all sides, px drawn."""
        margin = math.ceil(_MARGIN / self._um)
        side = self._side + 2 * margin
        window = Window(
            self.seed, column * self._side - margin, row * self._side - margin, side, side, self._um
        )
        light = self._light(window, margin)
        cut = slice(margin - _CONTEXT, margin + self._side + _CONTEXT)
        return np.clip(np.rint(light[cut, cut]), 0, 255).astype(np.uint8)

    def _light(self, window: Window, margin: int) -> Field:
        """(H, W, 3) grey levels, right but for ``margin`` px at the borders.

        Where there is nothing but glass, nothing is drawn.
        """
        style, specimen = self._specimen.style, self._specimen
        stains = np.zeros((2, window.height, window.width), np.float32)
        edge = margin - math.ceil(_BLUR / window.um)
        rows, columns = np.nonzero(specimen.inside_at(window)[edge:-edge, edge:-edge] > -_RAGGED)
        if len(rows):  # the tissue, and ``edge`` px on all sides
            ys, xs = (slice(int(i.min()), int(i.max()) + 2 * edge + 1) for i in (rows, columns))
            part = Window(
                window.seed, window.x0 + xs.start, window.y0 + ys.start,
                xs.stop - xs.start, ys.stop - ys.start, window.um,
            )  # fmt: skip
            stains[:, ys, xs] = section(part, style, self._tumour(part), specimen.ground(part))
        return photograph(window, style, *(stains + _dust(window)))

    def _tumour(self, window: Window) -> Mask:
        """(H, W) bool of a window."""
        factor = self._factor
        rect0 = Rect(
            *(side * factor for side in (window.x0, window.y0, window.width, window.height))
        )
        return self._painter.band(rect0, window.width, window.height).astype(np.bool_)

    def _enlarged(self, strip: RGB8) -> RGB8:
        """A strip at level 0, without its context."""
        if self._factor > 1:
            factor = self._factor
            size = strip.shape[1] * factor, strip.shape[0] * factor
            strip = np.asarray(cv2.resize(strip, size, interpolation=cv2.INTER_CUBIC), np.uint8)
        edge = _CONTEXT * self._factor
        return strip[edge:-edge, edge : edge + self.width]

    def _grained(self, strip: RGB8, y: int) -> RGB8:
        """With noise that depends on the place only."""
        noisy = np.empty_like(strip)
        for x in range(0, self.width, _PIECE):
            piece = np.s_[:, x : x + _PIECE]
            height, width = strip[piece].shape[:2]
            start = x // _PIECE + y // _STRIP
            dy, dx = start * 37 % _SHIFT, start * 23 % _SHIFT
            noise = self._grain[dy : dy + height, dx : dx + width]
            noisy[piece] = cv2.add(strip[piece], noise, dtype=cv2.CV_8U)
        return noisy


def _dust(window: Window) -> Field:
    """What lies on the glass: rare dark crumbs and threads."""
    cells = window.points("dust", 600)
    cells = cells.where(cells.dice[0] < 0.5)
    _, size, thin, turn, dark, _ = cells.dice
    long = 3 + 22 * size**4
    crumbs = Nuclei(cells, long, np.maximum(long * (1 - 0.8 * thin), 2), turn * 6.3, 0.4 + dark)
    return crumbs.stain(window, window.noise("dust", 3), 0.2)
