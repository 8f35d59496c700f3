"""SimpleClick's network (Liu et al. 2023): plain ViT, simple feature pyramid, all-MLP head.

Names of modules are those of the official files.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histoclick.models.clickmaps import disks
from histoclick.models.nets.normalise import Normalise
from histoclick.models.simpleclick.vit import PatchEmbed, PlainViT, Trunk

RADIUS = 5  # of clicks, px on the input
DROPOUT = 0.1  # of the head's channels in training


class Variant(NamedTuple):
    """What tells one published network from another.

    ``pyramid``: channels at strides 4, 8, 16 and 32. ``fused``: channels of the head.
    ``doublings``: of the head's grid by up-convolutions, from stride 4 on.
    """

    trunk: Trunk
    pyramid: tuple[int, int, int, int]
    fused: int
    doublings: int = 0


_BASE = Trunk(768, 12, 12, 6, 16, 448)
_BASE_PYRAMID = (128, 256, 512, 1024)
VARIANTS = {
    "xtiny448": Variant(Trunk(160, 8, 4, 2, 16, 448), (96, 192, 288, 384), 128),
    "base224": Variant(_BASE._replace(input_px=224), _BASE_PYRAMID, 256),
    "base448": Variant(_BASE, _BASE_PYRAMID, 256),
    "base448_upx2": Variant(_BASE, _BASE_PYRAMID, 256, 1),
    "base448_upx4": Variant(_BASE, _BASE_PYRAMID, 256, 2),
    "large448": Variant(Trunk(1024, 24, 16, 6, 16, 448), (192, 384, 768, 1536), 256),
    "huge448": Variant(Trunk(1280, 32, 16, 8, 14, 448), (240, 480, 960, 1920), 256),
}


class Pyramid(nn.Module):
    """Four grids made of one (ViTDet's simple feature pyramid; Li et al. 2022)."""

    def __init__(self, width: int, outputs: tuple[int, int, int, int]) -> None:
        super().__init__()
        finest, fine, middle, coarse = outputs
        inside = max(2 * finest, width // 2)
        self.down_4 = nn.Sequential(
            nn.ConvTranspose2d(width, inside, 2, 2),
            _norm(inside),
            nn.GELU(),
            nn.ConvTranspose2d(inside, inside // 2, 2, 2),
            _norm(inside // 2),
            nn.Conv2d(inside // 2, finest, 1),
            _norm(finest),
            nn.GELU(),
        )
        inside = max(fine, width // 2)
        self.down_8 = _rescaled(nn.ConvTranspose2d(width, inside, 2, 2), inside, fine)
        self.down_16 = nn.Sequential(nn.Conv2d(width, middle, 1), _norm(middle), nn.GELU())
        inside = max(coarse, 2 * width)
        self.down_32 = _rescaled(nn.Conv2d(width, inside, 2, 2), inside, coarse)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, width, h, w) -> (B, C, s * h, s * w) for scales s of 4, 2, 1 and 1/2."""
        return [self.down_4(x), self.down_8(x), self.down_16(x), self.down_32(x)]


class Fusion(nn.Module):
    """One linear layer on all grids of a pyramid, each of ``channels``, at the finest."""

    def __init__(self, grids: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(grids * channels, channels, 1)

    def forward(self, grids: Sequence[Tensor]) -> Tensor:
        """(B, channels, s * h, s * w) at falling scales s -> (B, channels, h, w) of the first."""
        # Mixing channels and resizing commute: coarse grids are mixed while they are small.
        first, *weights = self.conv.weight.chunk(len(grids), 1)
        x = F.conv2d(grids[0], first, self.conv.bias)
        for grid, weight in zip(grids[1:], weights, strict=True):
            mixed = F.conv2d(grid, weight)
            x = x + F.interpolate(mixed, x.shape[2:], mode="bilinear", align_corners=False)
        return F.relu(x)


class Head(nn.Module):
    """Brings the pyramid to one width and grid, fuses it, and refines it with up-convolutions."""

    def __init__(self, inputs: tuple[int, ...], fused: int, doublings: int) -> None:
        super().__init__()
        self.doublings = doublings
        self.conv_seg = nn.Conv2d(fused >> doublings, 1, 1)
        self.convs = nn.ModuleList(
            nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, fused, 1), activate=nn.ReLU()))
            for channels in inputs
        )
        self.fusion_conv = Fusion(len(inputs), fused)
        # official files hold both, whether they are asked or not
        self.up_conv1 = _rescaled(nn.ConvTranspose2d(fused, fused // 2, 2, 2), fused // 2)
        self.up_conv2 = _rescaled(nn.ConvTranspose2d(fused // 2, fused // 4, 2, 2), fused // 4)
        for spare in (self.up_conv1, self.up_conv2)[doublings:]:
            spare.requires_grad_(False)
        self.dropout = nn.Dropout2d(DROPOUT)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Logits (B, 1, h, w), on the finest grid or finer."""
        seen = [conv(grid) for conv, grid in zip(self.convs, pyramid, strict=True)]
        x = self.fusion_conv(seen)
        for up in (self.up_conv1, self.up_conv2)[: self.doublings]:
            x = up(x)
        logits: Tensor = self.conv_seg(self.dropout(x))
        return logits


class SimpleClickNet(nn.Module):
    """The whole network."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        trunk = variant.trunk
        self.normalise = Normalise()
        self.patch_embed_coords = PatchEmbed(trunk.width, trunk.patch_px)
        self.backbone = PlainViT(trunk)
        self.neck = Pyramid(trunk.width, variant.pyramid)
        self.head = Head(variant.pyramid, variant.fused, variant.doublings)

    def forward(self, inputs: Tensor, points: Tensor) -> Tensor:
        """Logits (B, 1, H, W).

        ``inputs``: (B, 4, H, W), RGB in 0..1 and the probabilities of the previous mask, in whole
        windows. ``points``: (B, 2n, 3) on it, as in ``clickmaps``.
        """
        image, before = inputs[:, :3], inputs[:, 3:]
        height, width = image.shape[2:]
        maps = torch.cat([before, disks(points, height, width, RADIUS)], 1)
        tokens = self.backbone(self.normalise(image), self.patch_embed_coords(maps))
        logits = self.head(self.neck(tokens))
        return F.interpolate(logits, (height, width), mode="bilinear", align_corners=True)


def build(architecture: str, state: Mapping[str, Tensor] | None = None) -> SimpleClickNet:
    """The network called ``architecture``, float32 on the CPU; random weights without a ``state``.

    ``state``: official names; it is taken over without a copy, which saves the seconds that the
    random weights of a large network take.
    """
    if state is None:
        return SimpleClickNet(VARIANTS[architecture])
    with torch.device("meta"):
        net = SimpleClickNet(VARIANTS[architecture])
    net.load_state_dict(state, assign=True)
    net.normalise = Normalise()  # its numbers are not in the state
    return net.float()


def expected_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Official names and shapes of every weight."""
    with torch.device("meta"):
        net = SimpleClickNet(VARIANTS[architecture])
    return {name: tuple(weight.shape) for name, weight in net.state_dict().items()}


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """The architecture whose official weights ``state`` are, told by the shapes that differ.

    Click features in patches tell the files from those of other click models on plain ViTs.
    """
    marks = ("patch_embed_coords.proj.weight", "backbone.pos_embed", "head.conv_seg.weight")
    found = [tuple(state[name].shape) for name in marks if name in state]
    for architecture in VARIANTS:
        expected = expected_shapes(architecture)
        if found == [expected[name] for name in marks]:
            return architecture
    return None


def _norm(channels: int) -> nn.GroupNorm:
    """Over all channels and places of one sample."""
    return nn.GroupNorm(1, channels)


def _rescaled(
    rescale: nn.Conv2d | nn.ConvTranspose2d, inside: int, outputs: int | None = None
) -> nn.Sequential:
    """Another grid, ``inside`` channels, then ``outputs`` of them."""
    outputs = outputs or inside
    last = nn.Conv2d(inside, outputs, 1)
    return nn.Sequential(rescale, _norm(inside), last, _norm(outputs), nn.GELU())
