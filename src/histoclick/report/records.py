"""Run folders: the protocol card and the click records beside it, checked, as arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histoclick import records
from histoclick.records import COLUMNS
from histoclick.types import HistoclickError

KINDS = {"str": "OU", "bool": "b", "int32": "iu", "int64": "iu", "float64": "fiu"}  # of numpy
LEAST = {
    "click": 1, "iou": 0, "quality": 0, "start_iou": 0, "flipped": 0, "far_flipped": 0,
    "seconds": 0, "encode_seconds": 0,
}  # fmt: skip
# Who answers many users at once cannot be timed, and not every model judges its masks.
GAPS = ("seconds", "encode_seconds", "quality")
LATER = ("start_iou", "flipped", "far_flipped")  # columns that older runs do not have
UNKNOWN_SLIDE = "(not recorded)"


@dataclass(frozen=True)
class Card:
    """What a run says of itself. ``facts``: the whole card, table by table, as TOML holds it."""

    model: str
    family: str
    untrained: bool
    dataset: str
    patches: int
    data_sha256: str
    click_rule: str
    start: str
    start_sha256: str
    max_clicks: int
    targets: tuple[float, ...]
    facts: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """One model on one dataset: N finished patches, at most K = ``card.max_clicks`` clicks each.

    ``records``: a row per patch and click, as in ``clicks.parquet``. ``patches``, ``slides``: (N,)
    names. ``ious``: (N, K) after each click, ``seconds``: (N, K) s, both NaN where a patch got no
    further click; seconds also where they were not measured. ``qualities``: (N, K), the IoUs as
    the model estimated them, NaN where it did not. ``encode_seconds``: (N,) s.
    ``start_ious``: (N,) of the masks the user started from, 0 where that was nothing. ``flips``:
    (N, K, 2) px, changed by each click and changed far from it, NaN as ``ious``; ``None`` if the
    run does not say. ``name``: the model's id, with the folder where two runs would read the same.
    """

    folder: Path
    card: Card
    records: pd.DataFrame
    patches: NDArray[np.object_]
    slides: NDArray[np.object_]
    ious: NDArray[np.float64]
    qualities: NDArray[np.float64]
    seconds: NDArray[np.float64]
    encode_seconds: NDArray[np.float64]
    start_ious: NDArray[np.float64]
    flips: NDArray[np.float64] | None
    name: str

    def __len__(self) -> int:
        return len(self.patches)

    @property
    def partial(self) -> bool:
        """Whether patches are missing: the run was interrupted."""
        return len(self) < self.card.patches

    @property
    def label(self) -> str:
        """``name``, marked where the weights mean nothing."""
        return f"{self.name} (untrained weights)" if self.card.untrained else self.name

    @property
    def started(self) -> bool:
        """Whether there were masks to start from, which the first click can spoil."""
        return self.card.start != records.NOTHING


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """Read the runs in ``folders``: each is a run folder, or holds run folders side by side.

    Raises ``HistoclickError`` for a folder that is no run, and for runs that cannot stand in one
    table: other click rules, budgets or targets, or other patches under the same dataset name.
    """
    found = [run for folder in folders for run in _run_folders(folder)]
    runs = [read_run(folder) for folder in dict.fromkeys(folder.resolve() for folder in found)]
    if not runs:
        raise HistoclickError("no run given; name the folder of at least one 'histoclick evaluate'")
    for run in runs[1:]:
        comparable(runs[0], run)
    datasets: dict[str, Run] = {}
    for run in runs:
        comparable(datasets.setdefault(run.card.dataset, run), run)
    rows = Counter((run.card.model, run.card.dataset) for run in runs)
    return [
        replace(run, name=f"{run.name}, {run.folder.name}")
        if rows[run.card.model, run.card.dataset] > 1
        else run
        for run in runs
    ]


def comparable(one: Run, other: Run) -> None:
    """Raise ``HistoclickError`` unless the numbers of two runs mean the same."""
    rules = {"click rule": "click_rule", "click budget": "max_clicks", "targets": "targets"}
    rules["starting masks"] = "start"
    if one.card.dataset == other.card.dataset:
        rules |= {"patches": "data_sha256", "starting masks' contents": "start_sha256"}
    for name, field in rules.items():
        here, there = getattr(one.card, field), getattr(other.card, field)
        if here != there:
            raise HistoclickError(
                f"{one.folder} and {other.folder}: not comparable, their {name} differ ({here} and "
                f"{there}); report them separately or evaluate again with one protocol"
            )


def read_run(folder: Path) -> Run:
    """Read and check one run folder. Raises ``HistoclickError`` naming what is wrong with it."""
    card = _card(folder)
    if (folder / records.TABLE).exists():
        table, where = records.read_table(folder), folder / records.TABLE
    else:
        table, where = _unfinished(folder, card), folder / records.JOURNAL
    if len(table) == 0:
        raise HistoclickError(f"{folder}: no patch is finished yet; continue with the same command")
    return _run(folder, card, _checked(table, card, where), where)


def _run_folders(folder: Path) -> list[Path]:
    inside = [] if (folder / "run.toml").exists() else sorted(folder.glob("*/run.toml"))
    return [path.parent for path in inside] or [folder]


def _card(folder: Path) -> Card:
    path, facts = folder / records.CARD, records.read_card(folder)
    if facts.get("schema") != 1:
        raise HistoclickError(
            f"{path}: schema {facts.get('schema')!r} is not 1; use the histoclick that wrote it"
        )
    try:
        model, data, protocol = facts["model"], facts["data"], facts["protocol"]
        card = Card(
            model=str(model["id"]),
            family=str(model.get("family", "")),
            untrained=bool(model.get("untrained", False)),
            dataset=str(data["name"]),
            patches=int(data["patches"]),
            data_sha256=str(data["sha256"]),
            click_rule=str(protocol["click_rule"]),
            start=str(protocol.get("start", records.NOTHING)),
            start_sha256=str(protocol.get("start_sha256", "")),
            max_clicks=int(protocol["max_clicks"]),
            targets=tuple(sorted(float(target) for target in protocol["targets"])),
            facts={name: part for name, part in facts.items() if isinstance(part, dict)},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HistoclickError(
            f"{path}: no complete protocol card ({type(error).__name__}: {error}); evaluate again"
        ) from None
    if card.max_clicks < 1 or not card.targets:
        raise HistoclickError(f"{path}: no click budget or no targets in it; evaluate again")
    return card


def _unfinished(folder: Path, card: Card) -> pd.DataFrame:
    """The records of a run under way."""
    journal = folder / records.JOURNAL
    if not journal.exists():
        raise HistoclickError(
            f"{folder}: neither {records.TABLE} nor {records.JOURNAL} inside, so nothing was "
            "evaluated yet; start again with the same command"
        )
    rows = []
    for entry in records.read_journal(folder):
        # Journals need not name slides. Without names no interval can be given, unless the
        # patch set has none either and every patch stands for itself.
        unnamed = UNKNOWN_SLIDE if card.facts["data"].get("slides") else entry.patch
        slide = unnamed if entry.slide is None else entry.slide
        known = {"model": card.model, "dataset": card.dataset, "patch": entry.patch, "slide": slide}
        rows += [known | click for click in entry.rows]
    # Journals of older runs know no quality, and who judges nothing writes nothing.
    table = pd.DataFrame(rows)
    return table.assign(quality=table.get("quality", np.nan)).astype({"quality": "float64"})


def _checked(table: pd.DataFrame, card: Card, where: Path) -> pd.DataFrame:
    """``table`` as it should be, else ``HistoclickError``."""
    later = LATER if card.start == records.NOTHING else ()
    asked = [name for name in COLUMNS if name in table.columns or name not in later]
    missing = [name for name in asked if name not in table.columns]
    if missing:
        raise HistoclickError(f"{where}: no column {', '.join(missing)}; evaluate again")
    for name in asked:
        values = table[name].to_numpy()
        wrong = f"{where}: column {name}"
        if values.dtype.kind not in KINDS[COLUMNS[name]]:
            raise HistoclickError(f"{wrong} holds {values.dtype}; evaluate again")
        if name not in GAPS and _has_gaps(values):
            raise HistoclickError(f"{wrong} has gaps; evaluate again")
        if name in LEAST and (values < LEAST[name]).any():
            raise HistoclickError(f"{wrong} falls below {LEAST[name]}; evaluate again")
        if name in GAPS and np.isinf(values).any():
            raise HistoclickError(f"{wrong} is not finite; evaluate again")
    for name, most in (("iou", 1), ("quality", 1), ("start_iou", 1), ("click", card.max_clicks)):
        if name in asked and table[name].max() > most:
            raise HistoclickError(f"{where}: column {name} exceeds {most}; evaluate again")
    for name, told in (("model", card.model), ("dataset", card.dataset)):
        others = sorted(set(table[name]) - {told})
        if others:
            raise HistoclickError(
                f"{where}: holds clicks of {name} {others[0]!r}, but the card beside it says "
                f"{told!r}; evaluate into separate folders"
            )
    return table


def _has_gaps(values: NDArray[Any]) -> bool:
    missing = ~np.isfinite(values) if values.dtype.kind == "f" else pd.isna(values)
    return bool(missing.any())


def _run(folder: Path, card: Card, table: pd.DataFrame, where: Path) -> Run:
    """Fold the rows into arrays; a patch is finished when its clicks are 1, 2, ... to the end."""
    row, patches = pd.factorize(table["patch"])
    click = table["click"].to_numpy()
    clicks_made = np.bincount(row)
    ious = np.full((len(patches), card.max_clicks), np.nan)
    qualities, seconds = ious.copy(), ious.copy()
    ious[row, click - 1] = table["iou"]
    qualities[row, click - 1] = table["quality"]
    seconds[row, click - 1] = table["seconds"]
    flips = None
    if {"flipped", "far_flipped"} <= set(table.columns):
        flips = np.full((*ious.shape, 2), np.nan)
        flips[row, click - 1] = table[["flipped", "far_flipped"]]
    if "start_iou" not in table.columns:
        table = table.assign(start_iou=0.0)
    complete = np.isfinite(ious) == (np.arange(card.max_clicks) < clicks_made[:, None])
    if not complete.all() or clicks_made.max() > card.max_clicks:
        raise HistoclickError(f"{where}: clicks of a patch are not 1, 2, 3, ...; evaluate again")
    per_patch = table.groupby("patch", sort=False)[["slide", "encode_seconds", "start_iou"]]
    if per_patch.nunique().to_numpy().max() > 1:
        raise HistoclickError(
            f"{where}: a patch has two slides, two encodes or two starts; evaluate again"
        )
    if len(patches) > card.patches:
        raise HistoclickError(
            f"{where}: {len(patches)} patches, but its card says {card.patches}; evaluate again"
        )
    # Who stopped early without the last target was interrupted and says nothing about failures.
    # Not so people: they had enough.
    finished = (clicks_made == card.max_clicks) | (
        ious[np.arange(len(ious)), clicks_made - 1] >= card.targets[-1]
    )
    finished |= card.click_rule == records.REAL_USERS
    if not finished.any():
        raise HistoclickError(f"{folder}: no patch is finished yet; continue with the same command")
    first = per_patch.first()
    return Run(
        folder=folder,
        card=card,
        records=table[finished[row]],
        patches=np.asarray(patches, dtype=object)[finished],
        slides=first["slide"].to_numpy(dtype=object)[finished],
        ious=ious[finished],
        qualities=qualities[finished],
        seconds=seconds[finished],
        encode_seconds=first["encode_seconds"].to_numpy(dtype=np.float64)[finished],
        start_ious=first["start_iou"].to_numpy(dtype=np.float64)[finished],
        flips=None if flips is None else flips[finished],
        name=card.model,
    )
