"""Training SimpleClick."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from histoclick.models.card import Card
from histoclick.models.simpleclick.family import OFFICIAL
from histoclick.models.simpleclick.network import VARIANTS, SimpleClickNet, build
from histoclick.train.families.earlyfusion import EarlyFusionTrainee, Seen
from histoclick.train.trainee import Scenario, check_scenario, saved


class SimpleClickTrainee(EarlyFusionTrainee):
    """SimpleClick while it learns."""

    net: SimpleClickNet

    def __init__(self, net: SimpleClickNet, architecture: str, crop_px: int, side_px: int) -> None:
        super().__init__(net, crop_px, side_px)
        self._architecture = architecture
        # Up-convolutions that a file holds and this network never asks cannot learn.
        idle = ("head.up_conv1.", "head.up_conv2.")[VARIANTS[architecture].doublings :]
        self.scenarios = {"whole": Scenario("everything", lambda name: not name.startswith(idle))}

    def look(self, inputs: Tensor, points: Tensor) -> Seen:
        """See ``EarlyFusionTrainee``."""
        return Seen(self.net(inputs, points), None)

    def save(self, folder: Path, card: Card) -> Card:
        """Under official names."""
        state = self.net.state_dict()
        return saved(folder, card, state, OFFICIAL.family, self._architecture, self._side_px)


def start(card: Card, folder: Path, scenario: str, crop_px: int) -> SimpleClickTrainee:
    """See ``Trainable``."""
    check_scenario(card, scenario, SimpleClickTrainee.scenarios)
    net = build(card.architecture, OFFICIAL.read(card, folder))
    side_px = card.input_size or VARIANTS[card.architecture].trunk.input_px
    return SimpleClickTrainee(net, card.architecture, crop_px, side_px)
