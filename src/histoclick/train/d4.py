"""The eight ways to turn and mirror a square: the group D4.

View ``k`` of an image is the image turned counter-clockwise by ``k % 4`` quarters, for 4 and more
of its mirror image, left and right exchanged. View 0 is the image itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

VIEWS = 8


def d4(images: Tensor, view: int) -> Tensor:
    """View 0 to 7 of (..., H, W); odd ones exchange height and width."""
    mirrored = images.flip(-1) if view >= 4 else images
    return torch.rot90(mirrored, view % 4, (-2, -1))


def d4_each(images: Tensor, views: Sequence[int]) -> Tensor:
    """A view of each of (B, ..., S, S)."""
    turned = [d4(image, view) for image, view in zip(images, views, strict=True)]
    return torch.stack(turned)


def inverse(view: int) -> int:
    """The view that brings back what ``view`` turned or mirrored."""
    return view if view >= 4 else -view % 4


def composed(first: int, second: int) -> int:
    """The view that is ``second`` of the view ``first``."""
    # a mirror after a turn is the opposite turn after the mirror
    turns = first + second if second < 4 else second - first
    return turns % 4 + 4 * ((first >= 4) != (second >= 4))
