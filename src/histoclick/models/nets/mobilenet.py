"""The MobileNetV2 trunk (Sandler et al. 2018) as a pyramid of features.

Padding follows TensorFlow ("same"), because the ImageNet weights we start from came from there.
After training the batch norms are folded into the convolutions (``fold``), so that the shipped
network is convolutions and ReLU6 only.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# (expansion, channels, repeats, first stride), Table 2 of the paper, without its classifier
STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
TAPS = (0, 2, 5, 12, 16)  # blocks whose outputs leave the trunk
CHANNELS = (16, 24, 32, 96, 320)  # of the outputs, at strides 2, 4, 8, 16, 32


class ConvUnit(nn.Module):
    """Convolution, optional batch norm, optional ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1,
        activate: bool = True, norm: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, 0, groups=groups, bias=not norm)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.05) if norm else nn.Identity()
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        (kernel, _), (stride, _) = self.conv.kernel_size, self.conv.stride
        if kernel == 3 and stride == 1:
            x = F.pad(x, (1, 1, 1, 1))
        elif kernel == 3:  # an even side gets its one padding row at the end, as in TensorFlow
            height, width = x.shape[-2:]
            x = F.pad(x, (width % 2, 1, height % 2, 1))
        x = self.norm(self.conv(x))
        return F.relu6(x) if self.activate else x

    @torch.no_grad()
    def fold(self) -> None:
        """Replace convolution and batch norm by one convolution that computes the same."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = nn.utils.fusion.fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project; with a shortcut where shapes allow."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, norm: bool) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [ConvUnit(inputs, hidden, norm=norm)] if expansion > 1 else []
        self.body = nn.Sequential(
            *expand,
            ConvUnit(hidden, hidden, 3, stride, groups=hidden, norm=norm),
            ConvUnit(hidden, outputs, activate=False, norm=norm),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y: Tensor = self.body(x)
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> features at strides 2 to 32 (``CHANNELS``). 1.8 M parameters.

    ``norm=False`` builds the folded network.
    """

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.stem = ConvUnit(3, 32, 3, 2, norm=norm)
        blocks, inputs = [], 32
        for expansion, channels, repeats, stride in STAGES:
            for i in range(repeats):
                blocks.append(
                    InvertedResidual(inputs, channels, expansion, stride if i == 0 else 1, norm)
                )
                inputs = channels
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The features that leave the trunk, finest first."""
        x = self.stem(x)
        features = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in TAPS:
                features.append(x)
        return features

    def units(self) -> list[ConvUnit]:
        """All convolution units in the order of computation."""
        bodies = (cast(InvertedResidual, block).body for block in self.blocks)
        return [self.stem, *(cast(ConvUnit, unit) for body in bodies for unit in body)]

    def fold(self) -> None:
        """Fold every batch norm into its convolution, in place; the function stays the same."""
        for unit in self.units():
            unit.fold()


@torch.no_grad()
def calibrate(trunk: MobileNetV2, folded: dict[str, Tensor], images: Tensor) -> None:
    """Start a trunk with batch norms from folded weights without changing its function.

    ``folded``: state dict whose entries are ordered weight, bias per unit. ``images``: (B, 3, H, W)
    in [-1, 1], a few dozen typical ones: each norm takes its statistics from them, so that training
    continues in train mode from sensible values.
    """
    trunk.eval()
    values = [value.float() for value in folded.values()]
    for unit, weight, bias in zip(trunk.units(), values[0::2], values[1::2], strict=True):
        norm = cast(nn.BatchNorm2d, unit.norm)
        unit.conv.weight.copy_(weight)
        seen: list[Tensor] = []
        hook = unit.conv.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))
        trunk(images)
        hook.remove()
        variance, mean = torch.var_mean(seen[0], (0, 2, 3))
        norm.running_mean = mean
        norm.running_var = variance
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean + bias)
