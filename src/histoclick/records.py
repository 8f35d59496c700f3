"""The files of a run: protocol card, click records, and the journal while it is under way.

Names and columns stand here once, for who writes them (``evaluate``) and who reads them
(``report``). See ``docs/formats.md``.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

from histoclick.files import replace
from histoclick.types import HistoclickError

CARD, TABLE, JOURNAL = "run.toml", "clicks.parquet", "clicks.jsonl"
TRAINING_CURVE = "training-curve.png"  # of a model that histoclick trained
NOTHING = "nothing"  # what a user starts from unless told otherwise
REAL_USERS = "user"  # the click rule of people, who stop when they like
ABOUT = {"model": "str", "dataset": "str", "patch": "str", "slide": "str"}
CLICK = {
    "click": "int32", "x": "float64", "y": "float64", "positive": "bool", "iou": "float64",
    "quality": "float64", "start_iou": "float64", "flipped": "int64", "far_flipped": "int64",
    "seconds": "float64", "encode_seconds": "float64",
}  # fmt: skip
COLUMNS = ABOUT | CLICK

Row = dict[str, Any]  # the columns of CLICK


@dataclass(frozen=True)
class Finished:
    """A patch that was clicked to the end. ``slide``: ``None`` if the journal does not say."""

    patch: str
    slide: str | None
    rows: list[Row]


def read_card(folder: Path) -> dict[str, Any]:
    """The protocol card as TOML holds it. Raises ``HistoclickError`` if there is none."""
    path = folder / CARD
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise HistoclickError(
            f"{folder}: no {CARD} inside, so this is no run folder; make one with 'histoclick "
            "evaluate'"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HistoclickError(
            f"{path}: no protocol card, it is not valid TOML ({error}); evaluate into another "
            "folder"
        ) from None


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write the protocol card, or replace it."""
    replace(folder / CARD, tomli_w.dumps(card).encode())


def read_table(folder: Path) -> pd.DataFrame:
    """The records of a complete run; ``quality``, which older ones lack, is missing there.

    Raises ``HistoclickError`` for a damaged file.
    """
    path = folder / TABLE
    try:
        table = pd.read_parquet(path)
        return table if "quality" in table else table.assign(quality=float("nan"))
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise HistoclickError(
            f"{path}: damaged ({error}); delete the run folder and evaluate again"
        ) from None


def write_table(folder: Path, rows: Iterable[Row]) -> None:
    """Write the records of a complete run; the journal is not needed any more."""
    partial = folder / f"{TABLE}.partial"
    with partial.open("wb") as file:
        pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS).to_parquet(file, index=False)
        file.flush()
        os.fsync(file.fileno())  # the journal goes next: the table must be on disk before
    partial.replace(folder / TABLE)
    (folder / JOURNAL).unlink(missing_ok=True)


def read_journal(folder: Path) -> list[Finished]:
    """What a run under way has finished; a torn last line is what an interruption leaves."""
    path = folder / JOURNAL
    finished = []
    for number, line in enumerate(_whole(path).splitlines(), start=1):
        try:
            entry = json.loads(line)
            rows = [dict(row) for row in entry["clicks"]]
            finished.append(Finished(entry["patch"], entry.get("slide"), rows))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise HistoclickError(
                f"{path}: line {number} is damaged; delete it and evaluate again"
            ) from None
    return finished


def mend_journal(folder: Path) -> None:
    """Drop a torn last line before anything is appended to it."""
    path = folder / JOURNAL
    if path.exists() and len(whole := _whole(path)) < path.stat().st_size:
        replace(path, whole)


def append(folder: Path, patch: Finished) -> None:
    """Add a finished patch to the journal, forced to disk."""
    entry = {"patch": patch.patch, "slide": patch.slide, "clicks": patch.rows}
    with (folder / JOURNAL).open("ab") as file:
        file.write(json.dumps(entry).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _whole(journal: Path) -> bytes:
    """All complete lines."""
    if not journal.exists():
        return b""
    whole, newline, _ = journal.read_bytes().rpartition(b"\n")
    return whole + newline
