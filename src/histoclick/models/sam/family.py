"""SAM and MobileSAM for the registry: load a model folder, import an official file.

Both are read here, whichever family a user names; the card says which one it is.
"""

from __future__ import annotations

from pathlib import Path

from transformers import SamModel

from histoclick.models.card import Card
from histoclick.models.nets.fold import fold
from histoclick.models.official import Official, State, check_input_size
from histoclick.models.sam.keys import to_official
from histoclick.models.sam.network import INPUT_PX, REFINE, VITS, build, expected_shapes, recognise
from histoclick.models.sam.segmenter import SamSegmenter
from histoclick.models.sam.tinyvit import TinyViT
from histoclick.models.weights import read_state_dict
from histoclick.types import HistoclickError

PATCH_PX = 16  # of the image, for every token


def _weights(architecture: str) -> State:
    return to_official(build(architecture).state_dict())


SAM = Official(
    family="sam",
    title="Segment Anything",
    licence="Apache-2.0",
    architectures=[*VITS, *(vit + REFINE for vit in VITS)],
    expected_shapes=expected_shapes,
    weights=_weights,
)
MOBILE_SAM = Official(
    family="mobilesam",
    title="MobileSAM",
    licence="Apache-2.0",
    architectures=("vit_t", "vit_t" + REFINE),
    expected_shapes=expected_shapes,
    weights=_weights,
)


def load(card: Card, folder: Path, device: str) -> SamSegmenter:
    """The segmenter of a model folder, whose weights stand under their official names."""
    model = read(card, folder).eval()
    if isinstance(model.vision_encoder, TinyViT):
        fold(model.vision_encoder, device)
    return SamSegmenter(model, device=device)


def read(card: Card, folder: Path) -> SamModel:
    """The network of a model folder, at the card's ``input_size``. Raises ``HistoclickError`` if
    there is none of that size."""
    side = check_input_size(card, folder, PATCH_PX, PATCH_PX)
    if side != INPUT_PX and official(card.architecture) is SAM:
        raise HistoclickError(
            f"{folder}: input_size is {side}; a ViT has positions for {INPUT_PX} px alone"
        )
    return build(card.architecture, official(card.architecture).read(card, folder), side)


def convert(file: Path, id_: str, folder: Path) -> Card:
    """Import an official file (ViT-B, ViT-L, ViT-H, TinyViT): recognised and checked strictly."""
    state = read_state_dict(file)
    architecture = SAM.recognised(recognise(state), file)
    return official(architecture).keep(state, architecture, file, id_, folder, input_size=INPUT_PX)


def draw(architecture: str, folder: Path) -> Path:
    """A weight file of a network that learned nothing, in ``folder``."""
    return official(architecture).draw(architecture, folder)


def official(architecture: str) -> Official:
    """SAM's files or MobileSAM's."""
    return MOBILE_SAM if architecture in MOBILE_SAM.architectures else SAM
