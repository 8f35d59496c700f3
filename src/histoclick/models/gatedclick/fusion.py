"""A decoder whose prompts are dense maps and whose context is self-attention (SegNext)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histoclick.models.gatedclick.decoders import Draft, Pyramid
from histoclick.models.gatedclick.parts import Parts
from histoclick.models.nets.clickrasters import FAR, click_distances
from histoclick.models.nets.clicktokens import Positions
from histoclick.models.nets.clickunits import double, unit
from histoclick.models.nets.refine import SelfAttention

DISC_PX = 5  # radius of a click
BLOCKS = 2


def raised(width: int) -> nn.Sequential:
    """Twice the height and width, half of the ``width`` channels."""
    half = width // 2
    return nn.Sequential(nn.ConvTranspose2d(width, half, 2, 2), nn.GroupNorm(8, half), nn.GELU())


class FusionDecoder(nn.Module):
    """After SegNext (Liu et al. 2024): clicks as discs and the previous mask are embedded by one
    convolution and added to the image embedding; two attention blocks mix them; a simple feature
    pyramid (Li et al. 2022) is made of what comes out, and read at stride 4.

    Ours: width and embedding are those of the other decoders here, not of a ViT.
    """

    pyramidal = False

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        fine, width = parts.widths[0], parts.widths[3]
        self.prompts = nn.Conv2d(3, width, 8, 8)  # from stride 2 to stride 16
        self.positions = Positions(width)
        self.blocks = nn.ModuleList(SelfAttention(width) for _ in range(BLOCKS))
        self.scales = nn.ModuleList(
            [
                nn.Sequential(raised(width), raised(width // 2)),
                raised(width),
                nn.Identity(),
                nn.MaxPool2d(2),
            ]
        )
        half = width // 2
        widths = (width // 4, half, width, width)
        self.laterals = nn.ModuleList(unit(each, half, 1) for each in widths)
        self.fuse = unit(4 * half, fine, 1)
        self.head = nn.Conv2d(fine, 1, 1)

    def forward(self, pyramid: Pyramid, clicks: Tensor, previous: Tensor) -> Draft:
        """As ``decoders.DenseDecoder``."""
        x = pyramid.s16 + self.prompts(torch.cat([discs(clicks, previous), previous], 1))
        positions = self.positions.grid(x)
        for block in self.blocks:
            x = block(x, positions)
        size = (4 * x.shape[2], 4 * x.shape[3])
        read = [
            F.interpolate(lateral(scale(x)), size, mode="bilinear", align_corners=False)
            for scale, lateral in zip(self.scales, self.laterals, strict=True)
        ]
        fine = self.fuse(torch.cat(read, 1))
        return Draft(double(self.head(fine)), double(fine), x)


def discs(clicks: Tensor, like: Tensor) -> Tensor:
    """(B, 2, h, w) at stride 2: 1 within ``DISC_PX`` of a positive and of a negative click, else 0.
    ``clicks``: (B, N, 3) as in ``clickrasters``; ``like``: (B, 1, h, w)."""
    distance = click_distances(clicks, (like.shape[2], like.shape[3]), 2)
    sign = clicks[:, :, 2, None, None]
    near = [distance.masked_fill(sign * s <= 0, FAR).amin(1) <= DISC_PX for s in (1, -1)]
    return torch.stack(near, 1).to(like.dtype)
