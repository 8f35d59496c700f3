"""What a file offers: sizes of its levels, what it says of itself, and pixels of one level."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from histoclick.geometry import Rect
from histoclick.types import RGB8


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file says of itself.

    ``format``: OpenSlide's vendor, or the file format. ``mpp_x``, ``mpp_y``: um per px of level 0.
    ``bounds``: where in level 0 something was scanned, if the file says it; in px of level 0.
    ``quickhash``: OpenSlide's hash of the content. ``icc``: the colour profile. ``associated``:
    names of the pictures beside the slide (label, macro, thumbnail). ``notes``: what was not
    believed or not used, a sentence each.
    """

    format: str
    mpp_x: float | None = None
    mpp_y: float | None = None
    objective_power: float | None = None
    bounds: Rect | None = None
    quickhash: str | None = None
    icc: bytes | None = field(default=None, repr=False)
    associated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """An open file. Any number of threads may read at once: what is not thread-safe, locks."""

    @property
    def facts(self) -> Facts:
        """Read once, when the file is opened."""
        ...

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each level in px; the first is level 0, then smaller ones."""
        ...

    def read(self, level: int, x: int, y: int, width: int, height: int) -> RGB8:
        """(height, width, 3) uint8 RGB of a region that lies within the level, over white.

        ``x``, ``y``: its top left corner in px of that level. Raises ``HistoclickError``.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...
