"""Training the gated family by the general loop, and what any training of it minimises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from histoclick.models.card import Card
from histoclick.models.gatedclick.decoders import Pyramid
from histoclick.models.gatedclick.network import Decoded, GatedClickNet
from histoclick.models.gatedclick.segmenter import build
from histoclick.models.nets.clickrasters import click_distances, last_click
from histoclick.train.losses import dice_loss, normalized_focal_loss
from histoclick.train.points import clicks_of
from histoclick.train.trainee import Answer, Group, Scenario, Trainee, check_scenario, saved

TRUNK = 0.3  # of the learning rate
# Weights of the parts of the loss beside the focal loss of the answer
DICE, PROPOSAL, GATE, OBEY, HARM, QUALITY = 0.5, 0.25, 0.2, 0.1, 0.5, 0.5
HARM_PX = 48.0  # from the click; damage much nearer is not called harm


class Turn(NamedTuple):
    """One click as the network saw it: ``clicks`` (B, N, 3), ``before`` (B, 1, H, W) logits,
    ``begun`` (B,), and its answer."""

    clicks: Tensor
    before: Tensor
    begun: Tensor
    decoded: Decoded


def turn_loss(turn: Turn, targets: Tensor, weight: Tensor | None = None) -> Tensor:
    """(B,) float32. ``targets``: (B, 1, H, W), 0 or 1, in the network's frame. ``weight``: as in
    ``normalized_focal_loss``."""
    clicks, before, begun, decoded = turn
    logits, there = decoded.logits.float(), begun.view(-1, 1, 1, 1)
    size = (targets.shape[2], targets.shape[3])
    proposal = F.interpolate(decoded.proposal, size, mode="bilinear", align_corners=False)
    loss = normalized_focal_loss(logits, targets, weight)
    loss = loss + DICE * dice_loss(logits, targets)
    loss = loss + PROPOSAL * normalized_focal_loss(proposal, targets, weight)
    wrong_before = ((before > 0) != (targets > 0.5)).float()
    if decoded.gate is not None:
        error = F.avg_pool2d(wrong_before, 2)
        entropy = F.binary_cross_entropy_with_logits(decoded.gate.float(), error, reduction="none")
        loss = loss + GATE * begun * entropy.mean((1, 2, 3))
    loss = loss + OBEY * _disobedience(logits, clicks)
    wrong = (targets - torch.sigmoid(logits)).abs()
    worse = F.relu(wrong - (targets - torch.sigmoid(before)).abs())
    far = 1 - torch.exp(-_distance(clicks, size) / HARM_PX)
    loss = loss + HARM * begun * (there * (1 - wrong_before) * worse * far).mean((1, 2, 3))
    error_of_iou = decoded.quality.float() - iou(logits > 0, targets > 0.5)
    return loss + QUALITY * error_of_iou.square()


def iou(predicted: Tensor, wanted: Tensor) -> Tensor:
    """(B,) of masks (B, 1, H, W)."""
    both, either = (predicted & wanted).sum((1, 2, 3)), (predicted | wanted).sum((1, 2, 3))
    return torch.true_divide(both, either.clamp(min=1))


def _disobedience(logits: Tensor, clicks: Tensor) -> Tensor:
    """(B,): mean cross entropy of the clicked pixels."""
    height, width = logits.shape[2:]
    x = clicks[:, :, 0].round().long().clamp(0, width - 1)
    y = clicks[:, :, 1].round().long().clamp(0, height - 1)
    said = logits.flatten(1).gather(1, y * width + x)
    sign = clicks[:, :, 2]
    real = sign != 0
    return (F.softplus(-sign * said) * real).sum(1) / real.sum(1).clamp(min=1)


def _distance(clicks: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W): px from the last click."""
    last = last_click(clicks)[:, None]
    return click_distances(last, size, 1)


class GatedClickTrainee(Trainee):
    """A network of this family while it learns; its norms stay folded."""

    net: GatedClickNet
    scenarios: Mapping[str, Scenario] = {
        "whole": Scenario("everything", lambda name: True),
        "md": Scenario("decoder", lambda name: not name.startswith("trunk.")),
    }

    def __init__(self, net: GatedClickNet, architecture: str, crop_px: int, side_px: int) -> None:
        self.net = net
        self._architecture = architecture
        self._crop_px = crop_px
        self._side_px = side_px

    def groups(self, scenario: str) -> list[Group]:
        """The trunk learns more slowly."""
        named = [(n, p) for n, p in self.net.named_parameters() if p.requires_grad]
        trunk = [p for name, p in named if name.startswith("trunk.")]
        rest = [p for name, p in named if not name.startswith("trunk.")]
        return [Group(rest), *([Group(trunk, TRUNK)] if trunk else [])]

    def encode(self, images: Tensor) -> Pyramid:
        """See ``GatedClickNet.encode``."""
        size = (self._side_px, self._side_px)
        large = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        return self.net.encode((2 * large - 1).contiguous(memory_format=torch.channels_last))

    def answer(self, encoded: Pyramid, points: Tensor, previous: Answer | None) -> Answer:
        """``memory``: logits (B, 1, side, side). ``parts``: a ``Turn``."""
        clicks = clicks_of(points, self._side_px / self._crop_px)
        before = torch.zeros_like(encoded.image[:, :1]) if previous is None else previous.memory
        begun = before.new_full((len(before),), float(previous is not None))
        decoded = self.net.decode(encoded, clicks, before, begun)
        size = (self._crop_px, self._crop_px)
        logits = F.interpolate(decoded.logits.float(), size, mode="bilinear", align_corners=False)
        return Answer(logits, decoded.logits.float(), Turn(clicks, before, begun, decoded))

    def loss(self, answer: Answer, targets: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """In the network's frame."""
        size = (self._side_px, self._side_px)
        return turn_loss(answer.parts, F.interpolate(targets, size, mode="nearest"))

    def save(self, folder: Path, card: Card) -> Card:
        """Stored as 16-bit floats, as shipped weights are."""
        state = {name: value.half() for name, value in self.net.state_dict().items()}
        return saved(folder, card, state, "gatedclick", self._architecture, self._side_px)


def start(card: Card, folder: Path, scenario: str, crop_px: int) -> GatedClickTrainee:
    """See ``Trainable``."""
    check_scenario(card, scenario, GatedClickTrainee.scenarios)
    net = build(card, folder)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return GatedClickTrainee(net, card.architecture, crop_px, card.input_size)
