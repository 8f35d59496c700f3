"""Slides as DeepZoom tiles, which is what OpenSeadragon shows.

Level k of n halves level 0 of the slide n - k times; each tile is ``TILE`` px wide, with
``OVERLAP`` px of its neighbours around it.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict

import cv2

from histoclick.geometry import Rect
from histoclick.slides import Slide
from histoclick.types import RGB8

TILE = 510
OVERLAP = 1
QUALITY = 80  # of JPEG
THUMBNAIL = 512


def max_level(width: int, height: int) -> int:
    """The level that shows level 0 of the slide as it is; level 0 of DeepZoom is one pixel."""
    return math.ceil(math.log2(max(width, height, 1)))


def level_size(width: int, height: int, level: int) -> tuple[int, int]:
    """(width, height) in px of a DeepZoom level."""
    scale = 2 ** (max_level(width, height) - level)
    return -(-width // scale), -(-height // scale)


def descriptor(width: int, height: int) -> str:
    """The .dzi file."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" '
        f'Format="jpeg" Overlap="{OVERLAP}" TileSize="{TILE}">'
        f'<Size Height="{height}" Width="{width}"/></Image>'
    )


def pixels(slide: Slide, level: int, column: int, row: int) -> RGB8:
    """(H, W, 3) uint8 RGB of one tile. Raises ``IndexError`` for one that does not exist."""
    top_level = max_level(slide.width, slide.height)
    if not 0 <= level <= top_level:
        raise IndexError(f"level {level}: there are 0 to {top_level}")
    scale = 2 ** (top_level - level)
    width, height = level_size(slide.width, slide.height, level)
    left, right = _span(column, width)
    top, bottom = _span(row, height)
    columns, rows = right - left, bottom - top
    rect0 = Rect(left * scale, top * scale, columns * scale, rows * scale)
    return slide.read(rect0, columns, rows)


def _span(index: int, size_px: int) -> tuple[int, int]:
    """Where a tile begins and ends along one side, its overlap included."""
    if not 0 <= index * TILE < size_px:
        raise IndexError(f"tile {index}: there are {-(-size_px // TILE)}")
    return max(0, index * TILE - OVERLAP), min(size_px, (index + 1) * TILE + OVERLAP)


def jpeg(picture: RGB8) -> bytes:
    """A picture (H, W, 3) uint8 RGB as JPEG."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


class TileCache:
    """JPEGs, as many as fit into ``max_bytes``, least recently used ones dropped. Thread-safe."""

    def __init__(self, max_bytes: int = 128 << 20) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._jpegs: OrderedDict[str, bytes] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes of the pictures that are kept."""
        return self._bytes

    def get(self, key: str) -> bytes | None:
        """The picture, if it is kept."""
        with self._lock:
            if key in self._jpegs:
                self._jpegs.move_to_end(key)
            return self._jpegs.get(key)

    def put(self, key: str, picture: bytes) -> None:
        """Keep a picture."""
        with self._lock:
            self._bytes += len(picture) - len(self._jpegs.pop(key, b""))
            self._jpegs[key] = picture
            while self._bytes > self._max_bytes:
                self._bytes -= len(self._jpegs.popitem(last=False)[1])
