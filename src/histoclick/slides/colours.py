"""Colour profiles: what scanners mean by their numbers, in sRGB."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

from histoclick.slides.source import Source
from histoclick.types import RGB8


class SrgbSource:
    """Another source with its colours converted to sRGB by its own profile.

    The transform keeps no memory of the last colour (``NOCACHE``), so threads can share it.
    """

    def __init__(self, source: Source, transform: ImageCms.ImageCmsTransform) -> None:
        self._source = source
        self._transform = transform
        self.facts = source.facts
        self.sizes = source.sizes

    def read(self, level: int, x: int, y: int, width: int, height: int) -> RGB8:
        """See ``Source``."""
        picture = Image.fromarray(self._source.read(level, x, y, width, height))
        ImageCms.applyTransform(picture, self._transform, inPlace=True)
        return np.asarray(picture, np.uint8)

    def close(self) -> None:
        """See ``Source``."""
        self._source.close()


def in_srgb(source: Source) -> tuple[Source, tuple[str, ...]]:
    """The source in sRGB, or the same with a note if its profile is missing or unusable."""
    profile = source.facts.icc
    if profile is None:
        return source, ("has no colour profile, so its colours are left as they are",)
    try:
        theirs = ImageCms.getOpenProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(
            theirs, ImageCms.createProfile("sRGB"), "RGB", "RGB", flags=ImageCms.Flags.NOCACHE
        )
    except (ImageCms.PyCMSError, OSError) as error:
        return source, (f"its colour profile cannot be used ({error}), so its colours are left",)
    return SrgbSource(source, transform), ()
