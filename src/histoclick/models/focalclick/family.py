"""FocalClick for the registry: load a model folder, import an official file."""

from __future__ import annotations

import re
from pathlib import Path

from histoclick.models.card import Card, check_architecture
from histoclick.models.focalclick.network import VARIANTS, build, expected_shapes, recognise
from histoclick.models.focalclick.segmenter import INPUT_PX, FocalClickSegmenter
from histoclick.models.lineage import read_params
from histoclick.models.nets.fold import fold
from histoclick.models.weights import (
    check_keys,
    read_state_dict,
    sha256,
    shapes,
    write_safetensors,
)
from histoclick.types import HistoclickError

LEAST_INPUT_PX = 64  # what the coarsest grid of the smallest network needs
PIPELINES = ("S1", "S2")


def load(card: Card, folder: Path, device: str) -> FocalClickSegmenter:
    """The segmenter of a model folder, whose weights stand under their official names."""
    check_architecture(card.architecture, VARIANTS, str(folder))
    if card.input_size < LEAST_INPUT_PX:
        raise HistoclickError(
            f"{folder}: input_size is {card.input_size}; it must be {LEAST_INPUT_PX} up"
        )
    file = folder / "weights.safetensors"
    state = read_state_dict(file)
    check_keys(shapes(state), expected_shapes(card.architecture), str(file))
    net = build(card.architecture, state).eval()
    fold(net, device)
    return FocalClickSegmenter(net, input_px=card.input_size, device=device)


def convert(file: Path, id_: str, folder: Path) -> Card:
    """Import an official ``.pth``: the backbone is recognised by its weights, S1 or S2 by the
    file's ``config``, else by its name, else taken for S2; the card's notes say which."""
    state = read_state_dict(file)
    backbone = recognise(state)
    if backbone is None:
        raise HistoclickError(
            f"{file}: not a FocalClick checkpoint (SegFormer-B0, -B3, HRNet-18s or -32): its keys "
            "are others; give the official .pth, or name the right --family"
        )
    pipeline, how = _pipeline(file)
    architecture = f"{backbone}_{pipeline}"
    if architecture not in VARIANTS:
        raise HistoclickError(
            f"{file}: {architecture} was never published; known: {', '.join(VARIANTS)}"
        )
    check_keys(shapes(state), expected_shapes(architecture), str(file))
    weights = folder / "weights.safetensors"
    write_safetensors(state, weights)
    return Card(
        id=id_,
        family="focalclick",
        architecture=architecture,
        summary=f"FocalClick, {architecture}, imported from {file.name}.",
        licence="MIT (official files; the SegFormer backbones began as NVIDIA's weights, which are "
        "for research only; check the origin of other files)",
        origin=f"{file.name}, SHA-256 {sha256(file)}",
        sha256=sha256(weights),
        input_size=INPUT_PX,
        parameters=sum(value.numel() for value in state.values()),
        notes=(f"{pipeline}, {how}; the weights alone do not tell S1 from S2",),
    )


def draw(architecture: str, folder: Path) -> Path:
    """A weight file of a network that learned nothing, in ``folder``."""
    check_architecture(architecture, VARIANTS, "focalclick")
    file = folder / f"{architecture}.safetensors"
    write_safetensors(build(architecture).state_dict(), file)
    return file


def _pipeline(file: Path) -> tuple[str, str]:
    """S1 or S2, and how that is known."""
    told = str(read_params(file).get("pipeline_version")).upper()
    if told in PIPELINES:
        return told, "as its config says"
    named = re.search(r"(?<![a-z0-9])s[12](?![a-z0-9])", file.stem.lower())
    if named:
        return named.group().upper(), "as its file name says"
    return "S2", "taken for it because neither config nor file name says so"
