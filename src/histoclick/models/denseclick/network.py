"""The network of the built-in model.

Once per image, a MobileNetV2 trunk gives a pyramid at strides 2 to 16. At every click, the prompt
maps (``prompt``) are added to the pyramid scale by scale, and *likeness maps* say how much every
place resembles what was clicked: the cosine between its stride-8 feature and those under the
positive and under the negative clicks. Those let the network follow a click into tissue it has
never seen. After mixing at stride 16 (large kernels, global context) it decodes back to stride 4,
where a first answer stands, and corrects that at stride 2, where lumina and thin walls are seen.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histoclick.models.denseclick import prompt
from histoclick.models.nets.mobilenet import CHANNELS as TRUNK
from histoclick.models.nets.mobilenet import MobileNetV2

MULTIPLE = 32  # of the input's sides
WIDTHS = (16, 32, 48, 96)  # channels at strides 2, 4, 8, 16
LIKENESS = 32  # length of the features that are compared


class Pyramid(NamedTuple):
    """What the network keeps of an image: (B, C, H / stride, W / stride) each."""

    s2: Tensor
    s4: Tensor
    s8: Tensor
    s16: Tensor
    likeness: Tensor  # (B, 32, H / 8, W / 8), unit length along C


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


class DenseClickNet(nn.Module):
    """Encoder and click decoder. ``norm=False`` builds the shipped form of the trunk."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        w2, w4, w8, w16 = WIDTHS
        self.trunk = MobileNetV2(norm)
        self.lateral2 = nn.Conv2d(TRUNK[0], w2, 1)
        self.lateral4 = nn.Conv2d(TRUNK[1], w4, 1)
        self.lateral8 = nn.Conv2d(TRUNK[2], w8, 1)
        self.lateral16 = nn.Conv2d(TRUNK[3], w16, 1)
        self.lateral32 = nn.Conv2d(TRUNK[4], w16, 1)
        self.likeness = nn.Conv2d(w8 + w16, LIKENESS, 1)

        self.prompt2 = unit(prompt.FINE_CHANNELS, w2)
        self.prompt4 = unit(prompt.CHANNELS, w4)
        self.prompt8 = unit(w4 + 2, w8)
        self.prompt16 = unit(w8, w16, stride=2)
        self.mix = nn.Sequential(Mixer(w16), Mixer(w16))
        self.down8 = nn.Conv2d(w16, w8, 1)
        self.fuse8 = nn.Sequential(unit(w8, w8), unit(w8, w8))
        self.down4 = nn.Conv2d(w8, w4, 1)
        self.fuse4 = nn.Sequential(unit(w4, w4), unit(w4, w4))
        self.head = nn.Conv2d(w4, 1, 1)
        self.down2 = nn.Conv2d(w4, w2, 1)
        self.fuse2 = nn.Sequential(unit(w2, w2), unit(w2, w2))
        self.correct = nn.Conv2d(w2, 1, 1, bias=False)
        nn.init.zeros_(self.correct.weight)  # it begins as no correction

    def encode(self, images: Tensor) -> Pyramid:
        """``images``: (B, 3, H, W) in [-1, 1], H and W multiples of 32."""
        f2, f4, f8, f16, f32 = self.trunk(images)
        s16 = self.lateral16(f16) + _double(self.lateral32(f32))
        s8 = self.lateral8(f8)
        likeness = F.normalize(self.likeness(torch.cat([s8, _double(s16)], 1)), dim=1)
        return Pyramid(self.lateral2(f2), self.lateral4(f4), s8, s16, likeness)

    def decode(self, pyramid: Pyramid, clicks: Tensor, previous: Tensor) -> Tensor:
        """``clicks``: (B, N, 3) as in ``prompt.rasterise``. ``previous``: (B, 1, H/2, W/2),
        probability of the previous mask, 0 at the first click.

        Returns logits (B, 1, H/2, W/2).
        """
        p4 = self.prompt4(prompt.rasterise(clicks, F.avg_pool2d(previous, 2)))
        alike = likeness_maps(pyramid.likeness, clicks)
        p8 = self.prompt8(torch.cat([F.avg_pool2d(p4, 2), alike], 1))
        x = self.mix(pyramid.s16 + self.prompt16(p8))
        x = self.fuse8(_double(self.down8(x)) + pyramid.s8 + p8)
        x = self.fuse4(_double(self.down4(x)) + pyramid.s4 + p4)
        coarse = _double(self.head(x))
        x = _double(self.down2(x)) + pyramid.s2 + self.prompt2(prompt.spots(clicks, previous))
        logits: Tensor = coarse + self.correct(self.fuse2(x))
        return logits


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


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
