"""Training FocalClick: the coarse network on the whole crop, the refiner on a piece of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from histoclick.models.card import Card
from histoclick.models.focalclick.family import OFFICIAL
from histoclick.models.focalclick.network import Coarse, FocalClickNet, build
from histoclick.train import focus
from histoclick.train.families.earlyfusion import AUXILIARY, EarlyFusionTrainee, Seen
from histoclick.train.losses import (
    binary_cross_entropy,
    border_focal_loss,
    normalized_focal_loss,
)
from histoclick.train.points import FOCALCLICK
from histoclick.train.trainee import Answer, check_scenario, saved


class Turn(NamedTuple):
    """What the refiner is asked about: ``images`` (B, 3, side, side), ``points`` on them."""

    images: Tensor
    points: Tensor
    coarse: Coarse


class FocalClickTrainee(EarlyFusionTrainee):
    """FocalClick while it learns. Clicks are answered by the coarse network alone, as published."""

    net: FocalClickNet
    first_clicks = FOCALCLICK

    def __init__(
        self,
        net: FocalClickNet,
        architecture: str,
        crop_px: int,
        side_px: int,
        *,
        untrained: bool = False,
    ) -> None:
        super().__init__(net, crop_px, side_px, untrained=untrained)
        self._architecture = architecture
        if architecture.startswith("hrnet"):
            self.least_part = 2  # OCR's batch norm sees one value per channel and patch
        # Published multiples of the rate: 0.1 for SegFormer's backbone, 2 for HRNet's.
        segformer = architecture.startswith("segformer")
        self.slow = ("feature_extractor.backbone.",) if segformer else ("feature_extractor.",)
        self.slow_scale = 0.1 if segformer else 2.0

    def answer(self, encoded: Tensor, points: Tensor, previous: Answer | None) -> Answer:
        """``memory``: probabilities (B, 1, side, side). ``parts``: a ``Turn``."""
        before = torch.zeros_like(encoded[:, :1]) if previous is None else previous.memory
        placed = self._placed(points)
        coarse: Coarse = self.net(encoded, before, placed)
        logits = self._resized(coarse.logits.float(), self._crop_px)
        turn = Turn(encoded, placed, coarse)
        return Answer(logits, torch.sigmoid(coarse.logits.float()), turn)

    def look(self, inputs: Tensor, points: Tensor) -> Seen:
        """The coarse network; see ``EarlyFusionTrainee``."""
        coarse: Coarse = self.net(inputs[:, :3], inputs[:, 3:], points)
        return Seen(coarse.logits, coarse.auxiliary)

    def loss(self, answer: Answer, targets: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Of the coarse answer, and of the refiner on a focus crop drawn for each image."""
        turn: Turn = answer.parts
        losses = normalized_focal_loss(answer.logits, targets)
        if turn.coarse.auxiliary is not None:
            auxiliary = self._resized(turn.coarse.auxiliary.float(), self._crop_px)
            losses = losses + AUXILIARY * binary_cross_entropy(auxiliary, targets)
        size = (self._side_px, self._side_px)
        masks = (self._resized(targets, self._side_px) > 0.5)[:, 0].cpu().numpy()
        rois = [focus.draw_focus(mask, rng) for mask, rng in zip(masks, rngs, strict=True)]
        device = targets.device
        wanted = focus.look(torch.from_numpy(masks)[:, None].float(), rois, size) > 0.5
        borders = np.stack([focus.trimap(mask) for mask in wanted[:, 0].numpy()])
        border = torch.from_numpy(borders)[:, None].float().to(device)
        refined = self.net.refine(
            focus.look(turn.images, rois, size),
            focus.place(turn.points, rois, size),
            turn.coarse,
            focus.boxes(rois).to(device),
        )
        losses = losses + border_focal_loss(
            refined.logits.float(), wanted.float().to(device), border
        )
        return losses + binary_cross_entropy(refined.trimap.float(), border)

    def save(self, folder: Path, card: Card) -> Card:
        """Under official names."""
        state = self.net.state_dict()
        return saved(folder, card, state, OFFICIAL.family, self._architecture, self._side_px)


def start(card: Card, folder: Path, scenario: str, crop_px: int) -> FocalClickTrainee:
    """See ``Trainable``."""
    check_scenario(card, scenario, FocalClickTrainee.scenarios)
    net = build(card.architecture, OFFICIAL.read(card, folder))
    return FocalClickTrainee(
        net, card.architecture, crop_px, card.input_size, untrained=card.untrained
    )
