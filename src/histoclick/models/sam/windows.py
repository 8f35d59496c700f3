"""Grids of places cut into square windows, and put together again."""

from __future__ import annotations

from torch import Tensor


def cut(grid: Tensor, side: int) -> Tensor:
    """(B, H, W, C) to (B, down, across, side, side, C); H and W are multiples of ``side``."""
    batch, height, width, channels = grid.shape
    shape = batch, height // side, side, width // side, side, channels
    return grid.view(shape).transpose(2, 3)


def join(windows: Tensor, height: int, width: int) -> Tensor:
    """The inverse of ``cut``, and only the first ``height`` and ``width`` places of it."""
    batch, down, across, side, _, channels = windows.shape
    grid = windows.transpose(2, 3).reshape(batch, down * side, across * side, channels)
    return grid[:, :height, :width]
