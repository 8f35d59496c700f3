"""What a format is: how it is known, read and written, and what it can hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from histoclick.annotations.document import Canvas, Document


class Holds(StrEnum):
    """What annotations may have that not every format can say."""

    HOLES = "holes"
    PARTS = "parts"  # objects of several pieces
    POINTS = "points"
    POINT_SETS = "point sets"  # objects of several points
    LINES = "lines"
    LABELS = "classes"
    COLOURS = "colours"
    NAMES = "names"  # of objects, besides their class
    OBJECTS = "objects"  # tells touching objects of one class apart
    OVERLAPS = "overlaps"


@dataclass(frozen=True)
class Format:
    """One file format. Everything but ``read`` and ``write`` is what the table in the docs says.

    ``suffixes``: with dot, lower case; the first is the usual one. ``decimals``: of coordinates;
    ``None`` is whole pixels (a raster). ``holds``: what survives writing and reading back; what is
    not in it is taken out before ``write`` is called, and said. ``recognises``: whether a file is
    of this format, from its first bytes (of what is inside, if it is compressed) and its path.
    ``read``: raises ``HistoclickError``; ``canvas`` is what the caller knows of the slide.
    ``write``: to a path that does not exist yet and that the caller renames; returns what was lost
    beyond ``holds``, a sentence each; ``None`` for formats that are only read. ``needs_canvas``:
    writing needs the size of the slide.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    decimals: int | None
    holds: frozenset[Holds]
    recognises: Callable[[Path, bytes], bool]
    read: Callable[[Path, Canvas | None], Document]
    write: Callable[[Document, Path, Canvas | None], list[str]] | None = None
    needs_canvas: bool = False
