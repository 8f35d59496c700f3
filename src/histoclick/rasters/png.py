"""PNG: decoded as a whole, written a few rows at a time."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from histoclick.rasters.legend import Legend
from histoclick.rasters.source import Indices, Pixels, cut
from histoclick.types import HistoclickError

PNG_BYTES = 400_000_000  # of a decoded image
KEYWORD = "histoclick"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PORTION = 2**24  # px looked at together
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_PALETTE = 3


class PngSource:
    """See ``RasterSource``."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            first, self.width, self.height, depth, kind = struct.unpack(">12x4sIIBB", file.read(26))
            if first != b"IHDR":
                raise ValueError("it does not begin with IHDR")
            self.channels = _CHANNELS[kind]
            # As Pillow holds it: all that is not one number takes four bytes.
            size = self.width * self.height * (4 if self.channels > 1 else 1 + depth // 16)
            if size > PNG_BYTES:
                raise HistoclickError(
                    f"{path}: a PNG of {self.width}x{self.height} px needs {size // 10**6} MB of "
                    f"memory, more than the {PNG_BYTES // 10**6} allowed; save it as a tiled TIFF"
                )
            file.seek(0)
            # Image.open would obey the limit of the whole process, which is lower.
            self._image = PngImageFile(file)
            if getattr(self._image, "is_animated", False):
                raise HistoclickError(f"{path}: is an animation; give a mask with one picture")
            if self._image.size != (self.width, self.height):
                raise ValueError("it says its size twice")
            self._image.load()
        # Pillow spreads grey of 2 and 4 bits over 0 to 255.
        self._step = {2: 85, 4: 17}.get(depth, 1) if kind == 0 else 1
        self.legend = Legend.of(self._image.info.get(KEYWORD))
        if kind == _PALETTE and not self.legend.classes:
            self.legend = Legend.of_palette(
                np.array(self._image.getpalette("RGB")).reshape(-1, 3).tolist()
            )

    def pick(self, rows: Indices, columns: Indices) -> Pixels:
        """See ``RasterSource``."""
        left, right = int(columns[0]), int(columns[-1]) + 1
        portion = rows // max(1, _PORTION // (right - left))
        found = []
        for group in np.split(rows, np.flatnonzero(np.diff(portion)) + 1):
            top, bottom = int(group[0]), int(group[-1]) + 1
            pixels = np.asarray(self._image.crop((left, top, right, bottom)))
            found.append(cut(pixels, group - top, columns - left))
        whole = np.concatenate(found) if len(found) > 1 else found[0]
        if whole.dtype == np.bool_:
            return whole.view(np.uint8) > 0  # Pillow's True is 255, which numpy does not expect
        return whole // self._step if self._step > 1 else whole

    def close(self) -> None:
        """See ``RasterSource``."""
        self._image.close()


def write_png(
    path: Path, width: int, height: int, bands: Iterable[NDArray[Any]], legend: Legend
) -> None:
    """Write a grey PNG of (h, ``width``) uint8 or uint16 bands, from top to bottom."""
    with path.open("wb") as file:
        file.write(SIGNATURE)
        stream, above = zlib.compressobj(6), None
        for band in filter(len, bands):
            if above is None:
                header = struct.pack(">IIBBBBB", width, height, 8 * band.itemsize, 0, 0, 0, 0)
                _chunk(file, b"IHDR", header)
                _chunk(file, b"tEXt", KEYWORD.encode() + b"\0" + legend.text().encode("ascii"))
                above = np.zeros((1, width * band.itemsize), np.uint8)
            rows = band.astype(band.dtype.newbyteorder(">")).view(np.uint8)
            # Filter 2: the difference to the row above, which mostly is 0.
            lines = np.full((len(rows), rows.shape[1] + 1), 2, np.uint8)
            lines[:, 1:] = rows - np.concatenate([above, rows[:-1]])
            above = rows[-1:]
            _chunk(file, b"IDAT", stream.compress(lines.tobytes()))
        _chunk(file, b"IDAT", stream.flush())
        _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    if data or kind == b"IEND":
        file.write(struct.pack(">I", len(data)) + kind + data)
        file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))
