"""Clicks and the previous mask as dense maps at strides 4 and 2."""

from __future__ import annotations

import torch
from torch import Tensor

CHANNELS, FINE_CHANNELS = 6, 3
SPOT, LAST = 5, 12  # px, sigma: of every click, of the last one
FAR = 1e4  # px; stands for "no such click"


def click_distances(clicks: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Distance from every cell centre to every click, in model-input pixels.

    ``clicks``: (B, N, 3) float of x, y, sign; sign 1 is positive, -1 negative, 0 padding. ``size``:
    height and width of the maps, whose cells are ``stride`` pixels wide. Returns (B, N, h, w),
    ``FAR`` for padding.
    """
    dy, dx = _squares(clicks, clicks[:, :, 2] != 0, size, stride)
    return torch.sqrt(dy[:, :, :, None] + dx[:, :, None, :]).clamp(max=FAR)


def nearest_distances(clicks: Tensor, sign: int, size: tuple[int, int], stride: int) -> Tensor:
    """As ``click_distances``, (B, 1, h, w): to the nearest click of ``sign``, 1 or -1."""
    dy, dx = _squares(clicks, clicks[:, :, 2] == sign, size, stride)
    # The root of the least square: one root a cell, not one for every click
    least = (dy[:, :, :, None] + dx[:, :, None, :]).amin(1, keepdim=True)
    return torch.sqrt(least).clamp(max=FAR)


def last_click(clicks: Tensor) -> Tensor:
    """(B, 3): the newest of (B, N, 3) clicks whose sign is not 0."""
    index = torch.arange(1, clicks.shape[1] + 1, device=clicks.device)
    place = ((clicks[:, :, 2] != 0) * index).argmax(1)
    # Not take_along_dim, which an export cannot follow for any number of clicks
    return clicks.gather(1, place[:, None, None].expand(-1, 1, 3))[:, 0]


def _squares(
    clicks: Tensor, meant: Tensor, size: tuple[int, int], stride: int
) -> tuple[Tensor, Tensor]:
    """Squared distances of rows (B, N, h) and of columns (B, N, w) to the clicks that are
    ``meant``, (B, N); to others ``FAR`` in each."""
    squares = []
    for axis, length in ((1, size[0]), (0, size[1])):
        # At stride 4, cell i covers input pixels 4i..4i+3, whose centres average to 4i + 1.5.
        centres = torch.arange(length, device=clicks.device) * stride + (stride - 1) / 2
        away = (centres - clicks[:, :, axis, None]).square()
        squares.append(away.masked_fill(~meant[:, :, None], FAR**2))
    return squares[0], squares[1]


def rasterise(clicks: Tensor, previous: Tensor) -> Tensor:
    """The six prompt maps at stride 4.

    ``clicks``: (B, N, 3) as in ``click_distances``, N >= 1, oldest first, padding anywhere.
    ``previous``: (B, 1, h, w), probability of the previous mask, 0 at the first click.
    Returns (B, 6, h, w): for positive then for negative clicks a spot (Gaussian, sigma 5 px) and a
    halo (exponential, 32 px); the last click with its sign (Gaussian, sigma 12 px); ``previous``.
    """
    size = (previous.shape[2], previous.shape[3])
    nearest_positive, nearest_negative = (
        nearest_distances(clicks, sign, size, 4) for sign in (1, -1)
    )
    last = last_click(clicks)
    last_distance = click_distances(last[:, None], size, 4)
    last_sign = last[:, 2, None, None, None]
    return torch.cat(
        [
            bell(nearest_positive, SPOT),
            _fading(nearest_positive / 32),
            bell(nearest_negative, SPOT),
            _fading(nearest_negative / 32),
            last_sign * bell(last_distance, LAST),
            previous,
        ],
        1,
    )


def spots(clicks: Tensor, previous: Tensor) -> Tensor:
    """The three prompt maps at stride 2, (B, 3, h, w): a spot at every positive and at every
    negative click, and ``previous`` (B, 1, h, w); all as in ``rasterise``."""
    size = (previous.shape[2], previous.shape[3])
    nearest = [nearest_distances(clicks, sign, size, 2) for sign in (1, -1)]
    return torch.cat([*(bell(each, SPOT) for each in nearest), previous], 1)


def bell(distance: Tensor, sigma: float) -> Tensor:
    """A Gaussian of ``distance``, 1 at 0; both in px."""
    return _fading(distance.square() / (2 * sigma**2))


def _fading(x: Tensor) -> Tensor:
    """exp(-x). Farther out it would be a denormal number, for which exp takes 70 times as long."""
    return torch.exp(-x.clamp(max=80))
