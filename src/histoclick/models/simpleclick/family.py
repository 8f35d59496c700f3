"""SimpleClick for the registry: load a model folder, import an official file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from histoclick.models.card import Card
from histoclick.models.earlyfusion import EarlyFusionSegmenter
from histoclick.models.official import Official, check_input_size
from histoclick.models.simpleclick.network import VARIANTS, build, expected_shapes, recognise
from histoclick.models.simpleclick.vit import WINDOW_PX
from histoclick.models.weights import read_state_dict
from histoclick.models.zoom import ZoomRule

SPARE = ("head.up_conv1.", "head.up_conv2.")
OFFICIAL = Official(
    family="simpleclick",
    title="SimpleClick",
    licence="MIT; the backbones began as MAE's weights, which are CC-BY-NC-4.0",
    architectures=VARIANTS,
    expected_shapes=expected_shapes,
    weights=lambda architecture: build(architecture).state_dict(),
)
draw = OFFICIAL.draw


def load(card: Card, folder: Path, device: str) -> EarlyFusionSegmenter:
    """The segmenter of a model folder, whose weights stand under their official names.

    It sees squares of the card's ``input_size`` at every click, whatever the shape of the region.
    """
    state = OFFICIAL.read(card, folder)
    side = check_input_size(card, folder, WINDOW_PX, WINDOW_PX)
    rule = ZoomRule(target=(side, side), skip_clicks=-1)
    return EarlyFusionSegmenter(build(card.architecture, state), rule, device=device)


def convert(file: Path, id_: str, folder: Path) -> Card:
    """Import an official ``.pth``, recognised by the shapes of its weights.

    The objects of the training code beside them are passed over.
    """
    state = read_state_dict(file, skip_objects=True)
    architecture = OFFICIAL.recognised(recognise(state), file)
    state, notes = _completed(state, architecture)
    side = VARIANTS[architecture].trunk.input_px
    return OFFICIAL.keep(state, architecture, file, id_, folder, input_size=side, notes=notes)


def _completed(
    state: dict[str, Tensor], architecture: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """With zeros for the up-convolutions where the file has none and the network asks none."""
    if VARIANTS[architecture].doublings or any(name.startswith(SPARE) for name in state):
        return state, ()
    spare = {
        name: torch.zeros(shape)
        for name, shape in expected_shapes(architecture).items()
        if name.startswith(SPARE)
    }
    return state | spare, ("the file holds no up-convolutions, which this network never asks",)
