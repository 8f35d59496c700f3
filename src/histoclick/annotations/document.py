"""What an annotation file says, whatever its format.

Coordinates are px of level 0 of the slide as OpenSlide counts them, ``x`` to the right, ``y`` down,
pixel-corner: the top left pixel covers the square from (0, 0) to (1, 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

from shapely import LineString, MultiPoint, MultiPolygon, Point, Polygon

if TYPE_CHECKING:
    from histoclick.slides import Slide

Shape: TypeAlias = Polygon | MultiPolygon | Point | MultiPoint | LineString
Colour = tuple[int, int, int]  # RGB, 0..255


@dataclass(frozen=True)
class Annotation:
    """One object.

    ``shape``: valid (as shapely sees it) and not empty; holes are interiors, parts are members of a
    multi-geometry. ``label``: its class, "" for none. ``colour``: of the class, if the file says
    it. ``name``: its own name, such as "lesion 3".
    """

    shape: Shape
    label: str = ""
    colour: Colour | None = None
    name: str = ""


@dataclass(frozen=True)
class Canvas:
    """What a format may have to know of the slide.

    ``width``, ``height``: level 0, px. ``mpp``: um per px of level 0, if known. ``x0``, ``y0``:
    top left corner of the slide's bounds in level 0 px: QuPath counts from there. ``name``: of the
    slide's file. ``source``: the file itself, for formats that refer to what is in it.
    """

    width: int
    height: int
    mpp: float | None = None
    x0: float = 0.0
    y0: float = 0.0
    name: str = ""
    source: Path | None = field(default=None, compare=False)

    @classmethod
    def of(cls, slide: Slide) -> Canvas:
        """What an open slide says of itself."""
        x0, y0 = slide.bounds.x0, slide.bounds.y0
        return cls(slide.width, slide.height, slide.mpp, x0, y0, slide.path.name, slide.path)


@dataclass(frozen=True)
class Document:
    """The annotations of one slide, in the order of the file.

    ``notes``: what had to be mended or left out when it was read, a sentence each, for the user.
    ``canvas``: what the file itself says of its slide, if anything. ``source``: the file, if it was
    read from one: nothing is written over it.
    """

    annotations: tuple[Annotation, ...] = ()
    notes: tuple[str, ...] = ()
    canvas: Canvas | None = None
    source: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "annotations", tuple(self.annotations))
        object.__setattr__(self, "notes", tuple(self.notes))

    def noting(self, *notes: str) -> Self:
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    @property
    def labels(self) -> tuple[str, ...]:
        """All classes, in the order of their first object."""
        return tuple(dict.fromkeys(annotation.label for annotation in self.annotations))
