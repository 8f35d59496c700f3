"""The families that can be trained, one file each. A new one is a line in ``FAMILIES``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, cast

from histoclick.models.card import Card
from histoclick.train.trainee import Trainee
from histoclick.types import HistoclickError

FAMILIES = {
    "sam": "histoclick.train.families.sam",
    "mobilesam": "histoclick.train.families.sam",
    "ritm": "histoclick.train.families.ritm",
    "focalclick": "histoclick.train.families.focalclick",
    "simpleclick": "histoclick.train.families.simpleclick",
    "denseclick": "histoclick.train.families.denseclick",
    "gatedclick": "histoclick.train.families.gatedclick",
}


class Trainable(Protocol):
    """What the module of a family offers here."""

    def start(self, card: Card, folder: Path, scenario: str, crop_px: int) -> Trainee:
        """The network of a model folder, about to learn from square crops of ``crop_px``.

        Raises ``HistoclickError`` for a scenario that the family or the model does not have.
        """
        ...


def start(card: Card, folder: Path, scenario: str, crop_px: int) -> Trainee:
    """See ``Trainable``. Raises ``HistoclickError`` for a family that cannot be trained."""
    if card.family not in FAMILIES:
        raise HistoclickError(
            f"model '{card.id}': family '{card.family}' cannot be trained; families that can: "
            f"{', '.join(FAMILIES)}"
        )
    module = cast(Trainable, importlib.import_module(FAMILIES[card.family]))
    return module.start(card, folder, scenario, crop_px)
