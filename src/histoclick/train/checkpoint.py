"""What an interrupted training goes on from: one file, replaced whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from histoclick.types import HistoclickError

FILE = "checkpoint.pt"


@dataclass
class Progress:
    """How far a training is. ``seconds``: spent so far, all sessions together. ``best``: lowest
    validation NoC, of ``best_step``, with the mean IoU over all clicks that decides between equals.
    ``looked_step``: of the last validation."""

    step: int = 0
    seconds: float = 0.0
    best: float = float("inf")
    best_iou: float = 0.0
    best_step: int = -1
    looked_step: int = 0


@dataclass
class Checkpoint:
    """``weights``: what learns, by name; ``average``, ``chosen``: the same of the running average
    and of the best step, empty for none. ``facts``: of settings, data and base, which have to be
    the same when the training goes on."""

    facts: dict[str, Any]
    progress: Progress
    weights: dict[str, Tensor]
    optimiser: dict[str, Any]
    average: dict[str, Tensor]
    chosen: dict[str, Tensor]

    def write(self, folder: Path) -> None:
        """Replace the one in ``folder``. Raises ``HistoclickError`` for a full disk."""
        partial = folder / f"{FILE}.partial"
        try:
            torch.save(vars(self) | {"progress": vars(self.progress)}, partial)
            partial.replace(folder / FILE)
        except (OSError, RuntimeError) as error:  # torch's writer has its own error
            partial.unlink(missing_ok=True)
            raise HistoclickError(
                f"{folder / FILE}: cannot be written ({error}); make room, then go on with --resume"
            ) from None


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in ``folder``, ``None`` if there is none. Raises ``HistoclickError``."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        progress = Progress(**values.pop("progress"))
        return Checkpoint(progress=progress, **values)
    except Exception as error:
        raise HistoclickError(
            f"{path}: damaged ({type(error).__name__}); delete the folder and train again"
        ) from error
