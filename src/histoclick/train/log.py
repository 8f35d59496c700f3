"""The record of a training: CSV always, TensorBoard where it is installed."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from histoclick.train.checkpoint import Progress

STEPS, VALIDATIONS = "log.csv", "validation.csv"
COLUMNS = ("step", "minutes", "clicks", "loss", "iou", "rate")


class Log:
    """Opened at ``step``: lines of later steps, which will be done again, are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        self._steps = _reopened(folder / STEPS, COLUMNS, step)
        self._validations = _reopened(folder / VALIDATIONS, ("step", "noc85"), step)
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        board = folder / "tensorboard"
        self._board = SummaryWriter(str(board), purge_step=step)

    def step(self, progress: Progress, clicks: int, loss: float, iou: float, rate: float) -> None:
        """One line. ``iou``: after the graded click."""
        minutes = progress.seconds / 60
        self._steps.write(
            f"{progress.step},{minutes:.3f},{clicks},{loss:.6g},{iou:.4f},{rate:.4g}\n"
        )
        if self._board is not None:
            for name, value in (("loss", loss), ("iou", iou), ("rate", rate)):
                self._board.add_scalar(name, value, progress.step)

    def validation(self, progress: Progress, noc: float) -> None:
        """The mean number of clicks to IoU 0.85 on the validation patches."""
        self._validations.write(f"{progress.step},{noc:.4f}\n")
        if self._board is not None:
            self._board.add_scalar("validation NoC@85", noc, progress.step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._steps.close()
        self._validations.close()
        if self._board is not None:
            self._board.close()


def _reopened(path: Path, columns: tuple[str, ...], step: int) -> Any:
    kept = []
    if path.exists():
        with path.open(newline="") as file:
            rows = list(csv.reader(file))[1:]
        kept = [row for row in rows if len(row) == len(columns) and int(row[0]) <= step]
    lines = [",".join(columns), *(",".join(row) for row in kept)]
    path.write_text("\n".join(lines) + "\n")
    return path.open("a", buffering=1)
