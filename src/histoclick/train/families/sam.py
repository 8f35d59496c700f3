"""Training SAM and MobileSAM: the paper's scenarios, and its own decoder.

A batch is decoded in groups of users with as many points, because the decoder notices padding. A
single first click is ambiguous: of three masks the best one is graded, and every mask's predicted
IoU is (Kirillov et al. 2023); the paper's decoder has one mask and predicts no IoU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import SamModel

from histoclick.models.card import Card
from histoclick.models.sam.family import official, read
from histoclick.models.sam.keys import to_official
from histoclick.models.sam.network import REFINE, build, decode
from histoclick.models.sam.segmenter import MEAN, STD, upsample
from histoclick.models.sam.tinyvit import TinyViT
from histoclick.train.losses import normalized_focal_loss
from histoclick.train.trainee import Answer, Group, Scenario, Trainee, saved
from histoclick.types import HistoclickError

QUALITY = 1.0  # weight of the error of the predicted IoU
RUNNERS_UP = 0.05  # share of the mean of all masks: one that never wins would never learn
# No scenario draws a box: its corners are told apart by these two.
BOX_CORNERS = ("prompt_encoder.point_embed.2", "prompt_encoder.point_embed.3")


def _decoder(name: str) -> bool:
    return name.startswith("mask_decoder.")


def _decoder_and_encoder(name: str) -> bool:
    return name.startswith(("mask_decoder.", "vision_encoder."))


def _all(name: str) -> bool:
    return not name.startswith(BOX_CORNERS)


SCENARIOS = {
    "md": Scenario("SAM-MD: mask decoder", _decoder, frozen_encoder=True),
    "ie-md": Scenario("SAM-IE-MD: image encoder and mask decoder", _decoder_and_encoder),
    "whole": Scenario("SAM-Whole: everything", _all),
    "refine": Scenario("Ours: the paper's mask decoder", _decoder, frozen_encoder=True),
}


class Decoded(NamedTuple):
    """Of the users ``users`` (b,) of a batch: ``lowres`` (b, M, 256, 256), ``iou`` (b, M)."""

    users: Tensor
    lowres: Tensor
    iou: Tensor


class SamTrainee(Trainee):
    """SAM while it learns from square crops of ``crop_px``."""

    scenarios: Mapping[str, Scenario] = SCENARIOS

    def __init__(self, model: SamModel, architecture: str, crop_px: int) -> None:
        self.net = model
        self._model = model
        self._architecture = architecture
        self._crop_px = crop_px
        self._side: int = model.config.vision_config.image_size

    def groups(self, scenario: str) -> list[Group]:
        """All alike, as in the paper."""
        return [Group([p for p in self.net.parameters() if p.requires_grad])]

    def encode(self, images: Tensor) -> Tensor:
        """(B, 256, 64, 64)."""
        size = (self._side, self._side)
        large = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        mean, std = (images.new_tensor(each)[:, None, None] for each in (MEAN, STD))
        embedding: Tensor = self._model.vision_encoder((large * 255 - mean) / std)[0]
        return embedding

    def answer(self, encoded: Tensor, points: Tensor, previous: Answer | None) -> Answer:
        """``memory``: logits (B, 1, 256, 256). ``parts``: a list of ``Decoded``."""
        coordinates, labels = self._prompts(points)
        counts = (labels >= 0).sum(1)
        decoded = []
        for count in sorted(set(counts.tolist())):
            index = (counts == count).nonzero()[:, 0]
            real = [labels[i] >= 0 for i in index.tolist()]
            lowres, iou = decode(
                self._model,
                encoded[index],
                torch.stack([coordinates[i][mask] for i, mask in zip(index, real, strict=True)]),
                torch.stack([labels[i][mask] for i, mask in zip(index, real, strict=True)]),
                masks=None if previous is None else previous.memory[index],
                multimask=previous is None and count == 1,
            )
            decoded.append(Decoded(index, lowres.float(), iou.float()))
        order = torch.cat([part.users for part in decoded]).argsort()
        best = torch.cat([_best(part) for part in decoded])[order]
        return Answer(self._large(best), best, decoded)

    def loss(self, answer: Answer, targets: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Normalized focal loss of the best mask, and the error of the predicted IoUs."""
        losses = targets.new_zeros(len(targets))
        for users, lowres, iou in answer.parts:
            logits, wanted = self._large(lowres), targets[users].expand(-1, lowres.shape[1], -1, -1)
            shape = (-1, 1, *logits.shape[2:])
            each = normalized_focal_loss(logits.reshape(shape), wanted.reshape(shape))
            each = each.view(iou.shape)
            graded = (1 - RUNNERS_UP) * each.min(1).values + RUNNERS_UP * each.mean(1)
            if not iou.isnan().any():
                graded = graded + QUALITY * (iou - _iou(logits > 0, wanted > 0)).square().mean(1)
            losses = losses.index_add(0, users, graded)
        return losses

    def save(self, folder: Path, card: Card) -> Card:
        """Under official names."""
        state = to_official(self._model.state_dict())
        family = official(self._architecture).family
        return saved(folder, card, state, family, self._architecture, self._side)

    def save_memory(self) -> None:
        """Layers of the encoder are computed again for the gradient."""
        if isinstance(self._model.vision_encoder, TinyViT):
            super().save_memory()
        encoder = self._model.vision_encoder
        newer = getattr(encoder, "activation_checkpointing_enable", None)  # its name from 5.24 on
        (newer or encoder.gradient_checkpointing_enable)()

    def _prompts(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2n, 2) of x, y on the encoder's input, and (B, 2n): 1, 0, or -1 for padding."""
        half = points.shape[1] // 2
        labels = torch.ones(points.shape[:2], dtype=torch.int32, device=points.device)
        labels[:, half:] = 0
        labels[points[:, :, :2].amax(2) < 0] = -1
        return points[:, :, [1, 0]] * (self._side / self._crop_px), labels

    def _large(self, lowres: Tensor) -> Tensor:
        """Logits (B, M, 256, 256) to those of the crop, as the segmenter enlarges them."""
        return upsample(lowres, (self._side, self._side), (self._crop_px, self._crop_px))


def start(card: Card, folder: Path, scenario: str, crop_px: int) -> SamTrainee:
    """See ``Trainable``. Scenario ``refine`` gives a model with SAM's decoder the paper's one,
    whose transformer begins with SAM's weights."""
    refined = card.architecture.endswith(REFINE)
    known = ("refine", "whole") if refined else tuple(SCENARIOS)
    if scenario not in known:
        fitting = " or ".join(known)
        raise HistoclickError(
            f"model '{card.id}' ({card.architecture}) has no scenario '{scenario}'; give {fitting}"
        )
    model, architecture = read(card, folder), card.architecture
    if scenario == "refine" and not refined:
        architecture += REFINE
        kept = model.state_dict()
        model = build(architecture, input_px=card.input_size)
        own = model.state_dict()
        model.load_state_dict({n: kept.get(n, value) for n, value in own.items()})
    return SamTrainee(model, architecture, crop_px)


def _best(part: Decoded) -> Tensor:
    """(b, 1, 256, 256): the mask with the best predicted IoU."""
    if part.iou.isnan().any():
        return part.lowres[:, :1]
    index = part.iou.argmax(1)[:, None, None, None]
    return part.lowres.take_along_dim(index, 1)


def _iou(predicted: Tensor, wanted: Tensor) -> Tensor:
    """(b, M) of masks (b, M, S, S)."""
    both, either = (predicted & wanted).sum((2, 3)), (predicted | wanted).sum((2, 3))
    return torch.true_divide(both, either.clamp(min=1))
