"""Label images: PNG and TIFF files whose pixels name classes, larger than memory if need be.

Coordinates are px of the image, pixel-corner. Numbers are read as they are, also those of a
palette. In colour masks every colour but black is a class. What compression may have changed, what
has decimals or several pictures is no label image and refused; so is what claims more than it
holds, before it costs time or memory.
"""

from __future__ import annotations

from pathlib import Path

from histoclick.rasters.labelimage import LabelImage
from histoclick.rasters.legend import LabelClass, Legend
from histoclick.rasters.png import PNG_BYTES, PngSource, write_png
from histoclick.rasters.source import told
from histoclick.rasters.tiff import TiffSource
from histoclick.types import HistoclickError

__all__ = [
    "PNG_BYTES",
    "LabelClass",
    "LabelImage",
    "Legend",
    "is_raster",
    "open_raster",
    "write_png",
]

PNG = b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_raster(start: bytes) -> bool:
    """Whether a file that starts with these bytes calls itself a PNG or a TIFF."""
    return start.startswith((PNG, *TIFF))


def open_raster(path: Path) -> LabelImage:
    """Open a label image. Raises ``HistoclickError`` for what is none, or is damaged."""
    with told(path):
        with path.open("rb") as file:
            start = file.read(8)
        if start.startswith(PNG):
            return LabelImage(path, PngSource(path))
        if start.startswith(TIFF):
            return LabelImage(path, TiffSource(path))
    raise HistoclickError(f"{path}: neither a PNG nor a TIFF; give a mask in one of these formats")
