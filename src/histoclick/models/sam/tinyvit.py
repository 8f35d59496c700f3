"""TinyViT-5M, the image encoder of MobileSAM (Wu et al. 2022; Zhang et al. 2023).

Two convolutional stages bring 1024x1024 px to 64x64 places, two more mix within windows. Official
names of the weights, but for ``stages`` (officially ``layers``, which SAM's own encoder has too)
and the neck, which is SAM's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histoclick.models.sam.windows import cut, join

MLP_RATIO = 4
CLASSES = 1000  # of the classifier in front of the neck: in the files, but never asked


class Stage(NamedTuple):
    """One stage. ``heads`` and ``window_px`` are 0 where it only convolves."""

    width: int
    depth: int
    heads: int
    window_px: int
    halves: bool  # whether the next stage sees half the places in each direction


STAGES = (
    Stage(64, 2, 0, 0, True),
    Stage(128, 2, 4, 7, True),
    Stage(160, 6, 5, 14, False),
    Stage(320, 2, 10, 7, False),
)


class TinyViT(nn.Module):
    """Pixels (B, 3, 4 s, 4 s) to an embedding (B, 256, s / 4, s / 4)."""

    def __init__(self, stages: tuple[Stage, ...], neck: nn.Module) -> None:
        """``neck``: a ``SamVisionNeck`` for the width of the last stage."""
        super().__init__()
        first, last = stages[0].width, stages[-1].width
        stem = [ConvNorm(3, first // 2, 3, 2), nn.GELU(), ConvNorm(first // 2, first, 3, 2)]
        self.patch_embed = nn.ModuleDict({"seq": nn.Sequential(*stem)})
        following = [stage.width for stage in stages[1:]]
        self.stages = nn.ModuleList(map(TinyStage, stages, [*following, 0]))
        self.norm_head = nn.LayerNorm(last)
        self.head = nn.Linear(last, CLASSES)
        self.neck = neck

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """The embedding, alone in a tuple as transformers' encoders give it."""
        x = self.patch_embed["seq"](pixels)
        for stage in self.stages:
            x = stage(x)
        return (self.neck(x.permute(0, 2, 3, 1)),)


class TinyStage(nn.Module):
    """(B, C, H, W) to what the next stage takes; ``following`` is its width, 0 if there is none."""

    def __init__(self, stage: Stage, following: int) -> None:
        super().__init__()
        kind = AttentionBlock if stage.heads else ConvBlock
        self.blocks = nn.Sequential(*(kind(stage) for _ in range(stage.depth)))
        self.downsample = Merge(stage, following) if following else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.downsample(self.blocks(x))
        return x


class ConvNorm(nn.Sequential):
    """A convolution without bias, then batch normalisation."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        padding = kernel // 2
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)


class ConvBlock(nn.Module):
    """An inverted bottleneck (MobileNetV2) with the last activation behind the sum."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        wide = MLP_RATIO * stage.width
        self.conv1 = ConvNorm(stage.width, wide)
        self.conv2 = ConvNorm(wide, wide, 3, groups=wide)
        self.conv3 = ConvNorm(wide, stage.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        wide = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(wide))


class Merge(nn.Module):
    """Between two stages: to the next width, and maybe to half the places."""

    def __init__(self, stage: Stage, following: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(stage.width, following)
        self.conv2 = ConvNorm(following, following, 3, 1 + stage.halves, following)
        self.conv3 = ConvNorm(following, following)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, following, H / 2, W / 2), or (B, following, H, W)."""
        x = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return x


class AttentionBlock(nn.Module):
    """Attention within windows, a depthwise convolution across them, and an MLP."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.attn = WindowAttention(stage.width, stage.heads, stage.window_px)
        self.local_conv = ConvNorm(stage.width, stage.width, 3, groups=stage.width)
        self.mlp = Mlp(stage.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        x = x + self.attn(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.local_conv(x)
        x = x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x


class WindowAttention(nn.Module):
    """Attention within windows, with one learnt bias per head and distance.

    The right and lower windows are filled up with zeros, and as in the reference these take part:
    they are normalised like everything else, and attended to.
    """

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, side * side))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        height, width, side = *x.shape[1:3], self.side
        windows = cut(F.pad(x, (0, 0, 0, -width % side, 0, -height % side)), side)
        tokens = windows.reshape(-1, side * side, x.shape[3])
        # per head first its query, then its key, then its value
        qkv = self.qkv(self.norm(tokens)).view(*tokens.shape[:2], self.heads, 3, -1)
        query, key, value = qkv.permute(3, 0, 2, 1, 4)
        out = F.scaled_dot_product_attention(query, key, value, self.biases())
        out = self.proj(out.transpose(1, 2).flatten(2))
        return join(out.view(windows.shape), height, width)

    def biases(self) -> Tensor:
        """(heads, places, places): of every query and key in a window."""
        at = torch.arange(self.side, device=self.attention_biases.device)
        apart = (at[:, None] - at).abs()
        index = apart[:, None, :, None] * self.side + apart[None, :, None, :]
        return self.attention_biases[:, index.flatten(2).flatten(0, 1)]


class Mlp(nn.Module):
    """For every place on its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same."""
        x = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return x
