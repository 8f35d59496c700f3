"""Pictures that programs send: looked at before they are decoded, and bounded."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, UnidentifiedImageError

from histoclick.session.windows import Window
from histoclick.types import RGB8, HistoclickError

FORMATS = ("PNG", "JPEG")  # others start programs, or are films
MAX_PIXELS = 20_000_000  # more than any screen; some 140 MB while it is decoded
MAX_BYTES = 50_000_000  # of the file
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


@dataclass(frozen=True)
class Picture:
    """A picture of a stranger: its header has been read, its pixels only when they are needed.

    ``data``: the file. ``key``: names its content for good. ``width``, ``height``: px.
    """

    data: bytes
    key: str
    width: int
    height: int

    @classmethod
    def of_base64(cls, text: str) -> Picture:
        """From base64 without any prefix. Raises ``HistoclickError`` as ``of_bytes``."""
        if len(text) > MAX_BYTES * 4 // 3 + 4:
            raise _too_large(f"more than {MAX_BYTES // 10**6} MB")
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise HistoclickError(
                "the picture is not base64; send the bytes of a PNG as base64, without a prefix"
            ) from None
        return cls.of_bytes(data)

    @classmethod
    def of_bytes(cls, data: bytes) -> Picture:
        """From the bytes of a PNG or JPEG. Raises ``HistoclickError`` for anything else, and for a
        picture that is too large."""
        if len(data) > MAX_BYTES:
            raise _too_large(f"more than {MAX_BYTES // 10**6} MB")
        with _opened(data) as image:
            width, height = image.size
            if image.mode.startswith(("I", "F")):
                raise HistoclickError(
                    "the picture has more than 8 bits per channel; send it as 8-bit RGB"
                )
        return cls(data, hashlib.sha256(data).hexdigest(), width, height)

    @cached_property
    def pixels(self) -> RGB8:
        """(height, width, 3) uint8: grey in three channels, without alpha. Raises
        ``HistoclickError`` for a damaged file."""
        with _opened(self.data) as image:
            try:
                image.load()
                return np.array(image.convert("RGB"), np.uint8)
            except _BROKEN as error:
                raise _damaged(error) from None

    def part(self, window: Window) -> RGB8:
        """The pixels of a window."""
        return np.ascontiguousarray(self.pixels[window.y : window.y1, window.x : window.x1])


def _opened(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise HistoclickError("the picture is neither PNG nor JPEG; send a PNG") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large("far too many pixels") from None
    except _BROKEN as error:
        raise _damaged(error) from None
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"{image.width}x{image.height} px")
    return image


def _too_large(what: str) -> HistoclickError:
    return HistoclickError(
        f"the picture is too large ({what}); send at most {MAX_PIXELS // 10**6} million pixels, "
        "such as a smaller view"
    )


def _damaged(error: Exception) -> HistoclickError:
    reason = f"{error}".strip().partition("\n")[0] or type(error).__name__
    return HistoclickError(f"the picture is cut off or damaged ({reason}); send it again")
