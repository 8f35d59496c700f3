"""SAM for the registry: load a model folder, import an official file."""

from __future__ import annotations

from pathlib import Path

from histoclick.models.card import Card, check_architecture
from histoclick.models.sam.keys import to_official
from histoclick.models.sam.network import (
    INPUT_PX,
    VARIANTS,
    build,
    expected_shapes,
    recognise,
)
from histoclick.models.sam.segmenter import SamSegmenter
from histoclick.models.weights import (
    check_keys,
    read_state_dict,
    sha256,
    shapes,
    write_safetensors,
)
from histoclick.types import HistoclickError


def load(card: Card, folder: Path, device: str) -> SamSegmenter:
    """The segmenter of a model folder, whose weights stand under their official names."""
    check_architecture(card.architecture, VARIANTS, str(folder))
    file = folder / "weights.safetensors"
    state = read_state_dict(file)
    check_keys(shapes(state), expected_shapes(card.architecture), str(file))
    return SamSegmenter(build(card.architecture, state), device=device)


def convert(file: Path, id_: str, folder: Path) -> Card:
    """Import an official ``.pth`` (ViT-B, ViT-L, ViT-H): recognised and checked strictly."""
    state = read_state_dict(file)
    variant = recognise(state)
    if variant is None:
        raise HistoclickError(
            f"{file}: not a SAM checkpoint (ViT-B, ViT-L or ViT-H): its keys are others; give the "
            "official sam_vit_*.pth, or name the right --family"
        )
    check_keys(shapes(state), expected_shapes(variant), str(file))
    weights = folder / "weights.safetensors"
    write_safetensors(state, weights)
    return Card(
        id=id_,
        family="sam",
        architecture=variant,
        summary=f"Segment Anything, {variant}, imported from {file.name}.",
        licence="Apache-2.0 (official weights; check the origin of other files)",
        origin=f"{file.name}, SHA-256 {sha256(file)}",
        sha256=sha256(weights),
        input_size=INPUT_PX,
        parameters=sum(value.numel() for value in state.values()),
    )


def draw(architecture: str, folder: Path) -> Path:
    """A weight file of a network that learned nothing, in ``folder``."""
    check_architecture(architecture, VARIANTS, "sam")
    file = folder / f"{architecture}.safetensors"
    write_safetensors(to_official(build(architecture).state_dict()), file)
    return file
