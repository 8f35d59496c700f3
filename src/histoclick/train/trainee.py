"""What the one training loop knows of a family: a network that is shown images, clicks and its own
last answer, and graded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from histoclick.files import sha256
from histoclick.models.card import Card
from histoclick.models.weights import write_safetensors
from histoclick.train.points import RITM, FirstClicks
from histoclick.types import HistoclickError


@dataclass(frozen=True)
class Answer:
    """A network's answer to one more click, for a batch.

    ``logits``: (B, 1, S, S) float32 in the frame of the images. ``memory``: what it wants back at
    the next click; the loop detaches nothing and looks at nothing inside. ``parts``: whatever else
    the family's loss grades.
    """

    logits: Tensor
    memory: Any
    parts: Any = None


@dataclass(frozen=True)
class Group:
    """Parameters that learn alike: at ``scale`` times the learning rate. ``decay``: whether weight
    decay, if any is asked for, is theirs too."""

    parameters: Sequence[nn.Parameter]
    scale: float = 1.0
    decay: bool = True


@dataclass(frozen=True)
class Scenario:
    """Which modules learn; all others stay as they are, to the bit.

    ``trains``: whether the parameter or buffer of this name learns. ``frozen_encoder``: nothing
    that sees the image alone learns, so ``Trainee.encode`` can be done once per image.
    """

    title: str
    trains: Callable[[str], bool]
    frozen_encoder: bool = False


class Trainee(ABC):
    """A family's network while it learns.

    ``net``: everything that is saved. Images are (B, 3, S, S) float32 RGB in 0..1, at the size of
    the crops that training draws; points are (B, 2n, 3) as in ``models.clickmaps``, in px of those;
    targets are (B, 1, S, S) float32, 0 or 1. What size the network itself works at is its own
    business. ``least_part``: patches that have to go through it together while it learns.
    ``first_clicks``: how its users begin.
    """

    net: nn.Module
    scenarios: Mapping[str, Scenario]
    least_part = 1
    first_clicks: FirstClicks = RITM

    @abstractmethod
    def groups(self, scenario: str) -> list[Group]:
        """The parameters that learn, each in one group. Called once ``freeze`` was."""

    @abstractmethod
    def encode(self, images: Tensor) -> Any:
        """What does not depend on clicks; for most families the images themselves."""

    @abstractmethod
    def answer(self, encoded: Any, points: Tensor, previous: Answer | None) -> Answer:
        """The answer to all ``points``; ``previous`` is the one before the last of them."""

    @abstractmethod
    def loss(self, answer: Answer, targets: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """(B,) float32, one value per image. ``rngs``: of each, if the loss draws anything."""

    @abstractmethod
    def save(self, folder: Path, card: Card) -> Card:
        """Write ``weights.safetensors``, under official names, and return ``card`` with family,
        architecture, input size, number of parameters and checksum filled in."""

    def save_memory(self) -> None:
        """Compute layers again for the gradient instead of keeping them. Raises
        ``HistoclickError`` where the family cannot."""
        raise HistoclickError("this family cannot use --checkpointing; use a smaller --micro-batch")

    def freeze(self, scenario: str) -> None:
        """Let only what the scenario names learn."""
        trains = self.scenarios[scenario].trains
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and trains(name))

    def train(self, scenario: str, learning: bool = True) -> None:
        """Training mode where something learns (``learning``), evaluation mode elsewhere: frozen
        norms keep their statistics."""
        self.net.eval()
        if not learning:
            return
        _let_learn(self.net, "", self.scenarios[scenario].trains)


def _let_learn(module: nn.Module, name: str, trains: Callable[[str], bool]) -> bool | None:
    """Training mode for ``module`` if all that it and its parts hold learns; whether that is so,
    ``None`` if there is nothing. Parts without weights, such as dropout, follow the module they
    are in. Weights that nothing asks (``requires_grad`` off) decide nothing."""
    prefix = f"{name}." if name else ""
    held = [
        trains(prefix + each)
        for each, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad
    ]
    held += [trains(prefix + each) for each, _ in module.named_buffers(recurse=False)]
    empty = []
    for each, part in module.named_children():
        learns = _let_learn(part, prefix + each, trains)
        if learns is None:
            empty.append(part)
        else:
            held.append(learns)
    learns = all(held) if held else None
    if learns:
        module.training = True
        for part in empty:
            part.train()
    return learns


def saved(
    folder: Path, card: Card, state: Mapping[str, Tensor], family: str, architecture: str, side: int
) -> Card:
    """Write weights with official names; ``card`` as ``Trainee.save`` returns it. ``side``: input
    size, px."""
    file = folder / "weights.safetensors"
    write_safetensors(state, file)
    return replace(
        card,
        family=family,
        architecture=architecture,
        input_size=side,
        sha256=sha256(file),
        parameters=sum(value.numel() for value in state.values()),
    )


def check_scenario(card: Card, scenario: str, known: Mapping[str, Scenario]) -> None:
    """Raise ``HistoclickError`` for a scenario that a family does not have."""
    if scenario not in known:
        raise HistoclickError(
            f"model '{card.id}' ({card.family}) has no scenario '{scenario}'; give "
            f"{' or '.join(known)}"
        )
