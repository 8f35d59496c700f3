"""The plain vision transformer of SimpleClick (Liu et al. 2023), as pre-trained by MAE.

ViT (Dosovitskiy et al. 2021) made cheaper as in ViTDet (Li et al. 2022): most blocks attend inside
windows, some to everything. Names of modules are those of the official files.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW_PX = 224  # side of the windows: that of the images seen in pre-training
CLASSES = 1000  # of ImageNet, which the unused classifier told apart


class Trunk(NamedTuple):
    """What tells one plain ViT from another. Sides of square patches and inputs in px.

    ``period``: every so many blocks, one attends to everything.
    """

    width: int
    depth: int
    heads: int
    period: int
    patch_px: int
    input_px: int


class PatchEmbed(nn.Module):
    """One token per patch: a linear layer on its pixels."""

    def __init__(self, width: int, patch_px: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_px, patch_px)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width, H / patch_px, W / patch_px)."""
        tokens: Tensor = self.proj(x)
        return tokens


class Attention(nn.Module):
    """Self-attention of N tokens in several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> the same shape."""
        batch, count, width = x.shape
        triple = self.qkv(x).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = triple.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, count, width))
        return mixed


class MLP(nn.Module):
    """Two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> the same shape."""
        mixed: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return mixed


class Block(nn.Module):
    """Attention and MLP, each beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> the same shape."""
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


class PlainViT(nn.Module):
    """Tokens of an image, with other features of the same patches added at the entrance."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        width, side = trunk.width, trunk.input_px // trunk.patch_px
        self.period = trunk.period
        self.window = WINDOW_PX // trunk.patch_px
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side**2, width))
        self.patch_embed = PatchEmbed(width, trunk.patch_px)
        self.blocks = nn.ModuleList(Block(width, trunk.heads) for _ in range(trunk.depth))
        # official files hold them, but nothing asks them
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width), requires_grad=False)
        self.fc_norm = nn.LayerNorm(width, eps=1e-6).requires_grad_(False)
        self.head = nn.Linear(width, CLASSES).requires_grad_(False)

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        """``image`` (B, 3, H, W), normalised, in whole windows; ``features`` (B, width, h, w) of
        its patches. Returns (B, width, h, w)."""
        x: Tensor = self.patch_embed(image) + features
        batch, width, rows, columns = x.shape
        x = x + grid_positions(self.pos_embed, rows, columns)
        # Positions, not their place in the row, tell blocks where tokens lie: sorted by windows
        # once, tokens are in the right order for both kinds of block.
        down, across = rows // self.window, columns // self.window
        x = x.view(batch, width, down, self.window, across, self.window).permute(0, 2, 4, 3, 5, 1)
        windows = x.shape
        for number, block in enumerate(self.blocks, start=1):
            groups = batch if number % self.period == 0 else batch * down * across
            x = block(x.reshape(groups, -1, width))
        x = x.view(windows).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(batch, width, rows, columns)


def grid_positions(embedding: Tensor, rows: int, columns: int) -> Tensor:
    """(1, C, rows, columns): the positions of ``embedding`` (1, 1 + n * n, C), whose first belongs
    to the class token, resized where the grid is another."""
    side = int((embedding.shape[1] - 1) ** 0.5)
    grid = embedding[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
    if (rows, columns) == (side, side):
        return grid
    return F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
