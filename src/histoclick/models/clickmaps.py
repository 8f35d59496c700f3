"""Clicks as tensors of points, and points as the two maps that early-fusion networks see.

A set of points is (B, 2n, 3) float32 of row, column and place in the user's order: positive clicks
in the first half, negative ones in the second, each half filled up with -1. The order, the padding
and the disks are those of RITM (Sofiiuk et al. 2022), FocalClick and SimpleClick.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from histoclick.types import Click

PADDING = -1.0


def pack(clicks: Sequence[Click]) -> Tensor:
    """The points of one user: (1, 2n, 3); n is the larger of the two counts, at least 1."""
    halves: tuple[list[list[float]], list[list[float]]] = ([], [])
    for place, click in enumerate(clicks):
        halves[0 if click.positive else 1].append([click.y, click.x, place])
    count = max(1, *map(len, halves))
    rows = [row for half in halves for row in [*half, *[[PADDING] * 3] * (count - len(half))]]
    return torch.tensor([rows], dtype=torch.float32)


def pad(points: Sequence[Tensor]) -> Tensor:
    """One batch (B, 2n, 3) of several users' points, each (1 or more, 2k, 3)."""
    count = max(each.shape[1] for each in points) // 2
    filled = []
    for each in points:
        missing = count - each.shape[1] // 2
        filled.append([F.pad(half, (0, 0, 0, missing), value=PADDING) for half in each.chunk(2, 1)])
    return torch.cat([torch.cat(halves, 1) for halves in filled])


def disks(points: Tensor, height: int, width: int, radius: float) -> Tensor:
    """Maps (B, 2, height, width) float32 of positive and negative clicks: 1 on their disks, else 0.

    ``points``: (B, 2n, 3) in pixels of the maps, fractions allowed; a point counts unless both
    coordinates are negative. A pixel belongs to a disk up to and including ``radius`` px.
    """
    batch, halves, count = len(points), 2, points.shape[1] // 2
    row, column, _ = points.view(batch, halves, count, 3).unbind(3)
    absent = torch.maximum(row, column) < 0
    rows = torch.arange(height, dtype=torch.float32, device=points.device)
    columns = torch.arange(width, dtype=torch.float32, device=points.device)
    down = (rows - row[..., None]).square()  # (B, 2, n, height)
    down = down.masked_fill(absent[..., None], torch.inf)
    across = (columns - column[..., None]).square()
    covered = torch.zeros(batch, halves, height, width, dtype=torch.bool, device=points.device)
    for i in range(count):  # one after another: all at once would need n times the memory
        covered |= down[:, :, i, :, None] + across[:, :, i, None, :] <= radius**2
    return covered.float()
