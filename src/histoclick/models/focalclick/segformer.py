"""SegFormer (Xie et al. 2021) as FocalClick uses it: clicks join after the first stage.

Written here rather than taken from transformers, which keeps keys and values apart where the
official files keep them together. Names of modules are those of the official files. Inside, maps
are (B, H, W, C): what layer norms and linear layers read.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEADS = (1, 2, 5, 8)  # of the four stages
REDUCTIONS = (8, 4, 2, 1)  # of the sides of keys and values
DROP_PATH = 0.1  # of the last block in training; blocks before it drop less
DROPOUT = 0.1  # of the head's channels in training


class Width(NamedTuple):
    """What tells one SegFormer from another."""

    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    head: int  # channels of the head, and of the features it hands on


WIDTHS = {
    "B0": Width((32, 64, 160, 256), (2, 2, 2, 2), 256),
    "B3": Width((64, 128, 320, 512), (3, 4, 18, 3), 512),
}


class PatchEmbed(nn.Module):
    """A strided convolution whose windows overlap, and a layer norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, H / stride, W / stride, outputs)."""
        embedded: Tensor = self.norm(_channels_last(self.proj(x)))
        return embedded


class Attention(nn.Module):
    """Every place asks, a coarser grid answers."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        if reduction > 1:
            self.sr = nn.Conv2d(channels, channels, reduction, reduction)
            self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        batch, height, width, channels = x.shape
        query = self.q(x).view(batch, height * width, self.heads, -1).transpose(1, 2)
        if self.reduction > 1:
            x = self.norm(_channels_last(self.sr(_channels_first(x))))
        pairs = self.kv(x).view(batch, -1, 2, self.heads, channels // self.heads)
        key, value = pairs.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, height, width, channels))
        return mixed


class MixMLP(nn.Module):
    """Two linear layers with a depthwise convolution between, which tells where a place is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inside = 4 * channels
        self.fc1 = nn.Linear(channels, inside)
        depthwise = nn.Conv2d(inside, inside, 3, padding=1, groups=inside)
        self.dwconv = nn.Sequential(OrderedDict(dwconv=depthwise))
        self.fc2 = nn.Linear(inside, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        placed = _channels_last(self.dwconv(_channels_first(self.fc1(x))))
        mixed: Tensor = self.fc2(F.gelu(placed))
        return mixed


class Block(nn.Module):
    """Attention and MLP, each beside a shortcut; in training, ``drop`` of the samples skip them."""

    def __init__(self, channels: int, heads: int, reduction: int, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = Attention(channels, heads, reduction)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = MixMLP(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        x = x + self._kept(self.attn(self.norm1(x)))
        return x + self._kept(self.mlp(self.norm2(x)))

    def _kept(self, branch: Tensor) -> Tensor:
        if not self.training or not self.drop:
            return branch
        keep = 1 - self.drop
        return branch * (torch.rand((len(branch), 1, 1, 1), device=branch.device) < keep) / keep


class Encoder(nn.Module):
    """The four stages (Mix Transformer)."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        channels = width.channels
        drops = torch.linspace(0, DROP_PATH, sum(width.depths), device="cpu").tolist()
        self.patch_embed_side1 = PatchEmbed(3, channels[0], 7, 4)
        for stage in range(4):
            embed = (
                PatchEmbed(channels[stage - 1], channels[stage], 3, 2)
                if stage
                else PatchEmbed(3, channels[0], 7, 4)
            )
            blocks = [
                Block(channels[stage], HEADS[stage], REDUCTIONS[stage], drops.pop(0))
                for _ in range(width.depths[stage])
            ]
            self.add_module(f"patch_embed{stage + 1}", embed)
            self.add_module(f"block{stage + 1}", nn.Sequential(*blocks))
            self.add_module(f"norm{stage + 1}", nn.LayerNorm(channels[stage], eps=1e-6))

    def forward(self, image: Tensor, maps: Tensor) -> list[Tensor]:
        """Features (B, C, H / s, W / s) at strides s of 4, 8, 16, 32.

        ``image``: (B, 3, H, W), normalised; ``maps``: (B, 3, H, W) of previous mask and clicks.
        """
        side = _channels_first(self.patch_embed_side1(maps))
        x, features = image, []
        for stage in range(4):
            for part in ("patch_embed", "block", "norm"):
                x = self.get_submodule(f"{part}{stage + 1}")(x)
            x = _channels_first(x).contiguous()
            features.append(x)
            if stage == 0:
                x = x + side
        return features


class Head(nn.Module):
    """Brings the four stages to one width and grid, and fuses them."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        inside = width.head
        for stage, channels in enumerate(width.channels):
            linear = nn.Linear(channels, inside)
            self.add_module(f"linear_c{stage + 1}", nn.Sequential(OrderedDict(proj=linear)))
        self.linear_fuse = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(4 * inside, inside, 1, bias=False),
                bn=nn.BatchNorm2d(inside),
                activate=nn.ReLU(),
            )
        )
        self.dropout = nn.Dropout2d(DROPOUT)
        self.linear_pred = nn.Conv2d(inside, 1, 1)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, 1, h, w) and the features (B, head, h, w) they come from, at stride 4."""
        size = features[0].shape[2:]
        seen = []
        for stage in (3, 2, 1, 0):
            linear = self.get_submodule(f"linear_c{stage + 1}")
            x = _channels_first(linear(_channels_last(features[stage])))
            if stage:
                x = F.interpolate(x, size, mode="bilinear", align_corners=False)
            seen.append(x)
        feature = self.dropout(self.linear_fuse(torch.cat(seen, 1)))
        return self.linear_pred(feature), feature


class SegFormer(nn.Module):
    """Encoder and head."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        self.backbone = Encoder(width)
        self.decode_head = Head(width)

    def forward(self, image: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and features at stride 4; see ``Encoder.forward`` and ``Head.forward``."""
        logits, feature = self.decode_head(self.backbone(image, maps))
        return logits, feature


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)
