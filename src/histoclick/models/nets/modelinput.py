"""How families that encode an image once at a fixed size see images and clicks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from histoclick.geometry import fit, up_to_multiple
from histoclick.types import RGB8, Click

if TYPE_CHECKING:
    from torch import Tensor


def mirrored(image: RGB8, long_side: int, multiple: int) -> RGB8:
    """The model's input: resized so that the longer side has ``long_side`` px, and mirrored right
    and below to whole multiples. ``image``: (H, W, 3) uint8."""
    height, width = image.shape[:2]
    rows, columns = fit(height, width, long_side)
    shrink = cv2.INTER_AREA if rows < height else cv2.INTER_LINEAR
    small = cv2.resize(image, (columns, rows), interpolation=shrink)
    bottom, right = (up_to_multiple(side, multiple) - side for side in (rows, columns))
    padded: RGB8 = np.pad(small, ((0, bottom), (0, right), (0, 0)), "symmetric")
    return padded


def alike(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Places of equal shapes, together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(i)
    return list(groups.values())


def click_array(users: Sequence[Sequence[Click]]) -> NDArray[np.float32]:
    """(B, N, 3) float32 of x, y, sign of every user's clicks, padded with zeros."""
    packed = np.zeros((len(users), max([1, *map(len, users)]), 3), np.float32)
    for row, clicks in zip(packed, users, strict=True):
        for i, click in enumerate(clicks):
            row[i] = click.x, click.y, 1 if click.positive else -1
    return packed


def click_tensor(users: Sequence[Sequence[Click]], device: str = "cpu") -> Tensor:
    """``click_array`` on a device."""
    import torch  # here, because the rest serves those who have none

    return torch.from_numpy(click_array(users)).to(device)
