"""Plain pictures as slides of one level: PNG, JPEG, BMP, WebP, JPEG 2000."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from histoclick.slides.resolution import believable, from_dots
from histoclick.slides.source import Facts
from histoclick.types import RGB8, HistoclickError

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "JPEG2000")  # others start programs, or are films
MAX_PIXELS = 89_000_000  # below what Pillow warns of; 0.6 GB while it is decoded
DEEP = ("I;16", "I;16B", "I;16L", "I", "F")
QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class PictureSource:
    """A picture, decoded when it is opened: an array that nobody changes needs no lock."""

    def __init__(self, path: Path) -> None:
        self._pixels, self.facts = _decode(path)
        height, width = self._pixels.shape[:2]
        self.sizes: tuple[tuple[int, int], ...] = ((width, height),)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> RGB8:
        """See ``Source``."""
        return self._pixels[y : y + height, x : x + width].copy()

    def close(self) -> None:
        """See ``Source``."""


def _decode(path: Path) -> tuple[RGB8, Facts]:
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise _too_large(path, f"{picture.width}x{picture.height} px are too many")
            _refuse_deep(path, picture)
            picture.load()
            facts = _facts(picture)
            return _over_white(ImageOps.exif_transpose(picture)), facts
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path, "too many pixels") from None
    except UnidentifiedImageError:
        raise HistoclickError(
            f"{path}: no reader knows it, so it is damaged or neither a slide nor a picture; copy "
            "it again, or export it as pyramidal TIFF or PNG"
        ) from None
    except (OSError, SyntaxError, ValueError, struct.error, EOFError) as error:
        reason = f"{error}".strip().partition("\n")[0] or type(error).__name__
        raise HistoclickError(f"{path}: cut off or damaged ({reason}); copy it again") from None


def _too_large(path: Path, what: str) -> HistoclickError:
    return HistoclickError(
        f"{path}: {what} for a plain picture, which has to fit in memory; make it a pyramidal TIFF "
        f"with: vips tiffsave {path.name} {path.stem}.tif --tile --pyramid --compression jpeg"
    )


def _refuse_deep(path: Path, picture: Image.Image) -> None:
    """Pillow silently reduces 16-bit colour PNGs to 8 bits; their raw mode still tells."""
    tiles = getattr(picture, "tile", ())
    raw_mode = tiles[0][3] if tiles else None
    raw_mode = raw_mode[0] if isinstance(raw_mode, tuple) and raw_mode else raw_mode
    if picture.mode in DEEP or (isinstance(raw_mode, str) and ";16" in raw_mode):
        raise HistoclickError(f"{path}: more than 8 bits per channel; save it with 8 bits")


def _over_white(picture: Image.Image) -> RGB8:
    """(H, W, 3) uint8."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, rgba)
    return np.array(picture.convert("RGB"), np.uint8)


def _facts(picture: Image.Image) -> Facts:
    dots = picture.info.get("dpi", (0, 0))
    x, y = (from_dots(float(value), "inch") for value in dots[:2])
    if picture.getexif().get(ExifTags.Base.Orientation) in QUARTER_TURNS:
        x, y = y, x
    mpp_x, mpp_y, notes = believable(x, y)
    icc = picture.info.get("icc_profile")
    name = (picture.format or "picture").lower()
    return Facts(format=name, mpp_x=mpp_x, mpp_y=mpp_y, icc=icc or None, notes=notes)
