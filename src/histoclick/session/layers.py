"""What makes the mask of an object: outlines from a file, answers of the model, strokes of the
brush; and how one comes upon what was there before.

A model sees little beyond the border of its window, and a click is about what is near it. So where
windows overlap, an answer is taken in by the pieces in which it differs from what was there: a
piece that runs out of the window, where another window has said something else about the rest of
it, stays as it was, unless the click lies in it. No border of a window shows in a mask, but where
nobody has looked beyond it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from histoclick.masks import Painter
from histoclick.session.actions import Stroke
from histoclick.session.windows import INNER, Grid, Window
from histoclick.types import HistoclickError, Mask

_HEAD = struct.Struct("<4sqqii")
_MAGIC = b"HCM1"


@dataclass(frozen=True)
class Answer:
    """What a model said of a window. ``packed``: its mask as bits, row by row, compressed."""

    window: Window
    packed: bytes

    @classmethod
    def of(cls, window: Window, mask: Mask) -> Answer:
        """From (window.height, window.width) bool."""
        return cls(window, zlib.compress(np.packbits(mask).tobytes(), 6))

    @property
    def mask(self) -> Mask:
        """(window.height, window.width) bool."""
        height, width = self.window.height, self.window.width
        size = -(-height * width // 8)
        try:
            bits = zlib.decompressobj().decompress(self.packed, size)
        except zlib.error:
            bits = b""
        if len(bits) != size:
            raise HistoclickError("an answer in the store is damaged")
        flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=height * width)
        return flat.reshape(height, width).view(np.bool_)

    def to_bytes(self) -> bytes:
        """For the store."""
        window = self.window
        head = _HEAD.pack(_MAGIC, window.x, window.y, window.width, window.height)
        return head + self.packed

    @classmethod
    def from_bytes(cls, data: bytes) -> Answer:
        """From the store. Raises ``HistoclickError`` for what is no answer."""
        if len(data) < _HEAD.size or not data.startswith(_MAGIC):
            raise HistoclickError("an answer in the store is damaged")
        _, *window = _HEAD.unpack_from(data)
        return cls(Window(*window), data[_HEAD.size :])


@dataclass(frozen=True)
class Painted:
    """Areas that are painted or erased, as by a stroke: together, px of level 0; they may overlap.

    ``seq``: of its event.
    """

    areas: tuple[Polygon | MultiPolygon, ...]
    erase: bool
    seq: int

    @classmethod
    def of(cls, stroke: Stroke, seq: int) -> Painted:
        """All that is not farther from the line of a stroke than its radius.

        A part of it for each piece of the line: to make one shape of a line that crosses itself a
        thousand times takes minutes and gigabytes.
        """
        points = np.array(stroke.points, np.float64)
        points = points[np.append(True, (points[1:] != points[:-1]).any(1))]
        lines = (
            shapely.linestrings(np.stack([points[:-1], points[1:]], axis=1))
            if len(points) > 1
            else shapely.points(points)
        )
        areas = [area for area in shapely.buffer(lines, stroke.radius) if not area.is_empty]
        return cls(tuple(areas), stroke.erase, seq)

    def meets(self, shape: shapely.Geometry) -> bool:
        """Whether it has a point in common with ``shape``, px of level 0."""
        return bool(shapely.intersects(np.array(self.areas, object), shape).any())

    def window(self, grid: Grid) -> Window | None:
        """The smallest window that holds it; ``None`` if it lies outside of the slide."""
        return extent(shapely.GeometryCollection(self.areas), grid)

    def paint(self, grid: Grid, window: Window, mask: Mask) -> None:
        """Into the mask of a window, (window.height, window.width) bool."""
        span = self.window(grid)
        part = None if span is None else window.meet(span)
        if part is not None:
            painter = Painter(self.areas, np.ones(len(self.areas), bool))
            inside = painter.band(grid.rect0(part), part.width, part.height)
            mask[part.within(window)][inside] = not self.erase


@dataclass(frozen=True)
class Base:
    """An outline from a file, px of level 0."""

    shape: Polygon | MultiPolygon

    @cached_property
    def _painter(self) -> Painter:
        return Painter([self.shape], np.array([True]))

    def pixels(self, grid: Grid, window: Window) -> Mask:
        """(window.height, window.width) bool."""
        return self._painter.band(grid.rect0(window), window.width, window.height)


def extent(shape: shapely.Geometry, grid: Grid) -> Window | None:
    """The smallest window of a slide that holds a shape in px of level 0; ``None`` for an empty
    shape, or one beyond the slide."""
    if shape.is_empty:
        return None
    x0, y0, x1, y1 = shape.bounds
    left, top = int(x0 / grid.scale_x), int(y0 / grid.scale_y)
    right, bottom = int(x1 / grid.scale_x) + 1, int(y1 / grid.scale_y) + 1
    whole = Window(0, 0, grid.width, grid.height)
    return Window(left, top, right - left, bottom - top).meet(whole)


def merged(
    before: Mask,
    said: Mask,
    own: NDArray[np.float32],
    trust: NDArray[np.float32],
    beyond: Mask,
    click: tuple[int, int] | None,
) -> Mask:
    """A window's mask after an answer; all arrays but ``beyond`` are of its shape, (h, w).

    ``before``, ``said``: bool. ``own``, ``trust``: float32, how far this window and others are from
    their borders there, 1 well inside, 0 where none looked (see ``trusted``). ``beyond``: (h, w)
    bool, pixels at the window's border behind which others have looked. ``click``: column and row,
    if in it.

    A piece of change stays undone if it reaches ``beyond`` and other windows saw it well, unless
    the click lies in it, it reaches into what nobody had looked at, or it adds to the object and
    the click does so too.
    """
    changed = before != said
    if not (changed & beyond).any():
        return said
    count, piece = cv2.connectedComponents(changed.astype(np.uint8), connectivity=4)
    sizes = np.maximum(np.bincount(piece.ravel(), minlength=count), 1)
    seen = np.bincount(piece.ravel(), trust.ravel(), minlength=count) / sizes
    undone = np.zeros(count, bool)
    undone[piece[changed & beyond]] = True
    undone &= seen > 0.5
    undone[piece[changed & (trust == 0)]] = False
    if click is not None:
        undone[piece[click[1], click[0]]] = False
    undone[0] = False  # what did not change
    result: Mask = np.where(undone[piece], before, said)
    if click is not None and said[click[1], click[0]]:
        # Who asks for more gets it, but for what is at the very border: without this, objects that
        # are larger than a window take many more clicks.
        result |= said & (own > 0.5)
    return result


def trusted(looked: Sequence[Window], grid: Grid, window: Window) -> NDArray[np.float32]:
    """(window.height, window.width) float32 in [0, 1]: how well windows that were ``looked`` at saw
    what is there: 0 at and beyond their borders, 1 from an eighth of their sides inwards. The
    slide's own borders are none."""
    trust = np.zeros((window.height, window.width), np.float32)
    for other in looked:
        part = window.meet(other)
        if part is not None:
            across = _ramp(other.width, other.x > 0, other.x1 < grid.width)
            down = _ramp(other.height, other.y > 0, other.y1 < grid.height)
            rows, columns = part.within(other)
            here = np.minimum(down[rows, None], across[columns])
            trust[part.within(window)] = np.maximum(trust[part.within(window)], here)
    return trust


def bordering(looked: Sequence[Window], window: Window) -> Mask:
    """(window.height, window.width) bool: the pixels at the border of a window next to which
    others, outside, were looked at."""
    around = np.zeros((window.height + 2, window.width + 2), bool)
    frame = Window(window.x - 1, window.y - 1, window.width + 2, window.height + 2)
    for other in looked:
        part = frame.meet(other)
        if part is not None:
            around[part.within(frame)] = True
    border = np.zeros((window.height, window.width), bool)
    border[0] |= around[0, 1:-1]
    border[-1] |= around[-1, 1:-1]
    border[:, 0] |= around[1:-1, 0]
    border[:, -1] |= around[1:-1, -1]
    return border


def _ramp(count: int, begins: bool, ends: bool) -> NDArray[np.float32]:
    place = np.arange(count, dtype=np.float32) + 0.5
    width = count / INNER
    ramp = np.ones(count, np.float32)
    if begins:
        ramp = np.minimum(ramp, place / width)
    if ends:
        ramp = np.minimum(ramp, place[::-1] / width)
    return ramp


def union(*windows: Window | None) -> Window | None:
    """The smallest window around all of them."""
    found: Window | None = None
    for window in windows:
        if window is not None:
            found = window if found is None else found.around(window)
    return found
