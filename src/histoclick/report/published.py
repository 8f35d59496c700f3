"""Runs beside what others published: the paper's columns, its numbers, and the difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from histoclick import metrics
from histoclick.report.measures import ABOUT, about, ordered, signed
from histoclick.report.records import Run
from histoclick.report.tables import Cell, Table
from histoclick.studies import Published

DIGITS = {"noc": 2, "spc": 3, "nof": 3}
TITLES = {
    "noc80": "NoC@80", "noc85": "NoC@85", "noc90": "NoC@90", "spc": "SPC",
    "nof85": "NoF/n@85", "nof90": "NoF/n@90",
}  # fmt: skip


def published_table(runs: Sequence[Run], published: Sequence[Published]) -> Table:
    """The paper's columns for every run; where its number is known, that and ours minus it.

    Runs and published numbers belong together by model id and dataset name.
    """
    known = {(each.model, each.dataset): each for each in published}
    rows, notes = [], dict[str, None]()
    for run in ordered(runs):
        source = known.get((run.card.model, run.card.dataset))
        numbers = {} if source is None or run.card.untrained else source.numbers
        if numbers and source is not None:
            notes[f"{run.label} on {run.card.dataset}: {source.source}."] = None
        cells = [_beside(name, measured(run, name), numbers.get(name)) for name in TITLES]
        rows.append((*about(run), *cells))
    explained = (
        "In round brackets: ours minus the published number, which stands before it."
        if notes
        else "No published number is on record for these models on these patch sets."
    )
    columns = (*ABOUT, *TITLES.values())
    return Table("Beside the published numbers", columns, 2, tuple(rows), (explained, *notes))


def measured(run: Run, name: str) -> float:
    """One number of a run, by its name in ``studies.COLUMNS``; NaN where it was not measured."""
    if name == "spc":
        made = run.seconds[np.isfinite(run.seconds)]
        return float(made.mean()) if made.size else float("nan")
    kind, target = name[:3], int(name[3:]) / 100
    if kind == "noc":
        return float(metrics.noc(run.ious, target, run.card.max_clicks))
    return float(metrics.nof(run.ious, target, run.card.max_clicks)) / len(run)


def _beside(name: str, ours: float, theirs: float | None) -> Cell:
    digits, title = DIGITS[name[:3]], TITLES[name]
    if np.isnan(ours):
        return Cell("not measured")
    if theirs is None:
        return Cell(f"{ours:.{digits}f}", numbers=((title, ours),))
    return Cell(
        f"{ours:.{digits}f}",
        f"published {theirs:.{digits}f}",
        signed(ours - theirs, digits),
        numbers=(
            (title, ours), (f"{title} published", theirs), (f"{title} difference", ours - theirs),
        ),
    )  # fmt: skip
