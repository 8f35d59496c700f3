"""Pyramids: tiled TIFFs with smaller copies of themselves, written from top to bottom.

Nothing of the size of a slide is held in memory: rows of tiles are encoded as they come; smaller
levels are made on the way and wait, encoded, in temporary files for their turn in the file. Levels
are pages of their own, marked as reduced: OpenSlide ("generic-tiff"), QuPath, ASAP and tifffile all
read that.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import cv2
import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.unsignedinteger[Any]]
Compression = Literal["jpeg", "deflate", "lzw"]

_CLASSIC = 2**32 - 2**28  # bytes of pixels that surely fit into a TIFF with 32-bit offsets
_UM_PER_CM = 10_000


def write_pyramid(
    path: Path,
    width: int,
    height: int,
    bands: Iterable[Rows],
    *,
    mpp: float | None = None,
    compression: Compression | None = None,
    quality: int = 85,
    tile_px: int = 256,
    description: str = "",
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write a pyramidal TIFF: each level is half of the one before, the last one a single tile.

    ``bands``: level 0 from top to bottom in pieces of any height, (h, ``width``, 3) uint8 RGB or
    (h, ``width``) uint8 or uint16 labels, together ``height`` rows. Pixels of smaller levels are
    the mean of four, or the commonest of four labels (in a draw the top left one). Odd sides are
    rounded up. ``mpp``: um per px of level 0. ``compression``: "jpeg" of ``quality`` 1 to 100
    (pictures only, their default), "deflate" (default of labels) or "lzw". ``tile_px``: side of the
    tiles, a multiple of 16. ``progress`` is called with the number of rows just finished.

    Whatever is at ``path`` is replaced at the very end. Raises ``ValueError`` for bands of another
    shape or kind.
    """
    if width < 1 or height < 1 or tile_px < 16 or tile_px % 16:
        raise ValueError(f"no pyramid has {width}x{height} px and tiles of {tile_px} px")
    source = iter(bands)
    first = next(source, np.empty((0, 0), np.uint8))
    kind: Compression = compression or ("jpeg" if first.ndim == 3 else "deflate")
    if first.dtype != np.uint8 and (first.ndim == 3 or first.dtype != np.uint16):
        raise ValueError(f"bands are {first.dtype}; pictures are uint8, labels uint8 or uint16")
    if kind == "jpeg" and first.ndim != 3:
        raise ValueError("jpeg would change labels; use deflate or lzw")

    def encode(tile: Rows) -> bytes:
        return _encode(tile, kind, quality)

    hidden = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with ExitStack() as stack:
        stack.callback(hidden.unlink, missing_ok=True)
        levels = [_Level(width, height, tile_px, encode)]
        while max(levels[-1].width, levels[-1].height) > tile_px:
            spool = stack.enter_context(tempfile.TemporaryFile(dir=path.parent))
            side, other = -(-levels[-1].width // 2), -(-levels[-1].height // 2)
            levels.append(_Level(side, other, tile_px, encode, spool))
        pixel = first.dtype.itemsize * (3 if first.ndim == 3 else 1)
        large = pixel * sum(level.width * level.height for level in levels) > _CLASSIC
        file = stack.enter_context(tifffile.TiffWriter(hidden, bigtiff=large))
        drawn = _draw(levels, chain([first], source), progress)
        for index, level in enumerate(levels):
            file.write(
                level.stored() if index else islice(drawn, None),  # which it does not close
                shape=(level.height, level.width, *first.shape[2:]),
                dtype=first.dtype,
                tile=(tile_px, tile_px),
                subfiletype=int(index > 0),
                description=description if not index else None,
                software="histoclick",
                metadata=None,
                **_tags(kind, first.ndim == 3, mpp and mpp * width / level.width),
            )
            for _ in drawn:  # tifffile asks for no more than it needs: the end is ours
                pass
        file.close()
        hidden.replace(path)


class _Level:
    """One level while it is written. ``spool``: where tiles wait; level 0 goes without."""

    def __init__(
        self,
        width: int,
        height: int,
        tile_px: int,
        encode: Callable[[Rows], bytes],
        spool: IO[bytes] | None = None,
    ) -> None:
        self.width, self.height, self._tile_px = width, height, tile_px
        self._encode, self._spool = encode, spool
        self._sizes: list[int] = []  # of the tiles in the spool, bytes
        self._waiting: list[Rows] = []  # less than a row of tiles
        self._left = height  # rows to come

    def add(self, rows: Rows) -> Iterator[Rows]:
        """Take rows of any number; gives back those of full tiles, and of the last ones."""
        self._left -= len(rows)
        if self._left < 0 or rows.shape[1] != self.width:
            raise ValueError(f"bands do not fit into {self.width}x{self.height} px")
        self._waiting.append(rows)
        have = sum(map(len, self._waiting))
        if have < self._tile_px and self._left:
            return
        joined = np.concatenate(self._waiting) if len(self._waiting) > 1 else rows
        end = have if not self._left else have - have % self._tile_px
        self._waiting = [joined[end:]]
        for start in range(0, end, self._tile_px):
            yield joined[start : min(start + self._tile_px, end)]

    def tiles(self, rows: Rows) -> Iterator[bytes]:
        """Those of one row of tiles, encoded; beyond the border they repeat the last pixels."""
        side = self._tile_px
        for x in range(0, self.width, side):
            tile = rows[:, x : x + side]
            below, right = side - tile.shape[0], side - tile.shape[1]
            yield self._encode(_extended(tile, below, right) if below or right else tile)

    def store(self, tiles: Iterable[bytes]) -> None:
        """Let them wait."""
        assert self._spool
        for tile in tiles:
            self._spool.write(tile)
            self._sizes.append(len(tile))

    def stored(self) -> Iterator[bytes]:
        """What waits, in order."""
        assert self._spool
        self._spool.seek(0)
        for size in self._sizes:
            yield self._spool.read(size)

    @property
    def complete(self) -> bool:
        """Whether all rows came."""
        return not self._left


def _draw(
    levels: list[_Level], bands: Iterable[Rows], progress: Callable[[int], None] | None
) -> Iterator[bytes]:
    """The encoded tiles of level 0; those of the others are stored on the way."""
    for band in bands:
        if len(band):
            for rows in levels[0].add(band):
                _pass_on(rows, levels[1:])
                yield from levels[0].tiles(rows)
                if progress:
                    progress(len(rows))
    if not levels[0].complete:
        raise ValueError(f"bands end before {levels[0].height} rows are full")


def _pass_on(rows: Rows, smaller: list[_Level]) -> None:
    """Give half of ``rows`` to the first level, and so on."""
    if smaller:
        for halved in smaller[0].add(_halved(rows)):
            smaller[0].store(smaller[0].tiles(halved))
            _pass_on(halved, smaller[1:])


def _halved(rows: Rows) -> Rows:
    """A quarter of the pixels: means of a picture, the commonest of labels."""
    height, width = rows.shape[:2]
    rows = _extended(rows, height % 2, width % 2) if height % 2 or width % 2 else rows
    if rows.ndim == 3:
        half = rows.shape[1] // 2, rows.shape[0] // 2
        return np.asarray(cv2.resize(rows, half, interpolation=cv2.INTER_AREA), np.uint8)
    a, b, c, d = rows[::2, ::2], rows[::2, 1::2], rows[1::2, ::2], rows[1::2, 1::2]
    rest = np.where((b == c) | (b == d), b, np.where(c == d, c, a))
    return np.where((a == b) | (a == c) | (a == d), a, rest)


def _extended(rows: Rows, below: int, right: int) -> Rows:
    """With the last row and column repeated."""
    rest: list[tuple[int, int]] = [(0, 0)] * (rows.ndim - 2)
    return np.pad(rows, [(0, below), (0, right), *rest], mode="edge")


def _encode(tile: Rows, compression: Compression, quality: int) -> bytes:
    """One tile as the TIFF holds it."""
    if compression == "jpeg":
        tile = np.ascontiguousarray(tile)
        return bytes(
            imagecodecs.jpeg8_encode(
                tile, level=quality, colorspace="rgb", outcolorspace="ycbcr", subsampling=(2, 2)
            )
        )
    pixels = tile.tobytes()
    if compression == "lzw":
        return bytes(imagecodecs.lzw_encode(pixels))
    return bytes(imagecodecs.deflate_encode(pixels, raw=False))  # with the header of zlib


def _tags(compression: Compression, picture: bool, mpp: float | None) -> dict[str, Any]:
    """What a page says of its pixels."""
    tags: dict[str, Any] = {"compression": compression}
    tags["photometric"] = "rgb" if picture else "minisblack"
    if compression == "jpeg":
        tags |= {"photometric": "ycbcr", "subsampling": (2, 2)}
    if mpp:
        tags |= {"resolution": (_UM_PER_CM / mpp,) * 2, "resolutionunit": "centimeter"}
    return tags
