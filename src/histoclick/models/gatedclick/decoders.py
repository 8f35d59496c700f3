"""Decoders: from an image's pyramid, clicks and the last mask to a proposal for the next one."""

from __future__ import annotations

import importlib
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histoclick.models.gatedclick.parts import Parts
from histoclick.models.nets import clickrasters
from histoclick.models.nets.clickunits import Mixer, double, likeness_maps, unit


class Pyramid(NamedTuple):
    """What the network keeps of an image: (B, C, H / stride, W / stride) each; C is 0 where the
    decoder reads nothing."""

    s2: Tensor
    s4: Tensor
    s8: Tensor
    s16: Tensor
    likeness: Tensor  # (B, 32, H / 8, W / 8), unit length along C
    image: Tensor  # (B, 3, H, W) in [-1, 1]


class Draft(NamedTuple):
    """``proposal``: logits (B, 1, H/2, W/2). ``fine``: features (B, C2, H/2, W/2) it was read from.
    ``coarse``: (B, C16, H/16, W/16) that saw the whole image. C2, C16: first and last of
    ``Parts.widths``."""

    proposal: Tensor
    fine: Tensor
    coarse: Tensor


class DenseDecoder(nn.Module):
    """Prompt maps added scale by scale; mixed at stride 16, answered at 4, corrected at 2."""

    pyramidal = True

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self._parts = parts
        w2, w4, w8, w16 = parts.widths
        self.prompt2 = unit(clickrasters.FINE_CHANNELS, w2)
        self.prompt4 = unit(clickrasters.CHANNELS, w4)
        self.prompt8 = unit(w4 + 2, w8)
        self.prompt16 = unit(w8, w16, stride=2)
        self.mix = nn.Sequential(*(Mixer(w16) for _ in range(parts.mixers)))
        self.down8 = nn.Conv2d(w16, w8, 1)
        self.fuse8 = nn.Sequential(unit(w8, w8), unit(w8, w8))
        self.down4 = nn.Conv2d(w8, w4, 1)
        self.fuse4 = nn.Sequential(unit(w4, w4), unit(w4, w4))
        self.head = nn.Conv2d(w4, 1, 1)
        self.down2 = nn.Conv2d(w4, w2, 1)
        self.fuse2 = nn.Sequential(unit(w2, w2), unit(w2, w2))
        self.correct = nn.Conv2d(w2, 1, 1, bias=False)
        nn.init.zeros_(self.correct.weight)  # it begins as no correction

    def forward(self, pyramid: Pyramid, clicks: Tensor, previous: Tensor) -> Draft:
        """``clicks``: (B, N, 3) as in ``clickrasters``. ``previous``: (B, 1, H/2, W/2), probability
        of the last mask, 0 at the first click."""
        parts = self._parts
        maps = clickrasters.rasterise(clicks, F.avg_pool2d(previous, 2))
        if not parts.halos:
            maps = maps * maps.new_tensor([1, 0, 1, 0, 0, 1])[:, None, None]
        # A layout that differs from the weights' costs more than the convolution
        p4 = self.prompt4(maps.contiguous(memory_format=torch.channels_last))
        alike = likeness_maps(pyramid.likeness, clicks)
        p8 = self.prompt8(torch.cat([F.avg_pool2d(p4, 2), alike * float(parts.likeness)], 1))
        coarse = self.mix(pyramid.s16 + self.prompt16(p8))
        spots = clickrasters.spots(clicks, previous)
        p2 = self.prompt2(spots.contiguous(memory_format=torch.channels_last))
        if parts.skips:
            p8, p4, p2 = p8 + pyramid.s8, p4 + pyramid.s4, p2 + pyramid.s2
        x = self.fuse8(double(self.down8(coarse)) + p8)
        x = self.fuse4(double(self.down4(x)) + p4)
        first = double(self.head(x))
        fine = self.fuse2(double(self.down2(x)) + p2)
        return Draft(first + self.correct(fine), fine, coarse)


DECODERS = {
    "dense": "histoclick.models.gatedclick.decoders:DenseDecoder",
    "sam": "histoclick.models.gatedclick.twoway:SamDecoder",
    "paper": "histoclick.models.gatedclick.twoway:PaperDecoder",
    "segnext": "histoclick.models.gatedclick.fusion:FusionDecoder",
}


def decoder(parts: Parts) -> nn.Module:
    """The one that ``parts`` names. Only the module that it needs is imported."""
    module, name = DECODERS[parts.decoder].split(":")
    made: nn.Module = getattr(importlib.import_module(module), name)(parts)
    return made
