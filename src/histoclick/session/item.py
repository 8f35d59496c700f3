"""One object: all that is known of it after an action. Immutable; the next action makes another."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from shapely import MultiPolygon, Polygon
from shapely.geometry import Point

from histoclick.annotations import Shape
from histoclick.session.actions import BoxAround, ClickOn, Outline, Stroke
from histoclick.session.layers import (
    Answer,
    Base,
    Painted,
    bordering,
    extent,
    merged,
    trusted,
)
from histoclick.session.sparse import SparseMask
from histoclick.session.windows import Grid, Window

BLOCK = 2048  # px: of an outline from a file, at once


@dataclass(frozen=True)
class Mark:
    """A click, px of level 0, pixel-corner."""

    x: float
    y: float
    positive: bool


@dataclass(frozen=True)
class Item:
    """An object.

    ``mpp``, ``grid``: its working resolution; ``None`` while nobody worked on it. ``imported``: its
    shape in the file that it came from. ``clicks``: oldest first. ``box``: (x0, y0, x1, y1), px of
    level 0. ``strokes``: by hand, oldest first; they lie on top of all answers, because what was
    painted shall stay. ``looked``: the windows of all answers, the last one last. ``quality``: the
    model's own estimate of its IoU, in [0, 1]. ``change``: how its mask comes from the one
    ``before``, if it does not stay.
    """

    id: int
    label: str = ""
    name: str = ""
    mpp: float | None = None
    grid: Grid | None = None
    imported: Shape | None = None
    clicks: tuple[Mark, ...] = ()
    box: tuple[float, float, float, float] | None = None
    strokes: tuple[Painted, ...] = ()
    looked: tuple[Window, ...] = ()
    quality: float | None = None
    before: Item | None = field(default=None, repr=False, compare=False)
    change: Answer | Painted | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, id_: int, outline: Outline) -> Item:
        """From a file."""
        return cls(id_, outline.label, outline.name, imported=outline.shape)

    @property
    def window(self) -> Window | None:
        """Where the model looked last, working px."""
        return self.looked[-1] if self.looked else None

    @property
    def windows(self) -> tuple[Window, ...]:
        """Where it looked, the last one first."""
        return self.looked[::-1]

    @property
    def base(self) -> Base | None:
        """The outline that it began with."""
        return Base(self.imported) if isinstance(self.imported, Polygon | MultiPolygon) else None

    @cached_property
    def mask(self) -> SparseMask:
        """Its pixels, working px; none for one that nobody worked on."""
        if self.grid is None:
            return SparseMask()
        line = [self]
        while "mask" not in vars(line[-1]) and line[-1].before is not None:
            line.append(line[-1].before)
        first = line.pop()
        mask = first.mask if "mask" in vars(first) else _based(first.base, self.grid)
        for item in reversed(line):
            mask = item._changed(mask)
        return mask

    @cached_property
    def shape(self) -> Shape | None:
        """Its outline, px of level 0: as it was in its file until somebody works on it, then
        exactly that of its pixels; ``None`` when there are none."""
        return self.imported if self.grid is None else self.mask.outline(self.grid)

    def at(self, grid: Grid, mpp: float) -> Item:
        """Ready to be worked on, at a resolution if it has none yet."""
        if self.grid is not None:
            return self
        return replace(self, grid=grid, mpp=mpp, before=None, change=None)

    def covers(self, window: Window) -> bool:
        """Whether anything is known of it in a window."""
        assert self.grid is not None
        spans = [*self.looked, *(stroke.window(self.grid) for stroke in self.strokes)]
        return self.base is not None or any(span and window.meet(span) for span in spans)

    def clicked(self, click: ClickOn) -> Item:
        """With a click that is not answered yet. Strokes that say the opposite stay no longer."""
        point, mark = Point(click.x, click.y), Mark(click.x, click.y, click.positive)
        kept = tuple(
            stroke
            for stroke in self.strokes
            if stroke.erase != click.positive or not stroke.meets(point)
        )
        return replace(self, clicks=(*self.clicks, mark), strokes=kept, before=self, change=None)

    def boxed(self, box: BoxAround) -> Item:
        """With a box that is not answered yet."""
        return replace(self, box=(box.x0, box.y0, box.x1, box.y1), before=self, change=None)

    def answered(self, answer: Answer, quality: float | None) -> Item:
        """With what the model says to the last click or box."""
        others = tuple(window for window in self.looked if window != answer.window)
        looked = (*others, answer.window)
        return replace(self, looked=looked, quality=quality, change=answer)

    def stroked(self, stroke: Stroke, seq: int) -> Item:
        """With a stroke of the brush or the eraser."""
        painted = Painted.of(stroke, seq)
        return replace(self, strokes=(*self.strokes, painted), before=self, change=painted)

    @property
    def parts(self) -> tuple[Polygon, ...]:
        """Its areas, px of level 0."""
        if isinstance(self.shape, Polygon):
            return (self.shape,)
        return tuple(self.shape.geoms) if isinstance(self.shape, MultiPolygon) else ()

    def tidied(self, seq: int) -> Item:
        """Without the parts that nobody clicked in or painted; if it is all, the largest stays."""
        points = [Point(mark.x, mark.y) for mark in self.clicks if mark.positive]
        painted = [stroke for stroke in self.strokes if not stroke.erase]
        kept = [
            part
            for part in self.parts
            if any(part.intersects(point) for point in points)
            or any(stroke.meets(part) for stroke in painted)
        ]
        kept = kept or [max(self.parts, key=lambda part: part.area)]
        if self.grid is None:
            return replace(self, imported=kept[0], before=self, change=None)
        gone = MultiPolygon([part for part in self.parts if part not in kept])
        change = Painted((gone,), erase=True, seq=seq)
        return replace(self, before=self, change=change)

    def renamed(self, *, label: str | None = None, name: str | None = None) -> Item:
        """With another class or name."""
        return replace(
            self,
            label=self.label if label is None else label,
            name=self.name if name is None else name,
            before=self,
            change=None,
        )

    def forget(self, *, shape: bool = True) -> None:
        """Let go of what can be computed again: its pixels and, unless it is shown, its shape."""
        vars(self).pop("mask", None)
        if shape:
            vars(self).pop("shape", None)

    def _changed(self, mask: SparseMask) -> SparseMask:
        """The mask after ``change``, from the one before."""
        assert self.grid is not None
        if isinstance(self.change, Answer):
            window = self.change.window
            return mask.replaced(window, self._merged(mask, self.change))
        window_ = None if self.change is None else self.change.window(self.grid)
        if self.change is None or window_ is None:
            return mask
        pixels = mask.crop(window_)
        self.change.paint(self.grid, window_, pixels)
        return mask.replaced(window_, pixels)

    def _merged(self, mask: SparseMask, answer: Answer) -> np.ndarray:
        """(h, w) bool: the answer's window, with what it changes."""
        assert self.grid is not None
        assert self.before is not None
        grid, window, said = self.grid, answer.window, answer.mask
        for stroke in self.strokes:
            stroke.paint(grid, window, said)
        known = self.before.looked
        if self.base is not None:  # who drew it looked at all of the slide
            known = (*known, Window(0, 0, grid.width, grid.height))
        beyond = bordering(known, window)
        if not beyond.any():
            return said
        click = None
        if self.clicks and len(self.clicks) > len(self.before.clicks):
            x, y = self.clicks[-1].x / grid.scale_x, self.clicks[-1].y / grid.scale_y
            column, row = int(x) - window.x, int(y) - window.y
            click = min(max(column, 0), window.width - 1), min(max(row, 0), window.height - 1)
        own, trust = trusted((window,), grid, window), trusted(known, grid, window)
        return merged(mask.crop(window), said, own, trust, beyond, click)


def _based(base: Base | None, grid: Grid) -> SparseMask:
    """The pixels of an outline from a file."""
    mask, window = SparseMask(), None if base is None else extent(base.shape, grid)
    if base is None or window is None:
        return mask
    for y in range(window.y, window.y1, BLOCK):
        for x in range(window.x, window.x1, BLOCK):
            part = Window(x, y, min(BLOCK, window.x1 - x), min(BLOCK, window.y1 - y))
            mask = mask.replaced(part, base.pixels(grid, part))
    return mask
