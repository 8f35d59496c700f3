"""A gated model that learned nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from histoclick.files import sha256
from histoclick.models.card import Card
from histoclick.models.gatedclick.network import GatedClickNet
from histoclick.models.gatedclick.parts import ARCHITECTURES
from histoclick.models.weights import write_safetensors


def random_gated(folder: Path, architecture: str = "small", input_size: int = 256) -> Path:
    """Its new folder; all parts of it do something."""
    torch.manual_seed(0)
    net = GatedClickNet(ARCHITECTURES[architecture], norm=False)
    for name, parameter in net.named_parameters():
        if not parameter.any() or "gate" in name or "refiner.head" in name or "correct" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    folder.mkdir()
    weights = folder / "weights.safetensors"
    write_safetensors(net.state_dict(), weights)
    facts = ("Random.", "Apache-2.0", "drawn", sha256(weights), input_size)
    card = Card(folder.name, "gatedclick", architecture, *facts, untrained=True)
    card.write(folder)
    (folder / "training").mkdir()
    (folder / "training" / "slides.json").write_text('["slide 7"]')
    return folder
