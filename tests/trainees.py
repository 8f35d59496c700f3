"""The smallest member of every family, about to learn."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch

from histoclick.files import sha256
from histoclick.models import registry
from histoclick.models.card import Card
from histoclick.models.sam import network
from histoclick.models.weights import write_safetensors
from histoclick.train.builtin import build, take_over
from histoclick.train.families import start
from histoclick.train.families.sam import SamTrainee
from histoclick.train.trainee import Trainee

CROP = 96  # px


@cache
def base(family: str, architecture: str) -> Path:
    if family == "denseclick":
        return registry.find("histoclick-tiny")[1]
    folder = Path(mkdtemp()) / f"{family}-{architecture}"
    if family == "gatedclick":
        return gated(architecture, folder)
    return registry.with_random_weights(family, architecture, folder)


def gated(architecture: str, folder: Path) -> Path:
    """A model of the gated family whose trunk is the built-in model's and whose rest is new."""
    net = build(architecture, norm=False)
    take_over(net, registry.find("histoclick-tiny")[1])
    folder.mkdir()
    write_safetensors(net.state_dict(), folder / "weights.safetensors")
    card = Card(
        folder.name, "gatedclick", architecture, "", "", "",
        sha256(folder / "weights.safetensors"), CROP,
    )  # fmt: skip
    card.write(folder)
    return folder


def make(family: str, architecture: str, scenario: str) -> Trainee:
    torch.manual_seed(0)
    if family == "sam":  # smaller than any published one
        encoder = network.Encoder(16, 2, 2, (1,))
        refine = scenario == "refine" or architecture.endswith(network.REFINE)
        model = network.assemble(encoder, 256, refine=refine)
        return SamTrainee(model, "vit_b", CROP)
    card, folder = registry.find(base(family, architecture))
    return start(card, folder, scenario, CROP)
