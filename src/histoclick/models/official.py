"""What families have in common whose weights are published as one file of named tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from histoclick.files import sha256
from histoclick.models.card import Card, check_architecture
from histoclick.models.weights import (
    Shapes,
    check_keys,
    read_state_dict,
    shapes,
    write_safetensors,
)
from histoclick.types import HistoclickError

State = dict[str, Tensor]  # under official names


@dataclass(frozen=True)
class Official:
    """How a family's files become model folders and networks.

    ``family``: its name in the registry; ``title``: for people. ``licence``: of the official files.
    ``architectures``: its members. ``expected_shapes``: official names and shapes of every weight
    of a member. ``weights``: those of a member that learned nothing.
    """

    family: str
    title: str
    licence: str
    architectures: Collection[str]
    expected_shapes: Callable[[str], Shapes]
    weights: Callable[[str], State]

    def read(self, card: Card, folder: Path) -> State:
        """The weights of a model folder, every key checked against the card's architecture."""
        check_architecture(card.architecture, self.architectures, str(folder))
        file = folder / "weights.safetensors"
        state = read_state_dict(file)
        check_keys(shapes(state), self.expected_shapes(card.architecture), str(file))
        return state

    def recognised(self, architecture: str | None, file: Path) -> str:
        """``architecture``. Raises ``HistoclickError`` for ``None``: ``file`` is another's."""
        if architecture is None:
            raise HistoclickError(
                f"{file}: not a {self.title} checkpoint ({', '.join(self.architectures)}): its "
                "weights are others; give the official file, or name the right --family"
            )
        return architecture

    def keep(
        self,
        state: State,
        architecture: str,
        file: Path,
        id_: str,
        folder: Path,
        *,
        input_size: int,
        notes: tuple[str, ...] = (),
    ) -> Card:
        """Check what ``file`` holds, write it into ``folder``, and describe it."""
        check_keys(shapes(state), self.expected_shapes(architecture), str(file))
        weights = folder / "weights.safetensors"
        write_safetensors(state, weights)
        return Card(
            id=id_,
            family=self.family,
            architecture=architecture,
            summary=f"{self.title}, {architecture}, imported from {file.name}.",
            licence=f"{self.licence} (official files; check the origin of other files)",
            origin=f"{file.name}, SHA-256 {sha256(file)}",
            sha256=sha256(weights),
            input_size=input_size,
            parameters=sum(value.numel() for value in state.values()),
            notes=notes,
        )

    def draw(self, architecture: str, folder: Path) -> Path:
        """A weight file of a network that learned nothing, in ``folder``."""
        check_architecture(architecture, self.architectures, self.family)
        file = folder / f"{architecture}.safetensors"
        write_safetensors(self.weights(architecture), file)
        return file


def check_input_size(card: Card, folder: Path, least: int, multiple: int = 1) -> int:
    """The card's ``input_size``. Raises ``HistoclickError`` if it is too small or no multiple."""
    if card.input_size < least or card.input_size % multiple:
        also = f" and a multiple of {multiple}" if multiple > 1 else ""
        raise HistoclickError(
            f"{folder}: input_size is {card.input_size}; it must be {least} up{also}"
        )
    return card.input_size
