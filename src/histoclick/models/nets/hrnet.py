"""HRNet (Wang et al. 2020) as the click models of the RITM lineage use it (Sofiiuk et al. 2022).

Grids of four resolutions side by side, at strides 4 to 32, which tell each other what they see; the
maps of clicks and previous mask join before the second convolution. Names of modules are those of
the official files.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histoclick.models.nets.ocr import ObjectContext, gather

STEM = 64  # channels of the first convolutions, and of the maps that join them
WIDE = 4 * STEM  # channels before the grids part


class Width(NamedTuple):
    """What tells one HRNet from another.

    ``channels``: of the finest grid; every coarser one has twice as many. ``depth``: blocks in a
    row. ``repeats``: exchanges in stages 2, 3 and 4. ``ocr``: channels of a description in the head
    (``ObjectContext``); its features have twice as many.
    """

    channels: int
    depth: int
    repeats: tuple[int, int, int]
    ocr: int


WIDTHS = {
    "hrnet18s": Width(18, 2, (1, 3, 2), 48),
    "hrnet18": Width(18, 4, (1, 4, 3), 64),
    "hrnet32": Width(32, 4, (1, 4, 3), 128),
}


class Seen(NamedTuple):
    """``logits``: (B, 1, h, w). ``auxiliary``: (B, 1, h, w), logits of the trunk alone, for the
    training loss. ``feature``: (B, 2 * ocr, h, w), what ``logits`` were made from."""

    logits: Tensor
    auxiliary: Tensor
    feature: Tensor


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, 3)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + x, inplace=True)


class Bottleneck(nn.Module):
    """A narrow 3x3 convolution between two 1x1 ones, beside a shortcut."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, STEM, 1)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.conv2 = _conv(STEM, STEM, 3)
        self.bn2 = nn.BatchNorm2d(STEM)
        self.conv3 = _conv(STEM, WIDE, 1)
        self.bn3 = nn.BatchNorm2d(WIDE)
        self.downsample = nn.Identity() if inputs == WIDE else _step(inputs, WIDE, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 256, H, W)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


class Exchange(nn.Module):
    """Blocks on every grid; then all grids tell each other what they see."""

    def __init__(self, channels: Sequence[int], depth: int) -> None:
        super().__init__()
        grids = range(len(channels))
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(channels[grid]) for _ in range(depth))) for grid in grids
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_path(channels, source, target) for source in grids) for target in grids
        )

    def forward(self, grids: list[Tensor]) -> list[Tensor]:
        """(B, channels[i], H / 2^i, W / 2^i) for every i -> the same shapes."""
        grids = [branch(grid) for branch, grid in zip(self.branches, grids, strict=True)]
        told = []
        for own, paths in zip(grids, self.fuse_layers, strict=True):
            from_each = zip(cast(nn.ModuleList, paths), grids, strict=True)
            heard = [_enlarge(path(grid), own) for path, grid in from_each]
            told.append(F.relu(reduce(torch.add, heard), inplace=True))
        return told


class HRNet(nn.Module):
    """Trunk and head."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        channels = [width.channels * 2**grid for grid in range(4)]
        self.conv1 = _conv(3, STEM, 3, 2)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.conv2 = _conv(STEM, STEM, 3, 2)
        self.bn2 = nn.BatchNorm2d(STEM)
        self.layer1 = nn.Sequential(*(Bottleneck(WIDE if i else STEM) for i in range(width.depth)))
        fine = _step(WIDE, channels[0], 3, relu=True)
        coarse = nn.Sequential(_step(WIDE, channels[1], 3, 2, relu=True))
        self.transition1 = nn.ModuleList([fine, coarse])
        self.stage2 = _stage(channels[:2], width.depth, width.repeats[0])
        self.transition2 = _coarser(channels, 2)
        self.stage3 = _stage(channels[:3], width.depth, width.repeats[1])
        self.transition3 = _coarser(channels, 3)
        self.stage4 = _stage(channels, width.depth, width.repeats[2])
        together, inside = sum(channels), 2 * width.ocr
        self.aux_head = nn.Sequential(
            nn.Conv2d(together, together, 1),
            nn.BatchNorm2d(together),
            nn.ReLU(inplace=True),
            nn.Conv2d(together, 1, 1),
        )
        self.conv3x3_ocr = nn.Sequential(
            nn.Conv2d(together, inside, 3, padding=1),
            nn.BatchNorm2d(inside),
            nn.ReLU(inplace=True),
        )
        self.ocr_distri_head = ObjectContext(inside, width.ocr)
        self.cls_head = nn.Conv2d(inside, 1, 1)

    def forward(self, image: Tensor, maps: Tensor) -> Seen:
        """At stride 4. ``image``: (B, 3, H, W), normalised; ``maps``: (B, 64, H / 2, W / 2)."""
        x = F.relu(self.bn1(self.conv1(image)), inplace=True) + maps
        x = self.layer1(F.relu(self.bn2(self.conv2(x)), inplace=True))
        grids = self.stage2([transition(x) for transition in self.transition1])
        grids = self.stage3([*grids, self.transition2["2"](grids[-1])])
        grids = self.stage4([*grids, self.transition3["3"](grids[-1])])
        x = torch.cat([_enlarge(grid, grids[0]) for grid in grids], 1)
        auxiliary = self.aux_head(x)
        feature = self.conv3x3_ocr(x)
        feature = self.ocr_distri_head(feature, gather(feature, auxiliary))
        return Seen(self.cls_head(feature), auxiliary, feature)


class Scale(nn.Module):
    """One learned factor, never negative."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 0.05))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * self.scale.abs()


def maps_transform(kernel: int = 1, stride: int = 1, outputs: int = STEM) -> nn.Sequential:
    """What makes the three maps of previous mask and clicks ready to join a backbone: (B, 3, H, W)
    -> (B, outputs, H / 2 / stride, W / 2 / stride)."""
    return nn.Sequential(
        nn.Conv2d(3, 16, kernel, stride, kernel // 2),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, outputs, 3, 2, 1),
        Scale(),
    )


def _stage(channels: Sequence[int], depth: int, repeats: int) -> nn.Sequential:
    return nn.Sequential(*(Exchange(channels, depth) for _ in range(repeats)))


def _coarser(channels: Sequence[int], grid: int) -> nn.ModuleDict:
    """Opens a grid below those there are."""
    step = _step(channels[grid - 1], channels[grid], 3, 2, relu=True)
    return nn.ModuleDict({str(grid): nn.Sequential(step)})


def _path(channels: Sequence[int], source: int, target: int) -> nn.Module:
    """From one grid to another: halved step by step, or made ready to be enlarged."""
    if source == target:
        return nn.Identity()
    if source > target:
        return _step(channels[source], channels[target], 1)
    steps = [
        _step(channels[source], channels[source], 3, 2, relu=True)
        for _ in range(target - source - 1)
    ]
    return nn.Sequential(*steps, _step(channels[source], channels[target], 3, 2))


def _step(
    inputs: int, outputs: int, kernel: int, stride: int = 1, *, relu: bool = False
) -> nn.Sequential:
    layers = [_conv(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W) of ``like``, bilinear, corner centres on corner centres."""
    size = like.shape[2:]
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=True)
