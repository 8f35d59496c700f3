"""Slides: whatever the file format, one picture at several resolutions.

Coordinates are px of level 0 as OpenSlide counts them, pixel-corner.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import openslide

from histoclick.slides.levels import Level
from histoclick.slides.openslides import OpenSlideSource
from histoclick.slides.slide import Slide
from histoclick.slides.source import Facts, Source
from histoclick.types import HistoclickError

__all__ = ["Facts", "Level", "Slide", "Source", "open_slide"]


def open_slide(path: Path, *, mpp: float | None = None, icc: bool = False) -> Slide:
    """Open a slide or a picture.

    ``mpp``: um per px of level 0, if the file does not say it or is wrong. ``icc``: convert colours
    to sRGB by the file's own profile, if it has one. Raises ``HistoclickError`` for files that are
    missing, damaged or of an unknown format.
    """
    if not path.exists():
        raise HistoclickError(f"{path}: no such file; check the path")
    try:
        source = OpenSlideSource(path)
    except openslide.OpenSlideError as error:
        raise HistoclickError(f"{path}: cannot be read ({error}); copy it again") from None
    return Slide(path, source, partial(open_slide, path, mpp=mpp, icc=icc), mpp)
