"""RITM's network: HRNet with OCR, told of clicks and previous mask through maps.

Names of modules are those of the official files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histoclick.models.clickmaps import disks
from histoclick.models.nets.hrnet import WIDTHS, HRNet, Width, maps_transform
from histoclick.models.nets.normalise import Normalise

RADIUS = 5  # px, of the disks that show clicks


class Answer(NamedTuple):
    """``logits``: (B, 1, H, W), at the size of the input. ``auxiliary``: the same from before the
    head, for the training loss only."""

    logits: Tensor
    auxiliary: Tensor


class RitmNet(nn.Module):
    """Image, clicks and previous mask to logits."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.maps_transform = maps_transform()
        self.feature_extractor = HRNet(width)

    def forward(self, inputs: Tensor, points: Tensor) -> Tensor:
        """Logits (B, 1, H, W). ``inputs``: (B, 4, H, W), RGB in 0..1 and the probabilities of the
        previous mask; ``points``: (B, 2n, 3) on it as in ``clickmaps``."""
        return self.answer(inputs, points).logits

    def answer(self, inputs: Tensor, points: Tensor) -> Answer:
        """What training asks for; see ``forward``."""
        image, before = inputs[:, :3], inputs[:, 3:]
        height, width = image.shape[2:]
        maps = torch.cat([before, disks(points, height, width, RADIUS)], 1)
        seen = self.feature_extractor(self.normalise(image), self.maps_transform(maps))
        return Answer(
            *(
                F.interpolate(logits, (height, width), mode="bilinear", align_corners=True)
                for logits in (seen.logits, seen.auxiliary)
            )
        )


def build(architecture: str, state: Mapping[str, Tensor] | None = None) -> RitmNet:
    """The network called ``architecture``, float32 on the CPU; random weights without a ``state``
    (official names)."""
    net = RitmNet(WIDTHS[architecture])
    if state is not None:
        net.load_state_dict(state)
    return net


def expected_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Official names and shapes of every weight."""
    with torch.device("meta"):
        net = RitmNet(WIDTHS[architecture])
    return {name: tuple(weight.shape) for name, weight in net.state_dict().items()}


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """The architecture whose official weights ``state`` are, told by what differs.

    FocalClick's files have the same weights, and its refiner's besides.
    """
    if any(name.startswith("refiner.") for name in state):
        return None
    names = ("feature_extractor.transition1.0.1.weight", "feature_extractor.cls_head.weight")
    found = tuple(tuple(state[name].shape) for name in names if name in state)
    for architecture, width in WIDTHS.items():
        if found == ((width.channels,), (1, 2 * width.ocr, 1, 1)):
            return architecture
    return None
