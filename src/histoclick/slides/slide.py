"""A slide: one picture at several resolutions, read at any place and scale."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Self

import cv2
import numpy as np

from histoclick.geometry import Rect, fit
from histoclick.slides.levels import EXACT, Span, levels_of
from histoclick.slides.resample import resample
from histoclick.slides.source import Source
from histoclick.types import RGB8, HistoclickError

MAX_PIXELS = 8_000_000  # of a level that one read has in memory at once, about
NEARLY = 1e-3  # a level that is coarser by this share still fits: mpp have no more digits
CONTRADICTS = 0.02  # share by which a given mpp may differ from the one of the file


class Slide:
    """An open slide. All coordinates are px of level 0, pixel-corner, as OpenSlide counts them.

    Any number of threads may read at once. When it is pickled, ``reopen`` goes instead, so that
    other processes open the file themselves. As a context, it closes the file at its end.

    ``width``, ``height``: of level 0, px. ``levels``: the first is level 0. ``mpp_x``, ``mpp_y``:
    um per px of level 0, ``None`` if nobody says. ``bounds``: where in level 0 something was
    scanned, else the whole slide; QuPath counts from its corner. ``notes``: what the user should
    know of how it was opened, a sentence each.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        reopen: Callable[[], Slide],
        mpp: float | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        self.source = source
        self.facts = source.facts
        self.levels = levels_of(source.sizes)
        self.width, self.height = source.sizes[0]
        self.bounds = self.facts.bounds or Rect(0, 0, self.width, self.height)
        self.objective_power = self.facts.objective_power
        self.mpp_x = self.facts.mpp_x
        self.mpp_y = self.facts.mpp_y
        self.notes = (*self.facts.notes, *notes)
        if left_out := len(source.sizes) - len(self.levels):
            note = f"{left_out} of its levels do not show the whole slide and are not used"
            self.notes = (*self.notes, note)
        self._reopen = reopen
        if mpp is not None:
            self._override(mpp)

    @property
    def mpp(self) -> float | None:
        """Microns per px of level 0, the mean of both directions; ``None`` if nobody says."""
        if self.mpp_x is None or self.mpp_y is None:
            return None
        return (self.mpp_x + self.mpp_y) / 2

    @cached_property
    def fingerprint(self) -> str:
        """Stable name of the content: ``quickhash-1:...`` of OpenSlide, else ``sha256:...``."""
        if self.facts.quickhash:
            return f"quickhash-1:{self.facts.quickhash}"
        with self.path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"

    def scale(self, mpp: float) -> tuple[float, float]:
        """(x, y): px of level 0 per px at ``mpp`` um/px. Magnification m is 10 / m um/px.

        Raises ``HistoclickError`` with the question to the user when the slide's own is not known.
        """
        _check_mpp(mpp)
        if self.mpp_x is None or self.mpp_y is None:
            raise HistoclickError(f"{self.path}: {self.question}")
        return mpp / self.mpp_x, mpp / self.mpp_y

    @property
    def question(self) -> str:
        """What to ask the user when the slide does not say its um/px."""
        if not self.objective_power:
            return "does not say its microns per pixel; give them, such as --mpp 0.25 for x40"
        guess = f"{10 / self.objective_power:.3g}"
        return (
            f"does not say its microns per pixel (its objective power of {self.objective_power:g} "
            f"suggests {guess}); give --mpp {guess}"
        )

    def read_at(self, x0: float, y0: float, mpp: float, size_px: int) -> RGB8:
        """(``size_px``, ``size_px``, 3) uint8 RGB at ``mpp`` um/px.

        ``x0``, ``y0``: top left corner in px of level 0. Raises ``HistoclickError`` when the
        slide's own um/px is not known.
        """
        x, y = self.scale(mpp)
        return self.read(Rect(x0, y0, size_px * x, size_px * y), size_px, size_px)

    def thumbnail(self, max_side_px: int) -> RGB8:
        """(H, W, 3) uint8 RGB of the whole slide; its longer side has ``max_side_px`` px."""
        height, width = fit(self.height, self.width, max_side_px)
        return self.read(Rect(0, 0, self.width, self.height), width, height)

    def read(self, rect0: Rect, width: int, height: int) -> RGB8:
        """(``height``, ``width``, 3) uint8 RGB: what ``rect0`` looks like at that size.

        ``rect0``: in px of level 0; may lie partly or wholly outside, where it is white. Pixels are
        taken as they are from a level that has this scale, else each is the mean of the area that
        it covers on the next finer level; only beyond level 0 they are interpolated. Raises
        ``HistoclickError`` where the file is damaged.
        """
        if not self._touches(rect0):
            return np.full((height, width, 3), 255, np.uint8)
        index = self._level_for(rect0.width / width, rect0.height / height)
        level = self.levels[index]
        across = Span.of(rect0.x0, rect0.x1, level.downsample_x, width)
        down = Span.of(rect0.y0, rect0.y1, level.downsample_y, height)
        if across.count * down.count > max(MAX_PIXELS, 4 * width * height):
            return self._read_by_parts(rect0, width, height)
        pixels = self._white_padded(index, across, down)
        if across.whole and down.whole:
            if (down.count, across.count) == (height, width):
                return pixels
            if down.count >= height and across.count >= width:
                shrunk = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
                return np.asarray(shrunk, np.uint8)
        size = across.end - across.start, down.end - down.start
        inner = Rect(across.start - across.first, down.start - down.first, *size)
        return resample(pixels, inner, width, height)

    def close(self) -> None:
        """Let go of the file."""
        self.source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[], Slide], tuple[()]]:
        return self._reopen, ()

    def __repr__(self) -> str:
        return f"<Slide {self.path}: {self.width}x{self.height} px, {self.mpp} um/px>"

    def _touches(self, rect0: Rect) -> bool:
        across = rect0.x0 < self.width and rect0.x1 > 0
        return across and rect0.y0 < self.height and rect0.y1 > 0

    def _level_for(self, scale_x: float, scale_y: float) -> int:
        """The coarsest level that is no coarser than asked for."""
        for index in range(len(self.levels) - 1, 0, -1):
            level = self.levels[index]
            if level.downsample_x <= scale_x * (1 + NEARLY) and (
                level.downsample_y <= scale_y * (1 + NEARLY)
            ):
                return index
        return 0

    def _read_by_parts(self, rect0: Rect, width: int, height: int) -> RGB8:
        """The same as ``read``, with less in memory at once."""
        if width == height == 1:
            four = self.read(rect0, 2, 2)
            mean: RGB8 = np.rint(four.mean((0, 1), keepdims=True)).astype(np.uint8)
            return mean
        if width >= height:
            count = width // 2
            split = rect0.x0 + rect0.width * count / width
            left = Rect(rect0.x0, rect0.y0, split - rect0.x0, rect0.height)
            right = Rect(split, rect0.y0, rect0.x1 - split, rect0.height)
            parts = self.read(left, count, height), self.read(right, width - count, height)
            return np.concatenate(parts, axis=1)
        count = height // 2
        split = rect0.y0 + rect0.height * count / height
        upper = Rect(rect0.x0, rect0.y0, rect0.width, split - rect0.y0)
        lower = Rect(rect0.x0, split, rect0.width, rect0.y1 - split)
        return np.concatenate(
            (self.read(upper, width, count), self.read(lower, width, height - count))
        )

    def _white_padded(self, index: int, across: Span, down: Span) -> RGB8:
        """(down.count, across.count, 3) uint8 of a level, white where the slide is not."""
        level = self.levels[index]
        # A level may lack the last pixels of level 0, too few to make one of its own: its border
        # goes on there.
        end_x = max(level.width, math.ceil(self.width / level.downsample_x - EXACT))
        end_y = max(level.height, math.ceil(self.height / level.downsample_y - EXACT))
        left, right = max(across.first, 0), min(across.last, end_x)
        top, bottom = max(down.first, 0), min(down.last, end_y)
        if left >= right or top >= bottom:
            return np.full((down.count, across.count, 3), 255, np.uint8)
        x, y = min(left, level.width - 1), min(top, level.height - 1)
        width = max(1, min(right, level.width) - x)
        height = max(1, min(bottom, level.height) - y)
        pixels = self.source.read(level.index, x, y, width, height)
        if pixels.shape[:2] == (down.count, across.count):
            return pixels
        lacking = (0, bottom - top - height), (0, right - left - width), (0, 0)
        outside = (
            (top - down.first, down.last - bottom),
            (left - across.first, across.last - right),
            (0, 0),
        )
        padded: RGB8 = np.pad(np.pad(pixels, lacking, "edge"), outside, constant_values=255)
        return padded

    def _override(self, mpp: float) -> None:
        _check_mpp(mpp)
        said = self.mpp
        if said is not None and abs(mpp / said - 1) > CONTRADICTS:
            note = f"uses the {mpp:g} um/px as given, not the {said:.4g} of the file"
            self.notes = (*self.notes, note)
        self.mpp_x = self.mpp_y = mpp


def _check_mpp(mpp: float) -> None:
    if not (math.isfinite(mpp) and mpp > 0):
        raise HistoclickError(f"{mpp} um/px is no resolution; give a number above 0")
