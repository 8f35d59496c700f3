"""Training networks that see image, clicks and previous mask at once (RITM, SimpleClick).

The memory between clicks is the probability map, as in the published training.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histoclick.train.losses import binary_cross_entropy, normalized_focal_loss
from histoclick.train.trainee import Answer, Group, Scenario, Trainee

AUXILIARY = 0.4  # weight of the logits from before the head


class Seen(NamedTuple):
    """``logits`` and, if the network has them, ``auxiliary`` ones: (B, 1, h, w) each."""

    logits: Tensor
    auxiliary: Tensor | None


class EarlyFusionTrainee(Trainee):
    """Scales crops of ``crop_px`` to the ``side_px`` that the network works at.

    ``untrained``: the weights are random, so that nothing is there to be kept by a slower rate.
    """

    scenarios: Mapping[str, Scenario] = {"whole": Scenario("everything", lambda name: True)}
    slow: tuple[str, ...] = ()  # beginnings of names that learn at ``slow_scale`` times the rate
    slow_scale = 0.1

    def __init__(
        self, net: nn.Module, crop_px: int, side_px: int, *, untrained: bool = False
    ) -> None:
        self.net = net
        self._crop_px = crop_px
        self._side_px = side_px
        self._untrained = untrained

    @abstractmethod
    def look(self, inputs: Tensor, points: Tensor) -> Seen:
        """``inputs``: (B, 4, side, side), RGB in 0..1 and the probabilities of the previous mask;
        ``points`` on it."""

    def groups(self, scenario: str) -> list[Group]:
        """Backbones that came pretrained learn at another rate, as published."""
        named = [(n, p) for n, p in self.net.named_parameters() if p.requires_grad]
        if self._untrained:
            return [Group([p for _, p in named])]
        slow = [p for name, p in named if self._is_slow(name)]
        rest = [p for name, p in named if not self._is_slow(name)]
        return [Group(rest), *([Group(slow, self.slow_scale)] if slow else [])]

    def encode(self, images: Tensor) -> Tensor:
        """The images at the network's size."""
        return self._resized(images, self._side_px)

    def answer(self, encoded: Tensor, points: Tensor, previous: Answer | None) -> Answer:
        """``memory``: probabilities (B, 1, side, side). ``parts``: ``Seen``."""
        before = torch.zeros_like(encoded[:, :1]) if previous is None else previous.memory
        seen = self.look(torch.cat([encoded, before], 1), self._placed(points))
        logits = self._resized(seen.logits.float(), self._crop_px)
        return Answer(logits, torch.sigmoid(seen.logits.float()), seen)

    def loss(self, answer: Answer, targets: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Normalized focal loss, and cross entropy of the auxiliary logits."""
        losses = normalized_focal_loss(answer.logits, targets)
        if answer.parts.auxiliary is not None:
            auxiliary = self._resized(answer.parts.auxiliary.float(), self._crop_px)
            losses = losses + AUXILIARY * binary_cross_entropy(auxiliary, targets)
        return losses

    def _is_slow(self, name: str) -> bool:
        return name.startswith(self.slow) if self.slow else False

    def _placed(self, points: Tensor) -> Tensor:
        """Points on the crop, where the resized crop has them: corners on corners."""
        scale = (self._side_px - 1) / (self._crop_px - 1)
        places = points[:, :, :2]
        moved = torch.where(places.amax(2, keepdim=True) < 0, places, places * scale)
        return torch.cat([moved, points[:, :, 2:]], 2)

    def _resized(self, maps: Tensor, side_px: int) -> Tensor:
        if maps.shape[2] == side_px:
            return maps
        return F.interpolate(maps, (side_px, side_px), mode="bilinear", align_corners=True)
