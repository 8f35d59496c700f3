"""Runs as the tables of the paper: what was measured, with intervals over slides.

Table 1 is ``clicks_table``: NoC, SPC and NoF of every model on every dataset; with a baseline also
the change of NoC in brackets, as in Table 2. ``iou_table`` adds what a fixed number of clicks buys,
``stability_table`` how often a click spoils something, ``hardest_table`` where to look.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import floor, isnan, log10

import numpy as np
from numpy.typing import NDArray

from histoclick import metrics
from histoclick.metrics import Difference, Interval
from histoclick.report.records import UNKNOWN_SLIDE, Run, comparable
from histoclick.report.tables import MINUS, Cell, Table
from histoclick.types import HistoclickError

ABOUT = ("Model", "Dataset", "Patches", "Slides")  # the first two in words
SHOWN_CLICKS = (1, 5, 20)
HARDEST = 10
INTERVALS = (
    "In square brackets: 95 % confidence intervals, bias corrected and accelerated bootstrap over "
    f"slides (over patches where slides are not named), {metrics.RESAMPLES:,} resamples."
)


def by_dataset(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs grouped by dataset, both in the order in which they were named."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.card.dataset, []).append(run)
    return groups


def clicks_table(
    runs: Sequence[Run], baselines: Sequence[Run] = (), before: Mapping[str, str] | None = None
) -> Table:
    """Table 1: NoC at every target, SPC without and with encode, NoF at the higher targets.

    ``baselines``: runs to compare with, for each run the one on the same dataset (of several, the
    one of the same model family). ``before``: the model that each model is compared with instead,
    among ``runs`` (Table 2: what it was before it was trained). Raises ``HistoclickError`` where
    more than one is left, where it was evaluated by other rules, and when no run has any.
    """
    targets, budget = runs[0].card.targets, runs[0].card.max_clicks
    counted = targets[1:] or targets
    rows, notes = [], {INTERVALS: None}  # a dict keeps the order and says everything once
    for run in ordered(runs):
        clicks = [metrics.clicks_to_reach(run.ious, target, budget) for target in targets]
        failures = [metrics.failed(run.ious, target, budget) for target in counted]
        columns = np.column_stack([*clicks, *failures]).astype(np.float64)
        intervals = metrics.mean_intervals(columns, run.slides)
        changes: list[Difference | None] = [None] * len(targets)
        baseline = _baseline(run, baselines) if before is None else _earlier(run, runs, before)
        if baseline:
            changes = [_change(run, baseline, target) for target in targets]
            notes |= dict.fromkeys(_pairing(run, baseline))
        rows.append(
            (
                *about(run),
                *map(number, map(_noc, targets), intervals, [2] * len(targets), changes),
                _seconds("SPC", run, run.seconds),
                _seconds(
                    "SPC with encode", run, metrics.with_encode(run.seconds, run.encode_seconds)
                ),
                *map(_failures, map(_nof, counted), failures, intervals[len(targets) :]),
            )
        )
    if baselines and len(notes) == 1:
        raise HistoclickError(
            f"{baselines[0].folder}: a baseline for none of the runs, its dataset is "
            f"{baselines[0].card.dataset!r}; give another run on the same patches"
        )
    notes[f"NoC counts a failure as {budget} clicks, the budget. SPC in seconds."] = None
    notes |= dict.fromkeys(note for run in runs for note in _timing(run))
    names = (*map(_noc, targets), "SPC", "SPC with encode", *map(_nof, counted))
    return Table("Clicks to reach a target IoU", ABOUT + names, 2, tuple(rows), tuple(notes))


def iou_table(runs: Sequence[Run]) -> Table:
    """Mean IoU after 1, 5 and 20 clicks (as far as the budget goes) and area under the curve.

    Where users started from masks, their mean IoU is that after 0 clicks.
    """
    budget = runs[0].card.max_clicks
    shown = sorted({click for click in SHOWN_CLICKS if click <= budget} | {budget})
    shown = [0, *shown] if runs[0].started else shown
    names = (*(f"IoU@{click}" for click in shown), "AUC")
    rows = []
    for run in ordered(runs):
        after = with_start(run)[:, shown]
        columns = np.column_stack([after, metrics.curve_area(run.ious)])
        intervals = metrics.mean_intervals(columns, run.slides)
        rows.append((*about(run), *map(number, names, intervals, [3] * len(names))))
    notes = (
        INTERVALS,
        "IoU@k: mean IoU after click k; AUC: normalised area under the IoU-click curve over clicks "
        f"1 to {budget}.",
    )
    return Table("IoU after a number of clicks", ABOUT + names, 2, tuple(rows), notes)


def stability_table(runs: Sequence[Run]) -> Table:
    """How steady the answers are: clicks that lower the IoU, and changes far from the click."""
    names = ("Harm rate", f"Harm rate, > {metrics.HARM:g}", "Far-flip ratio")
    rows = []
    for run in ordered(runs):
        first = 0 if run.started else 1  # click that has something to spoil
        ious = np.column_stack([run.start_ious, run.ious])[:, first:]
        cells = [
            _per_click(names[0], run, metrics.harmful(ious)),
            _per_click(names[1], run, metrics.harmful(ious, metrics.HARM)),
            Cell("not recorded")
            if run.flips is None
            else _per_click(names[2], run, metrics.far_share(run.flips)[:, first:]),
        ]
        rows.append((*about(run), *cells))
    over = "Over all clicks" if runs[0].started else "Over all clicks but the first of each patch"
    notes = (
        INTERVALS,
        f"{over}. Harm rate: share of clicks that lower the IoU, and that lower it by more than "
        f"{metrics.HARM:g}. Far-flip ratio: which part of the pixels a click changes lies more "
        f"than {metrics.FAR_PX} px from it, mean over clicks that change any.",
    )
    return Table("Stability", ABOUT + names, 2, tuple(rows), notes)


def with_start(run: Run) -> NDArray[np.float64]:
    """(N, K + 1) IoU after 0, 1, ... K clicks; who stops clicking keeps the mask."""
    return np.column_stack([run.start_ious, metrics.held(run.ious)])


def hardest_table(runs: Sequence[Run]) -> Table:
    """The patches of one dataset with the least area under the curve, mean over ``runs``.

    Untrained models have no say in that while there are others.
    """
    target, budget = runs[0].card.targets[-1], runs[0].card.max_clicks
    judges = [run for run in runs if not run.card.untrained] or runs
    areas: dict[str, list[float]] = {}
    slide: dict[str, str] = {}
    for run in judges:
        found = zip(run.patches, run.slides, metrics.curve_area(run.ious), strict=True)
        for patch, name, area in found:
            areas.setdefault(patch, []).append(float(area))
            slide[patch] = name
    worst = sorted(areas, key=lambda patch: (float(np.mean(areas[patch])), patch))[:HARDEST]
    rows = []
    for patch in worst:
        cells = [Cell(patch), Cell(slide[patch]), Cell(f"{np.mean(areas[patch]):.3f}")]
        for run in runs:
            at = np.flatnonzero(run.patches == patch)
            if len(at) == 0:
                cells.append(Cell("not evaluated"))
                continue
            ious = run.ious[at]
            failed = metrics.nof(ious, target, budget) > 0
            reached = "never" if failed else f"at click {metrics.noc(ious, target, budget):.0f}"
            cells.append(Cell(f"{metrics.held(ious)[0, -1]:.3f}", f"{target:g} {reached}"))
        rows.append(tuple(cells))
    note = f"For each model: IoU after the last click, and the click that reached IoU {target:g}."
    columns = ("Patch", "Slide", "AUC", *(run.label for run in runs))
    return Table(f"Hardest patches of {runs[0].card.dataset}", columns, 2, tuple(rows), (note,))


def ordered(runs: Sequence[Run]) -> list[Run]:
    """Runs of one dataset together."""
    return [run for group in by_dataset(runs).values() for run in group]


def about(run: Run) -> tuple[Cell, ...]:
    """The cells under ``ABOUT``."""
    weights = "untrained" if run.card.untrained else "trained"
    planned = run.card.patches
    slides = str(len(set(run.slides)))
    if UNKNOWN_SLIDE in run.slides:
        slides = "not recorded"
    elif run.card.facts["data"].get("slides") == 0:
        slides = "not named"
    return (
        Cell(
            run.name,
            mark="untrained weights" if run.card.untrained else "",
            numbers=(("model", run.name), ("weights", weights)),
        ),
        Cell(run.card.dataset, numbers=(("dataset", run.card.dataset),)),
        Cell(
            f"{len(run)} of {planned}" if run.partial else str(len(run)),
            mark="partial" if run.partial else "",
            numbers=(("patches", len(run)), ("patches planned", planned)),
        ),
        Cell(slides, numbers=(("slides", slides),)),
    )


def _noc(target: float) -> str:
    return f"NoC@{100 * target:g}"


def _nof(target: float) -> str:
    return f"NoF@{100 * target:g}"


def number(name: str, estimate: Interval, digits: int, change: Difference | None = None) -> Cell:
    """A mean with its interval, if there is one; ``name``: its column in a CSV."""
    numbers: list[tuple[str, object]] = [
        (name, estimate.mean), (f"{name} low", estimate.low), (f"{name} high", estimate.high)
    ]  # fmt: skip
    if change is None:
        text, detail, verdict = "", "", ""
    else:
        text, detail = signed(change.mean, digits), _bounds(change, digits)
        # Fewer clicks are better.
        verdict = "better" if change.high < 0 else "worse" if change.low > 0 else ""
        numbers += [
            (f"{name} change", change.mean), (f"{name} change low", change.low),
            (f"{name} change high", change.high), (f"{name} change p", change.p),
        ]  # fmt: skip
    return Cell(
        f"{estimate.mean:.{digits}f}", _bounds(estimate, digits), text, detail, verdict,
        numbers=tuple(numbers),
    )  # fmt: skip


def _failures(name: str, failed: NDArray[np.bool_], share: Interval) -> Cell:
    count = int(failed.sum())
    percent = Interval(100 * share.mean, 100 * share.low, 100 * share.high)
    bounds = _bounds(percent, 1)
    return Cell(
        f"{count} ({percent.mean:.1f} %)",
        f"{bounds} %" if bounds else "",
        numbers=(
            (name, count), (f"{name}/n", share.mean), (f"{name}/n low", share.low),
            (f"{name}/n high", share.high),
        ),
    )  # fmt: skip


def _seconds(name: str, run: Run, seconds: metrics.Floats) -> Cell:
    made = np.isfinite(seconds)
    if not made.any():
        return Cell("not measured")
    slides = np.repeat(run.slides, made.sum(1))
    spent = metrics.mean_interval(seconds[made], slides)
    digits = max(2, 2 - floor(log10(spent.mean))) if spent.mean > 0 else 2
    return number(name, spent, digits)


def _timing(run: Run) -> Iterator[str]:
    """What sets the seconds of a run apart: not of all patches, or of a busy machine."""
    which = f"SPC of {run.label} on {run.card.dataset}"
    timed = int(np.isfinite(run.seconds).any(1).sum())
    if 0 < timed < len(run):
        yield f"{which}: from the {timed} patches that were clicked on one by one."
    workers = run.card.facts.get("machine", {}).get("workers", 1)
    if timed and isinstance(workers, int) and workers > 1:
        yield f"{which}: measured while up to {workers} workers were busy."


def _per_click(name: str, run: Run, values: metrics.Floats) -> Cell:
    """The mean of (N, k) ``values`` over all clicks that have one."""
    made = np.isfinite(values)
    if not made.any():
        return Cell("no click")
    slides = np.repeat(run.slides, made.sum(1))
    return number(name, metrics.mean_interval(values[made], slides), 3)


def _bounds(interval: Interval, digits: int) -> str:
    """Empty where resampling says nothing: one slide, or the same value everywhere."""
    if isnan(interval.low) or interval.high - interval.low < 1e-12:
        return ""
    low, high = _plain(interval.low, digits), _plain(interval.high, digits)
    return f"[{low}, {high}]"


def _plain(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.lstrip("-")


def signed(value: float, digits: int) -> str:
    """With a plus or a minus, none for zero."""
    text = _plain(value, digits)
    return f"+{text}" if value > 0 and float(text) else text


def _baseline(run: Run, baselines: Sequence[Run]) -> Run | None:
    """The run to compare with; ``None`` without one on this dataset and for a baseline itself."""
    same = [other for other in baselines if other.card.dataset == run.card.dataset]
    if not same or any(other.folder == run.folder for other in same):
        return None
    family = [other for other in same if other.card.family == run.card.family]
    chosen = family if len(same) > 1 else same
    if len(chosen) != 1:
        raise HistoclickError(
            f"{run.folder}: {len(chosen)} baselines fit dataset {run.card.dataset!r} and model "
            f"family {run.card.family!r}; give one run per dataset, or one per family and dataset"
        )
    comparable(run, chosen[0])
    return chosen[0]


def _earlier(run: Run, runs: Sequence[Run], before: Mapping[str, str]) -> Run | None:
    """The run of the model that this one was, on the same dataset."""
    wanted = before.get(run.card.model), run.card.dataset
    return next((r for r in runs if (r.card.model, r.card.dataset) == wanted), None)


def _common(run: Run, baseline: Run) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of ``run`` and of ``baseline`` that hold the same patches, pairwise."""
    _, here, there = np.intersect1d(
        run.patches.astype(str), baseline.patches.astype(str), return_indices=True
    )
    if len(here) == 0:
        raise HistoclickError(
            f"{run.folder} and {baseline.folder}: no patch in common; evaluate both on one set"
        )
    return here, there


def _change(run: Run, baseline: Run, target: float) -> Difference:
    here, there = _common(run, baseline)
    clicks, before = (
        metrics.clicks_to_reach(ious, target, run.card.max_clicks).astype(np.float64)
        for ious in (run.ious[here], baseline.ious[there])
    )
    return metrics.paired_difference(clicks, before, run.slides[here])


def _pairing(run: Run, baseline: Run) -> Iterator[str]:
    yield (
        "In round brackets: change of NoC against the baseline on the same patches, with its "
        "paired interval; below zero is better."
    )
    yield f"Baseline on {run.card.dataset}: {baseline.label}."
    pairs = len(_common(run, baseline)[0])
    if pairs < len(run):
        yield (
            f"{run.label} on {run.card.dataset}: the change is over the {pairs} patches that the "
            "baseline holds too."
        )
