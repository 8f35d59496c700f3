"""Frames: how the pixels of one picture lie on another. The one place that rounds.

Inside this module coordinates are continuous: pixel ``(0, 0)`` covers the square from 0 to 1, so
its centre is 0.5. Clicks name pixels by their centre (see ``types``); resizing adds and takes away
the half pixel here.
"""

from __future__ import annotations

from dataclasses import dataclass

from histoclick.types import Click


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture whose corner lies at (``x0``, ``y0``) of its parent.

    ``downsample_x``, ``downsample_y``: parent pixels per pixel. The parent is level 0 for a patch
    and the patch for a model's input.
    """

    x0: float = 0.0
    y0: float = 0.0
    downsample_x: float = 1.0
    downsample_y: float = 1.0

    @classmethod
    def resized(cls, height: int, width: int, to_height: int, to_width: int) -> Frame:
        """The frame of an image of (``height``, ``width``) px after a resize."""
        return cls(0.0, 0.0, width / to_width, height / to_height)

    def to_parent(self, click: Click) -> Click:
        """A click on this picture, as a click on its parent."""
        x = self.x0 + (click.x + 0.5) * self.downsample_x - 0.5
        y = self.y0 + (click.y + 0.5) * self.downsample_y - 0.5
        return Click(x, y, click.positive)

    def from_parent(self, click: Click) -> Click:
        """A click on the parent, as a click on this picture."""
        x = (click.x + 0.5 - self.x0) / self.downsample_x - 0.5
        y = (click.y + 0.5 - self.y0) / self.downsample_y - 0.5
        return Click(x, y, click.positive)


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle in px: its top left corner and its size, continuous coordinates.

    ``Rect(0, 0, 1, 1)`` is the top left pixel. The frame is the caller's to say; parameters named
    ``rect0`` are in level 0 of a slide.
    """

    x0: float
    y0: float
    width: float
    height: float

    def __post_init__(self) -> None:
        if not (self.width > 0 and self.height > 0):
            raise ValueError(f"{self} has no area; give a width and a height above 0")

    @property
    def x1(self) -> float:
        """The right border."""
        return self.x0 + self.width

    @property
    def y1(self) -> float:
        """The lower border."""
        return self.y0 + self.height


def fit(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Size in px of a (``height``, ``width``) image whose longer side becomes ``long_side``.

    Rounds half up, as the reference implementation of SAM does; never below 1.
    """
    scale = long_side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def up_to_multiple(size_px: int, multiple: int) -> int:
    """The next multiple that is not smaller."""
    return -(-size_px // multiple) * multiple
