"""The network of the built-in model.

Once per image, a MobileNetV2 trunk gives a pyramid at strides 2 to 16. At every click, prompt maps
(``clickrasters``) are added to the pyramid scale by scale, and *likeness maps* say how much every
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

from histoclick.models.compliance import CERTAIN
from histoclick.models.nets import clickrasters
from histoclick.models.nets.clickunits import Mixer, double, likeness_maps, unit
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

        self.prompt2 = unit(clickrasters.FINE_CHANNELS, w2)
        self.prompt4 = unit(clickrasters.CHANNELS, w4)
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
        s16 = self.lateral16(f16) + double(self.lateral32(f32))
        s8 = self.lateral8(f8)
        likeness = F.normalize(self.likeness(torch.cat([s8, double(s16)], 1)), dim=1)
        return Pyramid(self.lateral2(f2), self.lateral4(f4), s8, s16, likeness)

    def decode(self, pyramid: Pyramid, clicks: Tensor, previous: Tensor) -> Tensor:
        """``clicks``: (B, N, 3) as in ``clickrasters.rasterise``. ``previous``: (B, 1, H/2, W/2),
        probability of the previous mask, 0 at the first click.

        Returns logits (B, 1, H/2, W/2).
        """
        p4 = self.prompt4(clickrasters.rasterise(clicks, F.avg_pool2d(previous, 2)))
        alike = likeness_maps(pyramid.likeness, clicks)
        p8 = self.prompt8(torch.cat([F.avg_pool2d(p4, 2), alike], 1))
        x = self.mix(pyramid.s16 + self.prompt16(p8))
        x = self.fuse8(double(self.down8(x)) + pyramid.s8 + p8)
        x = self.fuse4(double(self.down4(x)) + pyramid.s4 + p4)
        coarse = double(self.head(x))
        x = double(self.down2(x)) + pyramid.s2 + self.prompt2(clickrasters.spots(clicks, previous))
        logits: Tensor = coarse + self.correct(self.fuse2(x))
        return logits


def lowered(logits: Tensor, before: Tensor, clicks: Tensor) -> Tensor:
    """``logits`` (B, 1, h, w) of ``decode``; after a negative click none is higher than before, so
    that it takes away and adds nothing, anywhere.

    ``before``: (B, 1, h, w), probability of the previous mask. ``clicks``: (B, N, 3), as there.
    """
    order = torch.arange(1, clicks.shape[1] + 1, device=clicks.device)
    signs = clicks[:, :, 2]
    last = signs.gather(1, ((signs != 0) * order).argmax(1, keepdim=True))[:, :, None, None]
    return torch.where(last < 0, torch.minimum(logits, torch.logit(before, CERTAIN)), logits)
