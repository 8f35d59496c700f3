"""RITM for the registry: load a model folder, import an official file."""

from __future__ import annotations

from pathlib import Path

from histoclick.models.card import Card, check_architecture
from histoclick.models.earlyfusion import EarlyFusionSegmenter
from histoclick.models.lineage import read_params
from histoclick.models.nets.fold import fold
from histoclick.models.nets.hrnet import WIDTHS
from histoclick.models.ritm.network import RADIUS, build, expected_shapes, recognise
from histoclick.models.weights import (
    check_keys,
    read_state_dict,
    sha256,
    shapes,
    write_safetensors,
)
from histoclick.models.zoom import ZoomRule
from histoclick.types import HistoclickError

INPUT_PX = 400  # longest side of what the zoom-in shows, in the published evaluation
LEAST_INPUT_PX = 32  # one place of the coarsest grid
# what weights do not tell: how clicks and previous mask are shown
SHOWN = {"use_disks": True, "norm_radius": RADIUS, "binary_prev_mask": False}


def load(card: Card, folder: Path, device: str) -> EarlyFusionSegmenter:
    """The segmenter of a model folder, whose weights stand under their official names.

    ``card.input_size``: longest side in px of what it sees once it zooms in.
    """
    check_architecture(card.architecture, WIDTHS, str(folder))
    if card.input_size < LEAST_INPUT_PX:
        raise HistoclickError(
            f"{folder}: input_size is {card.input_size}; it must be {LEAST_INPUT_PX} up"
        )
    file = folder / "weights.safetensors"
    state = read_state_dict(file)
    check_keys(shapes(state), expected_shapes(card.architecture), str(file))
    net = build(card.architecture, state).eval()
    fold(net, device)
    return EarlyFusionSegmenter(net, ZoomRule(card.input_size), device=device)


def convert(file: Path, id_: str, folder: Path) -> Card:
    """Import an official ``.pth`` of a model that is shown its previous mask: recognised by its
    weights and checked strictly."""
    state = read_state_dict(file)
    architecture = recognise(state)
    if architecture is None:
        raise HistoclickError(
            f"{file}: not a RITM checkpoint ({', '.join(WIDTHS)}): its weights are others; give "
            "the official .pth, or name the right --family"
        )
    check_keys(shapes(state), expected_shapes(architecture), str(file))
    params = read_params(file)
    for name, value in SHOWN.items():
        if params.get(name, value) != value:
            raise HistoclickError(
                f"{file}: its config says {name} = {params[name]}, and only {value} is known here; "
                "give a file of the published models"
            )
    weights = folder / "weights.safetensors"
    write_safetensors(state, weights)
    return Card(
        id=id_,
        family="ritm",
        architecture=architecture,
        summary=f"RITM, {architecture}, imported from {file.name}.",
        licence="MIT (official files; check the origin of other files)",
        origin=f"{file.name}, SHA-256 {sha256(file)}",
        sha256=sha256(weights),
        input_size=INPUT_PX,
        parameters=sum(value.numel() for value in state.values()),
    )


def draw(architecture: str, folder: Path) -> Path:
    """A weight file of a network that learned nothing, in ``folder``."""
    check_architecture(architecture, WIDTHS, "ritm")
    file = folder / f"{architecture}.safetensors"
    write_safetensors(build(architecture).state_dict(), file)
    return file
