"""Training the built-in family by the general loop.

``train.builtin`` made the shipped weights, with targets of many kinds; this fine-tunes them on a
laboratory's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from histoclick.models.card import Card
from histoclick.models.denseclick.network import DenseClickNet, Pyramid, lowered
from histoclick.models.weights import check_keys, read_state_dict, shapes
from histoclick.train.losses import dice_loss, normalized_focal_loss
from histoclick.train.points import clicks_of
from histoclick.train.trainee import Answer, Group, Scenario, Trainee, check_scenario, saved

TRUNK = 0.3  # of the learning rate


class DenseClickTrainee(Trainee):
    """The built-in network while it learns; its norms stay folded."""

    net: DenseClickNet
    scenarios: Mapping[str, Scenario] = {
        "whole": Scenario("everything", lambda name: True),
        "md": Scenario("decoder", lambda name: not name.startswith("trunk."), frozen_encoder=False),
    }

    def __init__(self, net: DenseClickNet, crop_px: int, side_px: int) -> None:
        self.net = net
        self._crop_px = crop_px
        self._side_px = side_px

    def groups(self, scenario: str) -> list[Group]:
        """The trunk learns more slowly."""
        named = [(n, p) for n, p in self.net.named_parameters() if p.requires_grad]
        trunk = [p for name, p in named if name.startswith("trunk.")]
        rest = [p for name, p in named if not name.startswith("trunk.")]
        return [Group(rest), *([Group(trunk, TRUNK)] if trunk else [])]

    def encode(self, images: Tensor) -> Pyramid:
        """See ``DenseClickNet.encode``."""
        size = (self._side_px, self._side_px)
        large = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        return self.net.encode((2 * large - 1).contiguous(memory_format=torch.channels_last))

    def answer(self, encoded: Pyramid, points: Tensor, previous: Answer | None) -> Answer:
        """``memory``: probabilities (B, 1, side / 2, side / 2)."""
        before = torch.zeros_like(encoded.s2[:, :1]) if previous is None else previous.memory
        clicks = clicks_of(points, self._side_px / self._crop_px)
        low = self.net.decode(encoded, clicks, before).float()
        if previous is not None:
            low = lowered(low, before.float(), clicks)
        size = (self._crop_px, self._crop_px)
        logits = F.interpolate(low, size, mode="bilinear", align_corners=False)
        return Answer(logits, torch.sigmoid(low))

    def loss(self, answer: Answer, targets: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """As the shipped weights were trained, without the weights at the clicks."""
        focal = normalized_focal_loss(answer.logits, targets)
        return focal + 0.5 * dice_loss(answer.logits, targets)

    def save(self, folder: Path, card: Card) -> Card:
        """Stored as 16-bit floats, as the shipped weights are."""
        state = {name: value.half() for name, value in self.net.state_dict().items()}
        return saved(folder, card, state, "denseclick", card.architecture, self._side_px)


def start(card: Card, folder: Path, scenario: str, crop_px: int) -> DenseClickTrainee:
    """See ``Trainable``."""
    check_scenario(card, scenario, DenseClickTrainee.scenarios)
    net = DenseClickNet(norm=False)
    file = folder / "weights.safetensors"
    state = {key: value.float() for key, value in read_state_dict(file).items()}
    check_keys(shapes(state), shapes(net.state_dict()), str(file))
    net.load_state_dict(state)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return DenseClickTrainee(net, crop_px, card.input_size)
