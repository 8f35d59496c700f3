"""Clicks and the previous mask as dense maps at stride 4."""

from __future__ import annotations

import torch
from torch import Tensor

STRIDE = 4
CHANNELS = 6
FAR = 1e4  # px; stands for "no such click"


def click_distances(clicks: Tensor, size: tuple[int, int]) -> Tensor:
    """Distance from every stride-4 cell centre to every click, in model-input pixels.

    ``clicks``: (B, N, 3) float of x, y, sign; sign 1 is positive, -1 negative, 0 padding. ``size``:
    height and width of the maps. Returns (B, N, h, w), ``FAR`` for padding.
    """
    height, width = size
    # Cell i covers input pixels 4i..4i+3, whose centres average to 4i + 1.5.
    ys = torch.arange(height, device=clicks.device) * STRIDE + (STRIDE - 1) / 2
    xs = torch.arange(width, device=clicks.device) * STRIDE + (STRIDE - 1) / 2
    dx = xs - clicks[:, :, :1]
    dy = ys - clicks[:, :, 1:2]
    distance = torch.sqrt(dy.square()[:, :, :, None] + dx.square()[:, :, None, :])
    return distance.masked_fill((clicks[:, :, 2] == 0)[:, :, None, None], FAR)


def rasterise(clicks: Tensor, previous: Tensor) -> Tensor:
    """The six prompt maps.

    ``clicks``: (B, N, 3) as in ``click_distances``, N >= 1, oldest first, padding anywhere.
    ``previous``: (B, 1, h, w), probability of the previous mask, 0 at the first click.
    Returns (B, 6, h, w): for positive then for negative clicks a spot (Gaussian, sigma 5 px) and a
    halo (exponential, 32 px); the last click with its sign (Gaussian, sigma 12 px); ``previous``.
    """
    distance = click_distances(clicks, (previous.shape[2], previous.shape[3]))
    sign = clicks[:, :, 2, None, None]
    nearest_positive = distance.masked_fill(sign <= 0, FAR).amin(1, keepdim=True)
    nearest_negative = distance.masked_fill(sign >= 0, FAR).amin(1, keepdim=True)
    index = torch.arange(1, clicks.shape[1] + 1, device=clicks.device)
    last = ((clicks[:, :, 2] != 0) * index).argmax(1)[:, None, None, None]
    last_distance = distance.take_along_dim(last, 1)
    last_sign = sign.take_along_dim(last, 1)
    return torch.cat(
        [
            torch.exp(-nearest_positive.square() / (2 * 5**2)),
            torch.exp(-nearest_positive / 32),
            torch.exp(-nearest_negative.square() / (2 * 5**2)),
            torch.exp(-nearest_negative / 32),
            last_sign * torch.exp(-last_distance.square() / (2 * 12**2)),
            previous,
        ],
        1,
    )
