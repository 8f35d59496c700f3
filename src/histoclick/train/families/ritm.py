"""Training RITM."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from histoclick.models.card import Card
from histoclick.models.ritm.family import INPUT_PX, OFFICIAL
from histoclick.models.ritm.network import RitmNet, build
from histoclick.train.families.earlyfusion import EarlyFusionTrainee, Seen
from histoclick.train.trainee import check_scenario, saved

NEW = ("feature_extractor.conv3x3_ocr.", "feature_extractor.ocr_distri_head.")


class RitmTrainee(EarlyFusionTrainee):
    """RITM while it learns."""

    net: RitmNet
    least_part = 2  # OCR's batch norm sees one value per channel and patch

    def __init__(
        self, net: RitmNet, architecture: str, crop_px: int, *, untrained: bool = False
    ) -> None:
        super().__init__(net, crop_px, crop_px, untrained=untrained)
        self._architecture = architecture

    def look(self, inputs: Tensor, points: Tensor) -> Seen:
        """See ``EarlyFusionTrainee``."""
        return Seen(*self.net.answer(inputs, points))

    def save(self, folder: Path, card: Card) -> Card:
        """Under official names."""
        state = self.net.state_dict()
        return saved(folder, card, state, OFFICIAL.family, self._architecture, INPUT_PX)

    def _is_slow(self, name: str) -> bool:
        return name.startswith("feature_extractor.") and not name.startswith(NEW)


def start(card: Card, folder: Path, scenario: str, crop_px: int) -> RitmTrainee:
    """See ``Trainable``."""
    check_scenario(card, scenario, RitmTrainee.scenarios)
    net = build(card.architecture, OFFICIAL.read(card, folder))
    return RitmTrainee(net, card.architecture, crop_px, untrained=card.untrained)
