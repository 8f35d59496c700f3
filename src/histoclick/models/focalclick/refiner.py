"""FocalClick's second look (Chen et al. 2022): the focus crop at full resolution.

Names of modules are those of the official files.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 32


class Refined(NamedTuple):
    """``logits``: (B, 1, H, W) of the crop. ``trimap``: logits (B, 1, H, W) of being near the
    border, where the refined logits count. ``coarse``: (B, 1, H, W), the logits before."""

    logits: Tensor
    trimap: Tensor
    coarse: Tensor


class Refiner(nn.Module):
    """Repairs the border of a crop of the coarse mask.

    ``gate``: whether the file holds a gate that the published network never asks.
    """

    def __init__(self, features: int, *, gate: bool) -> None:
        super().__init__()
        self.image_conv1 = _conv(6, CHANNELS, 3, 2)
        self.image_conv2 = _separable(CHANNELS)
        self.image_conv3 = _separable(CHANNELS)
        self.refine_fusion = _conv(features, CHANNELS, 1, 1)
        self.refine_fusion2 = _separable(CHANNELS)
        self.refine_fusion3 = _separable(CHANNELS)
        if gate:
            self.feature_gate = nn.Sequential(nn.Conv2d(CHANNELS, 1, 1)).requires_grad_(False)
        self.refine_pred = nn.Conv2d(CHANNELS, 1, 3, padding=1)
        self.refine_trimap = nn.Conv2d(CHANNELS, 1, 3, padding=1)

    def forward(self, image: Tensor, maps: Tensor, feature: Tensor, coarse: Tensor) -> Refined:
        """All of the crop: ``image`` (B, 3, H, W) in [0, 1], click ``maps`` (B, 2, H, W),
        ``feature`` (B, C, h, w) of the coarse network, its logits ``coarse`` (B, 1, H, W)."""
        fine = self.image_conv1(torch.cat([image, maps, torch.sigmoid(coarse)], 1))
        fine = self.image_conv3(self.image_conv2(fine))
        seen = resize(self.refine_fusion(feature), (fine.shape[2], fine.shape[3])) + fine
        seen = self.refine_fusion3(self.refine_fusion2(seen))
        size = (image.shape[2], image.shape[3])
        trimap = resize(self.refine_trimap(seen), size)
        weight = torch.sigmoid(trimap)
        logits = resize(self.refine_pred(seen), size) * weight + coarse * (1 - weight)
        return Refined(logits, trimap, coarse)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size), bilinear, corner pixel centres on corner pixel centres."""
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2),
            norm=nn.BatchNorm2d(outputs),
            activate=nn.ReLU(),
        )
    )


def _separable(channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv3x3=nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            conv1x1=nn.Conv2d(channels, channels, 1),
            norm=nn.BatchNorm2d(channels),
            activate=nn.ReLU(),
        )
    )
