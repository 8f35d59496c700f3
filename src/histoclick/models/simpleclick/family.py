"""SimpleClick for the registry: load a model folder, import an official file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from histoclick.models.card import Card, check_architecture
from histoclick.models.earlyfusion import EarlyFusionSegmenter
from histoclick.models.simpleclick.network import VARIANTS, build, expected_shapes, recognise
from histoclick.models.simpleclick.vit import WINDOW_PX
from histoclick.models.weights import (
    check_keys,
    read_state_dict,
    sha256,
    shapes,
    write_safetensors,
)
from histoclick.models.zoom import ZoomRule
from histoclick.types import HistoclickError

SPARE = ("head.up_conv1.", "head.up_conv2.")


def load(card: Card, folder: Path, device: str) -> EarlyFusionSegmenter:
    """The segmenter of a model folder, whose weights stand under their official names.

    It sees squares of the card's ``input_size`` at every click, whatever the shape of the region.
    """
    check_architecture(card.architecture, VARIANTS, str(folder))
    side = card.input_size
    if side < WINDOW_PX or side % WINDOW_PX:
        raise HistoclickError(
            f"{folder}: input_size is {side}; it must be {WINDOW_PX} or a multiple, such as 448"
        )
    file = folder / "weights.safetensors"
    state = read_state_dict(file)
    check_keys(shapes(state), expected_shapes(card.architecture), str(file))
    rule = ZoomRule(target=(side, side), skip_clicks=-1)
    return EarlyFusionSegmenter(build(card.architecture, state), rule, device=device)


def convert(file: Path, id_: str, folder: Path) -> Card:
    """Import an official ``.pth``, recognised by the shapes of its weights.

    The objects of the training code beside them are passed over.
    """
    state = read_state_dict(file, skip_objects=True)
    architecture = recognise(state)
    if architecture is None:
        raise HistoclickError(
            f"{file}: not a SimpleClick checkpoint ({', '.join(VARIANTS)}): its weights are "
            "others; give the official .pth, or name the right --family"
        )
    state, notes = _completed(state, architecture)
    check_keys(shapes(state), expected_shapes(architecture), str(file))
    weights = folder / "weights.safetensors"
    write_safetensors(state, weights)
    return Card(
        id=id_,
        family="simpleclick",
        architecture=architecture,
        summary=f"SimpleClick, {architecture}, imported from {file.name}.",
        licence="MIT (official files; their backbones began as MAE's weights, which are "
        "CC-BY-NC-4.0; check the origin of other files)",
        origin=f"{file.name}, SHA-256 {sha256(file)}",
        sha256=sha256(weights),
        input_size=VARIANTS[architecture].trunk.input_px,
        parameters=sum(value.numel() for value in state.values()),
        notes=notes,
    )


def draw(architecture: str, folder: Path) -> Path:
    """A weight file of a network that learned nothing, in ``folder``."""
    check_architecture(architecture, VARIANTS, "simpleclick")
    file = folder / f"{architecture}.safetensors"
    write_safetensors(build(architecture).state_dict(), file)
    return file


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
