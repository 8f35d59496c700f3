"""Where the model looks: windows on a lattice, at the working resolution of an object.

Working px: px at an object's um/px, counted from the corner of level 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from histoclick.geometry import Rect
from histoclick.slides import Slide
from histoclick.types import Click

WHOLE = 1.25  # a picture up to so many windows wide is looked at as a whole
INNER = 8  # a click nearer to a border than this part of a window asks for another window


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle in whole working px: top left corner and size."""

    x: int
    y: int
    width: int
    height: int

    @property
    def x1(self) -> int:
        """One behind the last column."""
        return self.x + self.width

    @property
    def y1(self) -> int:
        """One behind the last row."""
        return self.y + self.height

    def holds(self, x: float, y: float) -> bool:
        """Whether a point (working px, pixel-corner) lies in it."""
        return self.x <= x < self.x1 and self.y <= y < self.y1

    def meet(self, other: Window) -> Window | None:
        """What both have in common."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        x1, y1 = min(self.x1, other.x1), min(self.y1, other.y1)
        return Window(x, y, x1 - x, y1 - y) if x < x1 and y < y1 else None

    def within(self, other: Window) -> tuple[slice, slice]:
        """Where it lies in an array of a window that holds it."""
        return (
            slice(self.y - other.y, self.y1 - other.y),
            slice(self.x - other.x, self.x1 - other.x),
        )

    def around(self, other: Window) -> Window:
        """The smallest that holds both."""
        x, y = min(self.x, other.x), min(self.y, other.y)
        return Window(x, y, max(self.x1, other.x1) - x, max(self.y1, other.y1) - y)


@dataclass(frozen=True)
class Grid:
    """A slide in working px: ``width`` x ``height`` of them, each ``scale_x`` x ``scale_y`` px of
    level 0."""

    width: int
    height: int
    scale_x: float
    scale_y: float

    @classmethod
    def of(cls, slide: Slide, mpp: float) -> Grid:
        """At ``mpp`` um/px. A slide that does not say its own counts as 1 um/px at level 0."""
        scale_x, scale_y = (mpp, mpp) if slide.mpp is None else slide.scale(mpp)
        width = max(1, math.ceil(slide.width / scale_x - 1e-6))
        return cls(width, max(1, math.ceil(slide.height / scale_y - 1e-6)), scale_x, scale_y)

    def rect0(self, window: Window) -> Rect:
        """What a window covers, in px of level 0."""
        return Rect(
            window.x * self.scale_x,
            window.y * self.scale_y,
            window.width * self.scale_x,
            window.height * self.scale_y,
        )

    def click(self, window: Window, x0: float, y0: float, positive: bool) -> Click:
        """A click at (``x0``, ``y0``) px of level 0, pixel-corner, in the frame of a window, kept
        inside it."""
        x, y = x0 / self.scale_x - window.x - 0.5, y0 / self.scale_y - window.y - 0.5
        return Click(
            min(max(x, 0.0), window.width - 1.0), min(max(y, 0.0), window.height - 1.0), positive
        )

    def is_inner(self, window: Window, x: float, y: float, side: int) -> bool:
        """Whether a point (working px) lies well inside a window; the border of the slide is none
        of the window."""
        margin = side / INNER
        return (
            (window.x <= 0 or x >= window.x + margin)
            and (window.y <= 0 or y >= window.y + margin)
            and (window.x1 >= self.width or x < window.x1 - margin)
            and (window.y1 >= self.height or y < window.y1 - margin)
            and window.holds(x, y)
        )

    def nearest(self, x: float, y: float, side: int) -> Window:
        """The window of the lattice whose centre is nearest to a point (working px).

        Windows lie half a window apart, so that a point is never near a border, and few of them
        cover a view. ``side``: of a window, px.
        """
        left, width = _along(x, self.width, side)
        top, height = _along(y, self.height, side)
        return Window(left, top, width, height)

    def centred(self, x: float, y: float, side: int) -> Window:
        """The window with a point (working px) in its middle, or as near to it as the slide lets
        it."""
        left, width = _around(x, self.width, side)
        top, height = _around(y, self.height, side)
        return Window(left, top, width, height)

    def choose(self, used: Iterable[Window], x: float, y: float, side: int) -> Window:
        """Where to look for a click at (``x``, ``y``) working px: the first of the windows that
        were ``used`` in which it lies well inside, else a new one."""
        for window in used:
            if self.is_inner(window, x, y, side):
                return window
        return self.nearest(x, y, side)

    def ahead(self, view: Rect, side: int) -> Iterator[Window]:
        """The windows of a view (``view``: px of level 0) that clicks may ask for, those nearest
        to its centre first."""
        x0, x1 = view.x0 / self.scale_x, view.x1 / self.scale_x
        y0, y1 = view.y0 / self.scale_y, view.y1 / self.scale_y
        middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
        columns = {_along(x, self.width, side) for x in _places(x0, x1, self.width, side)}
        rows = {_along(y, self.height, side) for y in _places(y0, y1, self.height, side)}
        windows = [Window(x, y, w, h) for x, w in columns for y, h in rows]
        yield from sorted(
            windows,
            key=lambda w: (
                math.hypot(w.x + w.width / 2 - middle_x, w.y + w.height / 2 - middle_y),
                w,
            ),
        )


def _around(place: float, extent: int, side: int) -> tuple[int, int]:
    if extent <= side * WHOLE:
        return 0, extent
    return min(max(round(place - side / 2), 0), extent - side), side


def _along(place: float, extent: int, side: int) -> tuple[int, int]:
    """Start and length of a window along one axis."""
    if extent <= side * WHOLE:
        return 0, extent
    step = side // 2
    start = math.floor((place - side / 2) / step + 0.5) * step
    return min(max(start, 0), extent - side), side


def _places(low: float, high: float, extent: int, side: int) -> list[float]:
    """Points at which to ask for windows, so that none of an interval is left out."""
    low, high = max(low, 0.0), min(high, float(extent))
    count = max(1, math.ceil((high - low) / (side // 2)) + 1)
    return [low + (high - low) * i / max(count - 1, 1) for i in range(count)]
