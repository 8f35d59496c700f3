"""What click decoders of a convolutional pyramid are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def unit(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, group norm, ReLU. Group norm: clicks are simulated and graded in one mode."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.GroupNorm(8, outputs),
        nn.ReLU(inplace=True),
    )


class Mixer(nn.Module):
    """A 7x7 depthwise filter, the global mean, and a pointwise two-layer network; residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.GroupNorm(8, width)
        self.context = nn.Linear(width, 2 * width)
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.project = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> the same shape."""
        y = self.norm(self.spread(x))
        hidden = self.expand(y) + self.context(x.mean((2, 3)))[:, :, None, None]
        mixed: Tensor = x + self.project(F.relu(hidden))
        return mixed


def likeness_maps(features: Tensor, clicks: Tensor) -> Tensor:
    """How much every place resembles the clicked places.

    ``features``: (B, C, h, w), unit length. ``clicks``: (B, N, 3) in input pixels at stride 8.
    Returns (B, 2, h, w) in [-1, 1]: the largest cosine with a positive click, and with a negative
    click; 0 where there is no such click.
    """
    batch, _, height, width = features.shape
    x = (clicks[:, :, 0] / 8).long().clamp(0, width - 1)
    y = (clicks[:, :, 1] / 8).long().clamp(0, height - 1)
    flat = features.flatten(2)
    index = (y * width + x)[:, None, :].expand(-1, features.shape[1], -1)
    cosine = torch.bmm(flat.gather(2, index).transpose(1, 2), flat)  # (B, N, h * w)
    sign = clicks[:, :, 2:]
    maps = []
    for wanted in (sign > 0, sign < 0):
        best = cosine.masked_fill(~wanted, -2.0).amax(1)
        maps.append(torch.where(best > -1.5, best, 0.0))
    return torch.stack(maps, 1).view(batch, 2, height, width)


def double(x: Tensor) -> Tensor:
    """Twice the height and width, bilinear."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
