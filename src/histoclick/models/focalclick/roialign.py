"""Averages of a map over the cells of a box ("RoIAlign", He et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor


def roi_align(maps: Tensor, boxes: Tensor, size: tuple[int, int], scale: float = 1.0) -> Tensor:
    """Every map (C, H, W) cropped to its box and resampled to ``size``: (K, C, *size).

    ``maps``: (K, C, H, W). ``boxes``: (K, 4) of x0, y0, x1, y1 on a grid ``1 / scale`` times as
    fine, whose pixel centres lie at half integers ("aligned"). A cell larger than a pixel is the
    mean of as many samples as it is wide, rounded up; one beyond the map is 0, as is a box without
    extent. Bilinear samples on a grid are separable, so that two matrix products do it all.
    """
    start, end = (boxes * scale - 0.5).view(-1, 2, 2).unbind(1)
    height, width = maps.shape[2:]
    across = _weights(start[:, 0], end[:, 0], size[1], width)
    down = _weights(start[:, 1], end[:, 1], size[0], height)
    return torch.matmul(torch.matmul(down[:, None], maps), across[:, None].transpose(2, 3))


def _weights(start: Tensor, end: Tensor, cells: int, pixels: int) -> Tensor:
    """(K, cells, pixels): how much of every pixel is in every cell of the intervals (K,)."""
    cell = (end - start) / cells
    count = torch.ceil(cell).clamp(min=0)
    index = torch.arange(int(count.max()) if len(count) else 0, device=start.device)
    inside = (index + 0.5) * (cell / count)[:, None]  # (K, samples) from the start of a cell
    place = torch.arange(cells, device=start.device) * cell[:, None] + start[:, None]
    at = place[:, :, None] + inside[:, None]  # (K, cells, samples)
    share = (index < count[:, None])[:, None] & (at >= -1) & (at <= pixels)
    at = at.nan_to_num().clamp(0, pixels - 1)
    pixel = torch.arange(pixels, device=start.device)
    near = (1 - (at[..., None] - pixel).abs()).clamp(min=0) * share[..., None]
    return near.sum(2) / count.clamp(min=1)[:, None, None]
