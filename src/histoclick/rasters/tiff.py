"""TIFF: level 0, mapped if it lies in the file as it is, else decoded piece by piece."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from histoclick.rasters.legend import TEXT_BYTES, Legend
from histoclick.rasters.source import Indices, Pixels, cut
from histoclick.types import HistoclickError

SEGMENT_BYTES = 2**29  # of a decoded row of tiles, or of a strip
MAX_PX = 50_000_000_000
MAX_LEVELS = 32
MINISWHITE, MINISBLACK, RGB, PALETTE = range(4)
# None, three of CCITT, LZW, deflate by its two numbers, PackBits, Zstandard.
LOSSLESS = (1, 2, 3, 4, 5, 8, 32946, 32773, 50000)


class TiffSource:
    """See ``RasterSource``. Of decoded tiles those of one row are kept, for the next rows."""

    def __init__(self, path: Path) -> None:
        self._file = tifffile.TiffFile(path)
        try:
            self._page = page = _checked(path, self._file)
            self.width, self.height = page.imagewidth, page.imagelength
            self.channels = page.samplesperpixel
            self._mapped = _mapped(path, page)
        except BaseException:
            self._file.close()
            raise
        self._size = _segment(page)
        self._row = -1
        self._decoded: dict[int, Pixels | None] = {}
        description = page.tags.get(270)
        readable = description is not None and description.count <= TEXT_BYTES
        self.legend = Legend.of(description.value) if readable else Legend()
        if page.photometric == PALETTE and not self.legend.classes and page.colormap is not None:
            self.legend = Legend.of_palette((np.asarray(page.colormap).T >> 8).tolist())

    def pick(self, rows: Indices, columns: Indices) -> Pixels:
        """See ``RasterSource``."""
        if self._mapped is not None:
            return np.ascontiguousarray(cut(self._mapped, rows, columns))
        high, wide = self._size
        shape = (len(rows), len(columns), *([self.channels] if self.channels > 1 else []))
        found = np.zeros(shape, self._page.dtype)
        for rows_at, row in _groups(rows, high):
            for columns_at, column in _groups(columns, wide):
                pixels = self._segment(row, column)
                if pixels is not None:
                    found[rows_at, columns_at] = cut(
                        pixels, rows[rows_at] - row * high, columns[columns_at] - column * wide
                    )
        if self._page.photometric == MINISWHITE:
            found = ~found
        return found

    def close(self) -> None:
        """See ``RasterSource``."""
        self._mapped = None
        self._file.close()

    def _segment(self, row: int, column: int) -> Pixels | None:
        """A decoded tile or strip; ``None`` for one that the file leaves out."""
        if row != self._row:
            self._row, self._decoded = row, {}
        if column not in self._decoded:
            index = row * -(-self.width // self._size[1]) + column
            count = self._page.databytecounts[index]
            pixels = None
            if count:
                self._file.filehandle.seek(self._page.dataoffsets[index])
                data = self._file.filehandle.read(count)
                pixels, _, _ = self._page.decode(data, index)
                pixels = pixels[0] if self.channels > 1 else pixels[0, :, :, 0]
            self._decoded[column] = pixels
        return self._decoded[column]


def _checked(path: Path, file: tifffile.TiffFile) -> Any:
    """The page of level 0, once it is known to be a label image that keeps its promises."""
    page = file.pages[0]
    width, height = page.imagewidth, page.imagelength
    if width < 1 or height < 1 or width * height > MAX_PX:
        raise HistoclickError(f"{path}: says it has {width}x{height} px, which cannot be")
    if page.dtype is None or page.dtype.kind not in "bui":
        raise HistoclickError(
            f"{path}: its pixels are {page.dtype or 'of an unknown kind'}; a mask has whole numbers"
        )
    if page.compression not in LOSSLESS:
        name = getattr(page.compression, "name", page.compression)
        raise HistoclickError(
            f"{path}: is compressed with {name}, which may change values; save the mask with "
            "deflate or LZW"
        )
    kinds = {1: (MINISBLACK, PALETTE), 2: (MINISBLACK,), 3: (RGB,), 4: (RGB,)}
    kind = page.photometric
    bilevel = kind == MINISWHITE and page.dtype.kind == "b" and page.samplesperpixel == 1
    bytewise = page.samplesperpixel < 3 or page.dtype == np.uint8
    if not bilevel and (kind not in kinds.get(page.samplesperpixel, ()) or not bytewise):
        raise HistoclickError(
            f"{path}: its pixels have {page.samplesperpixel} channels of {page.dtype} "
            f"({getattr(kind, 'name', kind)}); give a mask with one number, or one RGB colour of 8 "
            "bits, for each class"
        )
    if page.imagedepth != 1 or (page.samplesperpixel > 1 and page.planarconfig != 1):
        raise HistoclickError(f"{path}: its channels lie one after the other; save them together")
    _check_segments(path, page, file.filehandle.size)
    for number, other in enumerate(islice(file.pages, 1, MAX_LEVELS + 1), 2):
        w, h = other.imagewidth, other.imagelength
        if w >= width or h > height or abs(w * height - h * width) > 2 * (width + height):
            raise HistoclickError(
                f"{path}: its page {number} ({w}x{h} px) is no smaller copy of the first "
                f"({width}x{height} px); give a file with one mask"
            )
    return page


def _check_segments(path: Path, page: Any, file_bytes: int) -> None:
    """Whether tiles or strips are all there, inside the file, and fit into memory."""
    high, wide = _segment(page)
    across, down = -(-page.imagewidth // wide), -(-page.imagelength // high)
    offsets, counts = (np.array(v, np.int64) for v in (page.dataoffsets, page.databytecounts))
    pixel = page.dtype.itemsize * page.samplesperpixel
    if len(offsets) != len(counts) or len(offsets) < across * down:
        raise HistoclickError(
            f"{path}: says it has {page.imagewidth}x{page.imagelength} px, but holds "
            f"{min(len(offsets), len(counts))} of {across * down} tiles or strips; export it again"
        )
    if (counts < 0).any() or (offsets < 0).any() or (offsets + counts > file_bytes).any():
        raise HistoclickError(f"{path}: ends before its last pixel; copy it again")
    if page.compression == 1:
        rows = (
            np.full(down, high)
            if page.is_tiled
            else np.diff(np.minimum(np.arange(down + 1) * high, page.imagelength))
        )
        bits = page.bitspersample * page.samplesperpixel
        wanted = np.repeat(rows * -(-wide * bits // 8), across)
        held = counts[: across * down]
        if ((held < wanted) & (held > 0)).any():
            raise HistoclickError(
                f"{path}: says it has {page.imagewidth}x{page.imagelength} px, but holds fewer; "
                "export it again"
            )
    if not _lies_as_it_is(page) and high * across * wide * pixel > SEGMENT_BYTES:
        raise HistoclickError(
            f"{path}: has to be decoded in pieces of {high * across * wide * pixel / 1e6:.0f} MB, "
            f"more than the {SEGMENT_BYTES / 1e6:.0f} allowed; save it with tiles of 512 px"
        )


def _segment(page: Any) -> tuple[int, int]:
    """Height and width of its tiles or strips, px."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return max(1, min(int(page.rowsperstrip), page.imagelength)), int(page.imagewidth)


def _lies_as_it_is(page: Any) -> bool:
    """Whether the pixels lie in the file one after the other, as in memory."""
    return bool(page.is_memmappable and not page.is_tiled and page.dtype.kind != "b")


def _mapped(path: Path, page: Any) -> NDArray[Any] | None:
    """The pixels where they lie in the file, if they lie there as they are."""
    if not _lies_as_it_is(page):
        return None
    channels = page.samplesperpixel
    shape = (page.imagelength, page.imagewidth, *([channels] if channels > 1 else []))
    dtype = page.dtype.newbyteorder(page.parent.byteorder)
    return np.memmap(path, dtype, "r", page.dataoffsets[0], shape)


def _groups(index: Indices, size: int) -> list[tuple[slice, int]]:
    """Runs of positions in ``index`` that lie in one piece of ``size``, and which piece."""
    piece = index // size
    starts = np.flatnonzero(np.diff(piece, prepend=-1))
    ends = np.append(starts[1:], len(index))
    return [
        (slice(a, b), p)
        for a, b, p in zip(starts.tolist(), ends.tolist(), piece[starts].tolist(), strict=True)
    ]
