"""FocalClick for the registry: load a model folder, import an official file."""

from __future__ import annotations

import re
from pathlib import Path

from histoclick.models.card import Card
from histoclick.models.focalclick.network import VARIANTS, build, expected_shapes, recognise
from histoclick.models.focalclick.segmenter import INPUT_PX, FocalClickSegmenter
from histoclick.models.lineage import read_params
from histoclick.models.nets.fold import fold
from histoclick.models.official import Official, check_input_size
from histoclick.models.weights import read_state_dict
from histoclick.types import HistoclickError

LEAST_INPUT_PX = 64  # what the coarsest grid of the smallest network needs
PIPELINES = ("S1", "S2")
OFFICIAL = Official(
    family="focalclick",
    title="FocalClick",
    licence="MIT; the SegFormer backbones began as NVIDIA's weights, for research only",
    architectures=VARIANTS,
    expected_shapes=expected_shapes,
    weights=lambda architecture: build(architecture).state_dict(),
)
draw = OFFICIAL.draw


def load(card: Card, folder: Path, device: str) -> FocalClickSegmenter:
    """The segmenter of a model folder, whose weights stand under their official names."""
    state = OFFICIAL.read(card, folder)
    input_px = check_input_size(card, folder, LEAST_INPUT_PX)
    net = build(card.architecture, state).eval()
    fold(net, device)
    return FocalClickSegmenter(net, input_px=input_px, device=device)


def convert(file: Path, id_: str, folder: Path) -> Card:
    """Import an official ``.pth``: the backbone is recognised by its weights, S1 or S2 by the
    file's ``config``, else by its name, else taken for S2; the card's notes say which."""
    state = read_state_dict(file)
    backbone = OFFICIAL.recognised(recognise(state), file)
    pipeline, how = _pipeline(file)
    architecture = f"{backbone}_{pipeline}"
    if architecture not in VARIANTS:
        raise HistoclickError(
            f"{file}: {architecture} was never published; known: {', '.join(VARIANTS)}"
        )
    note = f"{pipeline}, {how}; the weights alone do not tell S1 from S2"
    return OFFICIAL.keep(state, architecture, file, id_, folder, input_size=INPUT_PX, notes=(note,))


def _pipeline(file: Path) -> tuple[str, str]:
    """S1 or S2, and how that is known."""
    told = str(read_params(file).get("pipeline_version")).upper()
    if told in PIPELINES:
        return told, "as its config says"
    named = re.search(r"(?<![a-z0-9])s[12](?![a-z0-9])", file.stem.lower())
    if named:
        return named.group().upper(), "as its file name says"
    return "S2", "taken for it because neither config nor file name says so"
