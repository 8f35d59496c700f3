"""Clicks and the previous mask as dense maps at strides 4 and 2."""

from __future__ import annotations

import torch
from torch import Tensor

CHANNELS, FINE_CHANNELS = 6, 3
SPOT = 5  # px, sigma
FAR = 1e4  # px; stands for "no such click"


def click_distances(clicks: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Distance from every cell centre to every click, in model-input pixels.

    ``clicks``: (B, N, 3) float of x, y, sign; sign 1 is positive, -1 negative, 0 padding. ``size``:
    height and width of the maps, whose cells are ``stride`` pixels wide. Returns (B, N, h, w),
    ``FAR`` for padding.
    """
    height, width = size
    # At stride 4, cell i covers input pixels 4i..4i+3, whose centres average to 4i + 1.5.
    ys = torch.arange(height, device=clicks.device) * stride + (stride - 1) / 2
    xs = torch.arange(width, device=clicks.device) * stride + (stride - 1) / 2
    dx = xs - clicks[:, :, :1]
    dy = ys - clicks[:, :, 1:2]
    distance = torch.sqrt(dy.square()[:, :, :, None] + dx.square()[:, :, None, :])
    return distance.masked_fill((clicks[:, :, 2] == 0)[:, :, None, None], FAR)


def rasterise(clicks: Tensor, previous: Tensor) -> Tensor:
    """The six prompt maps at stride 4.

    ``clicks``: (B, N, 3) as in ``click_distances``, N >= 1, oldest first, padding anywhere.
    ``previous``: (B, 1, h, w), probability of the previous mask, 0 at the first click.
    Returns (B, 6, h, w): for positive then for negative clicks a spot (Gaussian, sigma 5 px) and a
    halo (exponential, 32 px); the last click with its sign (Gaussian, sigma 12 px); ``previous``.
    """
    distance = click_distances(clicks, (previous.shape[2], previous.shape[3]), 4)
    sign = clicks[:, :, 2, None, None]
    nearest_positive, nearest_negative = _nearest(distance, sign)
    index = torch.arange(1, clicks.shape[1] + 1, device=clicks.device)
    last = ((clicks[:, :, 2] != 0) * index).argmax(1)[:, None, None, None]
    # Not take_along_dim, which an export cannot follow for any number of clicks
    last_distance = distance.gather(1, last.expand(-1, 1, *distance.shape[2:]))
    last_sign = sign.gather(1, last)
    return torch.cat(
        [
            _spot(nearest_positive),
            torch.exp(-nearest_positive / 32),
            _spot(nearest_negative),
            torch.exp(-nearest_negative / 32),
            last_sign * torch.exp(-last_distance.square() / (2 * 12**2)),
            previous,
        ],
        1,
    )


def spots(clicks: Tensor, previous: Tensor) -> Tensor:
    """The three prompt maps at stride 2, (B, 3, h, w): a spot at every positive and at every
    negative click, and ``previous`` (B, 1, h, w); all as in ``rasterise``."""
    distance = click_distances(clicks, (previous.shape[2], previous.shape[3]), 2)
    nearest = _nearest(distance, clicks[:, :, 2, None, None])
    return torch.cat([*map(_spot, nearest), previous], 1)


def _nearest(distance: Tensor, sign: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (B, 1, h, w) to the nearest positive and to the nearest negative click."""
    positive = distance.masked_fill(sign <= 0, FAR).amin(1, keepdim=True)
    return positive, distance.masked_fill(sign >= 0, FAR).amin(1, keepdim=True)


def _spot(distance: Tensor) -> Tensor:
    return torch.exp(-distance.square() / (2 * SPOT**2))
