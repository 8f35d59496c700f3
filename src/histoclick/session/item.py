"""One object: all that is known of it after an action. Immutable; the next action makes another."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from shapely import MultiPolygon, Polygon

from histoclick.annotations import Shape
from histoclick.session.actions import BoxAround, ClickOn, Outline, Stroke
from histoclick.session.layers import Answer, Base, Layers, Painted, union
from histoclick.session.sparse import SparseMask
from histoclick.session.windows import Grid, Window

BLOCK = 2048  # px: of a mask, at once


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
    level 0. ``quality``: the model's own estimate of its IoU, in [0, 1]. ``window``: where the
    model looked last, working px.
    """

    id: int
    label: str = ""
    name: str = ""
    mpp: float | None = None
    grid: Grid | None = None
    imported: Shape | None = None
    layers: Layers = field(default_factory=Layers)
    clicks: tuple[Mark, ...] = ()
    box: tuple[float, float, float, float] | None = None
    quality: float | None = None
    window: Window | None = None
    before: Item | None = field(default=None, repr=False, compare=False)
    changed: Window | None = field(default=None, repr=False, compare=False)  # since ``before``

    @classmethod
    def of(cls, id_: int, outline: Outline) -> Item:
        """From a file."""
        return cls(id_, outline.label, outline.name, imported=outline.shape)

    @cached_property
    def mask(self) -> SparseMask:
        """Its pixels, working px; none for one that nobody worked on."""
        if self.grid is None:
            return SparseMask()
        if self.before is not None and self.before.grid is not None and "mask" in vars(self.before):
            return _settled(self.before.mask, self.layers, self.grid, self.changed)
        return _settled(SparseMask(), self.layers, self.grid, self.layers.extent(self.grid))

    @cached_property
    def shape(self) -> Shape | None:
        """Its outline, px of level 0: as it was in its file until somebody works on it, then
        exactly that of its pixels; ``None`` when there are none."""
        return self.imported if self.grid is None else self.mask.outline(self.grid)

    def at(self, grid: Grid, mpp: float) -> Item:
        """Ready to be worked on, at a resolution if it has none yet."""
        if self.grid is not None:
            return self
        base = Base(self.imported) if isinstance(self.imported, Polygon | MultiPolygon) else None
        return replace(self, grid=grid, mpp=mpp, layers=Layers(base))

    def clicked(self, click: ClickOn) -> Item:
        """With a click that is not answered yet. It takes away strokes that say the opposite."""
        assert self.grid is not None
        mark = Mark(click.x, click.y, click.positive)
        layers = self.layers.releasing(click.x, click.y, click.positive)
        gone = [
            stroke.window(self.grid) for stroke in set(self.layers.strokes) - set(layers.strokes)
        ]
        return replace(
            self, clicks=(*self.clicks, mark), layers=layers, before=self, changed=union(*gone)
        )

    def boxed(self, box: BoxAround) -> Item:
        """With a box that is not answered yet."""
        return replace(self, box=(box.x0, box.y0, box.x1, box.y1), before=self, changed=None)

    def answered(self, answer: Answer, quality: float | None) -> Item:
        """With what the model says to the last click or box."""
        return replace(
            self,
            layers=self.layers.answering(answer),
            quality=quality,
            window=answer.window,
            changed=union(self.changed, answer.window),
        )

    def stroked(self, stroke: Stroke, seq: int) -> Item:
        """With a stroke of the brush or the eraser."""
        assert self.grid is not None
        painted = Painted.of(stroke, seq)
        return replace(
            self,
            layers=self.layers.painting(painted),
            before=self,
            changed=painted.window(self.grid),
        )

    def renamed(self, *, label: str | None = None, name: str | None = None) -> Item:
        """With another class or name."""
        return replace(
            self,
            label=self.label if label is None else label,
            name=self.name if name is None else name,
            before=self,
            changed=None,
        )

    def forget(self) -> None:
        """Let go of what can be computed again."""
        for kept in ("mask", "shape"):
            vars(self).pop(kept, None)


def _settled(mask: SparseMask, layers: Layers, grid: Grid, window: Window | None) -> SparseMask:
    """A mask with the pixels of a window made anew from the layers."""
    if window is None:
        return mask
    for y in range(window.y, window.y1, BLOCK):
        for x in range(window.x, window.x1, BLOCK):
            part = Window(x, y, min(BLOCK, window.x1 - x), min(BLOCK, window.y1 - y))
            if layers.covers(part, grid):
                mask = mask.replaced(part, layers.flattened(grid, part))
    return mask
