"""Regions of slides that are served, for programs that name a slide instead of sending pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from histoclick.geometry import Rect
from histoclick.server.uploads import MAX_PIXELS
from histoclick.session.windows import Window
from histoclick.slides import Slide
from histoclick.types import RGB8, HistoclickError

WORKING_MPP = 1.0  # um per px: the x10 of the paper, where the slide says its own


@dataclass(frozen=True)
class Region:
    """A part of a slide at a whole-number scale.

    ``x0``, ``y0``: top left corner, px of level 0. ``scale``: px of level 0 per px. ``width``,
    ``height``: of the region at its scale, px.
    """

    slide: Slide
    x0: int
    y0: int
    scale: int
    width: int
    height: int

    @classmethod
    def of(cls, slide: Slide, rect0: Rect | None, window_px: int) -> Region:
        """``rect0``: px of level 0, cut to the slide; ``None``: all of it.

        The scale is that of ``WORKING_MPP``, finer for regions that would be smaller than what the
        model sees at once (``window_px``), coarser for those of more than ``MAX_PIXELS``; so up to
        ``scale`` - 1 px are lost at the right and lower border. Raises ``HistoclickError`` for all
        of a large slide, and for a region outside.
        """
        if rect0 is None and slide.width * slide.height > MAX_PIXELS:
            raise HistoclickError(
                "the whole slide is too large for one answer; select a rectangle around the object"
            )
        rect0 = rect0 or Rect(0, 0, slide.width, slide.height)
        x0, y0 = max(0, math.floor(rect0.x0)), max(0, math.floor(rect0.y0))
        x1 = min(slide.width, math.ceil(rect0.x1))
        y1 = min(slide.height, math.ceil(rect0.y1))
        if x0 >= x1 or y0 >= y1:
            raise HistoclickError(
                f"the rectangle lies outside the slide of {slide.width}x{slide.height} px"
            )
        width, height = x1 - x0, y1 - y0
        scale = 1 if slide.mpp is None else max(1, round(WORKING_MPP / slide.mpp))
        scale = min(scale, max(1, max(width, height) // window_px), width, height)
        while (width // scale) * (height // scale) > MAX_PIXELS:
            scale += 1
        return cls(slide, x0, y0, scale, max(1, width // scale), max(1, height // scale))

    @property
    def key(self) -> str:
        """See ``Scene``."""
        place = f"{self.x0},{self.y0},{self.width},{self.height}"
        return f"{self.slide.fingerprint} {place} 1:{self.scale}"

    def part(self, window: Window) -> RGB8:
        """See ``Scene``."""
        rect0 = Rect(
            self.x0 + window.x * self.scale,
            self.y0 + window.y * self.scale,
            window.width * self.scale,
            window.height * self.scale,
        )
        return self.slide.read(rect0, window.width, window.height)
