"""RITM for the registry: load a model folder, import an official file."""

from __future__ import annotations

from pathlib import Path

from histoclick.models.card import Card
from histoclick.models.earlyfusion import EarlyFusionSegmenter
from histoclick.models.lineage import read_params
from histoclick.models.nets.fold import fold
from histoclick.models.nets.hrnet import WIDTHS
from histoclick.models.official import Official, check_input_size
from histoclick.models.ritm.network import RADIUS, build, expected_shapes, recognise
from histoclick.models.weights import read_state_dict
from histoclick.models.zoom import ZoomRule
from histoclick.types import HistoclickError

INPUT_PX = 400  # longest side of what the zoom-in shows, in the published evaluation
LEAST_INPUT_PX = 32  # one place of the coarsest grid
# what weights do not tell: how clicks and previous mask are shown
SHOWN = {"use_disks": True, "norm_radius": RADIUS, "binary_prev_mask": False}
OFFICIAL = Official(
    family="ritm",
    title="RITM",
    licence="MIT",
    architectures=WIDTHS,
    expected_shapes=expected_shapes,
    weights=lambda architecture: build(architecture).state_dict(),
)
draw = OFFICIAL.draw


def load(card: Card, folder: Path, device: str) -> EarlyFusionSegmenter:
    """The segmenter of a model folder, whose weights stand under their official names.

    ``card.input_size``: longest side in px of what it sees once it zooms in.
    """
    state = OFFICIAL.read(card, folder)
    rule = ZoomRule(check_input_size(card, folder, LEAST_INPUT_PX))
    net = build(card.architecture, state).eval()
    fold(net, device)
    return EarlyFusionSegmenter(net, rule, device=device)


def convert(file: Path, id_: str, folder: Path) -> Card:
    """Import an official ``.pth`` of a model that is shown its previous mask: recognised by its
    weights and checked strictly."""
    state = read_state_dict(file)
    architecture = OFFICIAL.recognised(recognise(state), file)
    params = read_params(file)
    for name, value in SHOWN.items():
        if params.get(name, value) != value:
            raise HistoclickError(
                f"{file}: its config says {name} = {params[name]}, and only {value} is known here; "
                "give a file of the published models"
            )
    return OFFICIAL.keep(state, architecture, file, id_, folder, input_size=INPUT_PX)
