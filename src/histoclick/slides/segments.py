"""One level of a TIFF: a grid of tiles or strips, of which a region decodes only what it needs."""

from __future__ import annotations

import io
import math
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC

from histoclick.types import RGB8

CACHE_BYTES = 64_000_000  # decoded tiles and strips; OpenSlide keeps half of that
MAX_SEGMENT = 64_000_000  # px of one tile or strip
PACKED = {
    COMPRESSION.NONE, COMPRESSION.LZW, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE,
    COMPRESSION.PACKBITS, COMPRESSION.ZSTD, COMPRESSION.ZSTD_DEPRECATED, COMPRESSION.LZMA,
}  # fmt: skip
PICTURES = {
    COMPRESSION.JPEG, COMPRESSION.JPEG2000, COMPRESSION.APERIO_JP2000_RGB, COMPRESSION.WEBP,
}  # fmt: skip
COLOURS = {
    PHOTOMETRIC.RGB: (3, 4), PHOTOMETRIC.YCBCR: (3,), PHOTOMETRIC.MINISBLACK: (1, 2, 3),
    PHOTOMETRIC.MINISWHITE: (1,), PHOTOMETRIC.PALETTE: (1,),
}  # fmt: skip


class Unreadable(Exception):
    """What is wrong with a TIFF and how to mend it, to go behind its name."""


class SegmentCache:
    """Reads and decodes segments of one file, and keeps the last ones. Any thread may ask."""

    def __init__(self, file: tifffile.FileHandle) -> None:
        self._file = file
        self._file_lock = threading.Lock()
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0

    def get(self, page: tifffile.TiffPage, index: int) -> NDArray[np.uint8] | None:
        """(h, w, samples) as stored, or ``None`` for a segment that was left out."""
        key = (page.offset, index)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not offset or not count:
            return None
        with self._file_lock:
            self._file.seek(offset)
            data = self._file.read(count)
        segment = _decode(page, index, data)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = segment
                self._bytes += segment.nbytes
            while self._bytes > CACHE_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return segment


class TiffLevel:
    """One resolution. ``pages``: one with all samples, or one per sample."""

    def __init__(self, pages: list[tifffile.TiffPage], cache: SegmentCache) -> None:
        self.page = pages[0]
        self.width, self.height = int(self.page.imagewidth), int(self.page.imagelength)
        self._cache = cache
        self._tile_width, self._tile_height = _segment_size(self.page)
        self._across = math.ceil(self.width / self._tile_width)
        per_plane = self._across * math.ceil(self.height / self._tile_height)
        planes = int(self.page.samplesperpixel) if _separate(self.page) else 1
        self._planes = [(page, plane * per_plane) for page in pages for plane in range(planes)]
        self._samples = len(pages) * int(self.page.samplesperpixel)
        self._mapped = _mapped(self.page) if len(self._planes) == 1 else None
        for page in pages:
            _check(page, self._samples, mapped=self._mapped is not None)

    def read(self, x: int, y: int, width: int, height: int) -> RGB8:
        """(height, width, 3) uint8 RGB over white."""
        if self._mapped is not None:
            return _to_rgb(self._mapped[y : y + height, x : x + width], self.page)
        empty = 0 if self.page.photometric == PHOTOMETRIC.MINISWHITE else 255
        result = np.full((height, width, self._samples), empty, np.uint8)
        per_plane = self._samples // len(self._planes)
        for number, (page, first) in enumerate(self._planes):
            part = result[..., number * per_plane : (number + 1) * per_plane]
            for row in range(y // self._tile_height, (y + height - 1) // self._tile_height + 1):
                for column in range(x // self._tile_width, (x + width - 1) // self._tile_width + 1):
                    segment = self._cache.get(page, first + row * self._across + column)
                    if segment is not None:
                        left, top = column * self._tile_width - x, row * self._tile_height - y
                        _paste(segment, part, left, top)
        return _to_rgb(result, self.page)


def _paste(segment: NDArray[np.uint8], into: NDArray[np.uint8], left: int, top: int) -> None:
    """Put the part of ``segment`` that lies within ``into`` where it belongs."""
    right = min(left + segment.shape[1], into.shape[1])
    bottom = min(top + segment.shape[0], into.shape[0])
    x, y = max(left, 0), max(top, 0)
    if x < right and y < bottom:
        into[y:bottom, x:right] = segment[y - top : bottom - top, x - left : right - left]


def _segment_size(page: tifffile.TiffPage) -> tuple[int, int]:
    """(width, height) in px of a tile or strip."""
    if page.is_tiled:
        return int(page.tilewidth), int(page.tilelength)
    return int(page.imagewidth), min(int(page.rowsperstrip), int(page.imagelength))


def _decode(page: tifffile.TiffPage, index: int, data: bytes) -> NDArray[np.uint8]:
    """(h, w, samples) uint8. Refuses data that would become larger than the TIFF says."""
    if page.compression in PICTURES:
        width, height = _segment_size(page)
        with Image.open(io.BytesIO(data), formats=("JPEG", "JPEG2000", "WEBP")) as picture:
            if picture.width > width or picture.height > height:
                raise Unreadable(
                    f"damaged (a tile of {picture.width}x{picture.height} px where {width}x{height}"
                    " belong); export it again"
                )
    decoded: NDArray[Any] = page.decode(
        data, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader
    )[0]
    segment: NDArray[np.uint8] = decoded[0].astype(np.uint8)
    return segment * np.uint8(255) if page.dtype == np.bool_ else segment


def _mapped(page: tifffile.TiffPage) -> NDArray[np.uint8] | None:
    """The (H, W, samples) pixels where they lie in the file, if they are not compressed."""
    file = page.parent.filehandle
    shape = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    if page.dtype != np.uint8 or not page.is_memmappable:
        return None
    offset = int(page.dataoffsets[0])
    if not offset or offset + math.prod(shape) > file.size:
        return None
    return np.memmap(file.path, np.uint8, "r", offset, shape)


def _check(page: tifffile.TiffPage, samples: int, *, mapped: bool) -> None:
    """Raise ``Unreadable`` for what cannot be read, before anybody tries."""
    if not page.imagewidth or not page.imagelength:
        raise Unreadable("says that it has no pixels; export it again")
    if page.dtype is None or page.dtype not in (np.uint8, np.bool_):
        bits = page.bitspersample
        raise Unreadable(f"has {bits} bits per channel; save it with 8 bits")
    if page.compression not in PACKED | PICTURES:
        name = getattr(page.compression, "name", page.compression)
        raise Unreadable(
            f"its TIFF compression {name} is not supported; export it with JPEG, deflate or LZW"
        )
    photometric = page.photometric
    mixed = photometric == PHOTOMETRIC.YCBCR and page.compression != COMPRESSION.JPEG
    if mixed or samples not in COLOURS.get(photometric, ()):
        name = getattr(photometric, "name", photometric)
        raise Unreadable(f"has {samples} channels of type {name}; export it as RGB with 8 bits")
    check_end(page)
    if not mapped:
        check_segments(page)


def check_segments(page: tifffile.TiffPage) -> None:
    """Raise ``Unreadable`` if there are not enough tiles or strips, or if they are monsters."""
    width, height = _segment_size(page)
    if width * height > MAX_SEGMENT:
        raise Unreadable(
            f"is stored in pieces of {width}x{height} px, too large to read a region of; export it "
            "with tiles of 256 or 512 px"
        )
    planes = int(page.samplesperpixel) if _separate(page) else 1
    count = planes * math.ceil(page.imagewidth / width) * math.ceil(page.imagelength / height)
    there = min(len(page.dataoffsets), len(page.databytecounts))
    if there < count:
        raise Unreadable(
            f"says {page.imagewidth}x{page.imagelength} px but has only {there} of {count} tiles "
            "or strips; export it again"
        )


def check_end(page: tifffile.TiffPage) -> None:
    """Raise ``Unreadable`` if pixels lie beyond the end of the file."""
    offsets, counts = page.dataoffsets, page.databytecounts
    if not offsets or len(offsets) != len(counts):
        return
    end = int((np.array(offsets, np.uint64) + np.array(counts, np.uint64)).max())
    size = page.parent.filehandle.size
    if end > size:
        raise Unreadable(
            f"cut off (its pixels end at byte {end}, the file at {size}); copy or download it again"
        )


def _separate(page: tifffile.TiffPage) -> bool:
    """Whether each sample has tiles or strips of its own."""
    return bool(page.planarconfig == tifffile.PLANARCONFIG.SEPARATE)


def _to_rgb(pixels: NDArray[np.uint8], page: tifffile.TiffPage) -> RGB8:
    """(H, W, 3) uint8 over white, of (H, W, samples) as stored."""
    samples = pixels.shape[2]
    if samples in (2, 4):
        colours = np.broadcast_to(pixels[..., :-1], (*pixels.shape[:2], 3))
        return _over_white(colours, pixels[..., -1:], page)
    if samples == 3:
        return np.ascontiguousarray(pixels)
    grey = pixels[..., 0]
    if page.photometric == PHOTOMETRIC.PALETTE:
        table: RGB8 = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
        return np.asarray(table[np.minimum(grey, len(table) - 1)], np.uint8)
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        grey = ~grey
    return np.repeat(grey[..., None], 3, axis=2)


def _over_white(
    colours: NDArray[np.uint8], alpha: NDArray[np.uint8], page: tifffile.TiffPage
) -> RGB8:
    """(H, W, 3) uint8. ``colours``: (H, W, 3); ``alpha``: (H, W, 1), if the TIFF says it is one."""
    kind = page.extrasamples[0] if page.extrasamples else EXTRASAMPLE.UNSPECIFIED
    if kind == EXTRASAMPLE.UNSPECIFIED:
        return np.ascontiguousarray(colours)
    if kind == EXTRASAMPLE.ASSOCALPHA:  # colours are multiplied by it already
        sums = colours + (255 - alpha.astype(np.uint16))
        return np.asarray(np.minimum(sums, 255), np.uint8)
    share = alpha.astype(np.float32) / 255
    result: RGB8 = np.rint(colours * share + 255 * (1 - share)).astype(np.uint8)
    return result
