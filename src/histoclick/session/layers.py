"""What lies on top of each other in an object's mask: outlines from a file, answers of the model,
strokes of the brush.

Answers are kept as logits, so that where two windows overlap one fades into the other: near the
border of a window the model sees only half of what it should, and what another window said there
counts more. So no border of a window shows in a mask, except where nothing was ever looked at.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import LineString, MultiPolygon, Polygon
from shapely.geometry import Point

from histoclick.masks import Painter, rasterise
from histoclick.session.actions import Stroke
from histoclick.session.windows import INNER, Grid, Window
from histoclick.types import HistoclickError, Logits, Mask

STEPS = 4  # per unit of logits: enough to fade with, and small to keep
FADE = INNER  # an answer fades in over this part of its window: no click lies there
SURE = 8.0  # logits of what a person drew; those of a model are cut there
_HEAD = struct.Struct("<4sqqii")
_MAGIC = b"HCL1"


@dataclass(frozen=True)
class Answer:
    """Logits of a window. ``packed``: (window.height, window.width) int8 in steps of 1/4, with
    the sign that they had, compressed."""

    window: Window
    packed: bytes

    @classmethod
    def of(cls, window: Window, logits: Logits) -> Answer:
        """From (window.height, window.width) float32."""
        steps = np.clip(np.rint(logits * STEPS), -SURE * STEPS, SURE * STEPS)
        steps = np.where(logits > 0, np.maximum(steps, 1), np.minimum(steps, 0))
        return cls(window, zlib.compress(steps.astype(np.int8).tobytes(), 1))

    def logits(self) -> Logits:
        """(window.height, window.width) float32; > 0 exactly where the model's were. Not kept,
        because packed it takes a fiftieth of the memory."""
        size = self.window.width * self.window.height
        raw = zlib.decompressobj().decompress(self.packed, size)
        if len(raw) != size:
            raise HistoclickError("an answer in the store is damaged")
        steps = np.frombuffer(raw, np.int8).reshape(self.window.height, self.window.width)
        return steps.astype(np.float32) / np.float32(STEPS)

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
        _, x, y, width, height = _HEAD.unpack_from(data)
        return cls(Window(x, y, width, height), data[_HEAD.size :])

    def weights(self, grid: Grid) -> NDArray[np.float32]:
        """(window.height, window.width) float32 in (0, 1]: 1 but near borders, which the slide's
        own are not."""
        window = self.window
        across = _ramp(window.width, window.x > 0, window.x1 < grid.width)
        down = _ramp(window.height, window.y > 0, window.y1 < grid.height)
        return np.minimum(down[:, None], across)


def _ramp(count: int, begins: bool, ends: bool) -> NDArray[np.float32]:
    place = np.arange(count, dtype=np.float32) + 0.5
    width = count / FADE
    ramp = np.ones(count, np.float32)
    if begins:
        ramp = np.minimum(ramp, place / width)
    if ends:
        ramp = np.minimum(ramp, place[::-1] / width)
    cubed: NDArray[np.float32] = ramp**3  # the outermost px hardly count, also of many windows
    return cubed


@dataclass(frozen=True)
class Painted:
    """A stroke of the brush or the eraser. ``area``: where, px of level 0. ``seq``: its event's."""

    area: Polygon | MultiPolygon
    erase: bool
    seq: int

    @classmethod
    def of(cls, stroke: Stroke, seq: int) -> Painted:
        """The area of a stroke: all that is not farther than its radius from its line."""
        points = stroke.points
        line = LineString(points) if len(set(points)) > 1 else Point(points[0])
        return cls(line.buffer(stroke.radius), stroke.erase, seq)

    def window(self, grid: Grid) -> Window | None:
        """The smallest window that holds it; ``None`` if it lies outside of the slide."""
        return extent(self.area, grid)


def extent(shape: shapely.Geometry, grid: Grid) -> Window | None:
    """The smallest window of a slide that holds a shape in px of level 0."""
    x0, y0, x1, y1 = shape.bounds
    left, top = int(x0 / grid.scale_x), int(y0 / grid.scale_y)
    right, bottom = int(x1 / grid.scale_x) + 1, int(y1 / grid.scale_y) + 1
    whole = Window(0, 0, grid.width, grid.height)
    return Window(left, top, right - left, bottom - top).meet(whole)


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


@dataclass(frozen=True)
class Layers:
    """``base``: an outline from a file, if the object began with one. ``answers``: oldest first,
    one for each window. ``strokes``: oldest first; they lie on top of all answers, because what was
    painted by hand shall stay."""

    base: Base | None = None
    answers: tuple[Answer, ...] = ()
    strokes: tuple[Painted, ...] = ()

    def answering(self, answer: Answer) -> Layers:
        """With an answer on top, in the place of an older one of the same window."""
        others = tuple(each for each in self.answers if each.window != answer.window)
        return Layers(self.base, (*others, answer), self.strokes)

    def painting(self, painted: Painted) -> Layers:
        """With one more stroke."""
        return Layers(self.base, self.answers, (*self.strokes, painted))

    def releasing(self, x0: float, y0: float, positive: bool) -> Layers:
        """Without the strokes that say the opposite of a click at a point in px of level 0."""
        point = Point(x0, y0)
        kept = tuple(
            each for each in self.strokes if each.erase != positive or not each.area.covers(point)
        )
        return self if len(kept) == len(self.strokes) else Layers(self.base, self.answers, kept)

    def windows(self) -> tuple[Window, ...]:
        """Of all answers, the last one first."""
        return tuple(answer.window for answer in reversed(self.answers))

    def covers(self, window: Window, grid: Grid) -> bool:
        """Whether anything is known in a window."""
        spans: list[Window | None] = [answer.window for answer in self.answers]
        spans += [painted.window(grid) for painted in self.strokes]
        return self.base is not None or any(span and window.meet(span) for span in spans)

    def extent(self, grid: Grid) -> Window | None:
        """The smallest window that holds all that may be object."""
        spans: list[Window | None] = [answer.window for answer in self.answers]
        spans += [painted.window(grid) for painted in self.strokes]
        spans += [extent(self.base.shape, grid)] if self.base is not None else []
        return union(*spans)

    def flattened(self, grid: Grid, window: Window) -> Mask:
        """(window.height, window.width) bool: the object's mask there."""
        logits = np.full((window.height, window.width), -SURE, np.float32)
        known = np.zeros(logits.shape, bool)
        if self.base is not None:
            logits[self.base.pixels(grid, window)] = SURE
            known[:] = True  # a person who drew it looked at what is around it
        for answer in self.answers:
            _fade_in(answer, grid, window, logits, known)
        mask: Mask = logits > 0
        for painted in self.strokes:
            _paint(painted, grid, window, mask)
        return mask


def _fade_in(answer: Answer, grid: Grid, window: Window, logits: Logits, known: Mask) -> None:
    part = window.meet(answer.window)
    if part is None:
        return
    here, there = _slices(part, window), _slices(part, answer.window)
    weights = np.where(known[here], answer.weights(grid)[there], np.float32(1))
    logits[here] += weights * (answer.logits()[there] - logits[here])
    known[here] = True


def _paint(painted: Painted, grid: Grid, window: Window, mask: Mask) -> None:
    span = painted.window(grid)
    part = None if span is None else window.meet(span)
    if part is not None:
        inside = rasterise(painted.area, grid.rect0(part), part.width, part.height)
        mask[_slices(part, window)][inside] = not painted.erase


def _slices(part: Window, window: Window) -> tuple[slice, slice]:
    """Where a part of a window lies in its array."""
    return (
        slice(part.y - window.y, part.y1 - window.y),
        slice(part.x - window.x, part.x1 - window.x),
    )


def union(*windows: Window | None) -> Window | None:
    """The smallest window around all of them."""
    found: Window | None = None
    for window in windows:
        if window is not None:
            found = window if found is None else found.around(window)
    return found
