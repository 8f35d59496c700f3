"""What a comparison found so far, as a table: values, and differences on the same patches.

A patch's numbers are means over seeds; intervals resample slides. They say how sure a mean over
these trainings is about other slides. How much a training's luck matters stands beside them, as the
standard deviation between seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histoclick import metrics
from histoclick.comparison.jobs import Job
from histoclick.comparison.plan import Plan, Variant
from histoclick.metrics import Interval
from histoclick.models.card import read_card
from histoclick.report.records import Run, read_run
from histoclick.report.tables import Cell, Table, comma_separated, markdown

ALL = "all"
LATE = 3  # clicks; harm and far flips are counted after them
MEASURES = ("NoC@85", "NoC@90", "NoF/n@85", "Harm", "Harm > 0.05", "Far flips")
DIGITS = (2, 2, 3, 3, 3, 3)


@dataclass(frozen=True)
class Found:
    """A variant on a group of patch sets. ``values``: (S, N, M) of S seeds, N patches and the M
    ``MEASURES``, NaN where a patch has none; ``slides``: (N,); ``seconds``: of every click."""

    variant: Variant
    seeds: tuple[int, ...]
    values: NDArray[np.float64]
    slides: NDArray[np.object_]
    seconds: NDArray[np.float64]
    parameters: int


def measured(run: Run) -> NDArray[np.float64]:
    """(N, M): the ``MEASURES`` of every patch of a run."""
    late = run.ious[:, LATE - 1 :]  # the first change is that of click LATE + 1
    flips = np.full((len(run), 1), np.nan)
    if run.flips is not None and run.flips.shape[1] > LATE:
        flips = metrics.far_share(run.flips[:, LATE:])
    per_click = (metrics.harmful(late), metrics.harmful(late, metrics.HARM), flips)
    budget = run.card.max_clicks
    return np.column_stack(
        [
            metrics.clicks_to_reach(run.ious, 0.85, budget),
            metrics.clicks_to_reach(run.ious, 0.90, budget),
            metrics.failed(run.ious, 0.85, budget),
            *map(_mean_of_rows, per_click),
        ]
    ).astype(np.float64)


def _mean_of_rows(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) means over what is finite, NaN for rows without any."""
    there = np.isfinite(values)
    count = there.sum(1)
    sums = np.where(there, values, 0).sum(1)
    means: NDArray[np.float64] = np.full(len(values), np.nan)
    np.divide(sums, count, out=means, where=count > 0)
    return means


def collect(plan: Plan, out: Path, variant: Variant, group: str) -> Found | None:
    """All finished seeds of a variant; ``None`` if there is none."""
    folders = [data.folder.replace("/", "-") for data in plan.data if group in (ALL, data.group)]
    seeds, values, seconds, slides = [], [], [], np.array([], dtype=object)
    for seed in plan.seeds:
        place = out / "runs" / Job(variant, seed).name
        if not all((place / folder / "clicks.parquet").exists() for folder in folders):
            continue
        runs = [read_run(place / folder) for folder in folders]
        seeds.append(seed)
        values.append(np.concatenate([measured(run) for run in runs]))
        seconds += [run.seconds[np.isfinite(run.seconds)] for run in runs]
        slides = np.concatenate([run.slides for run in runs])
    if not seeds:
        return None
    card = read_card(out / "models" / Job(variant, seeds[0]).name)
    return Found(
        variant, tuple(seeds), np.stack(values), slides, np.concatenate(seconds), card.parameters
    )


def difference(one: Found, other: Found, measure: int) -> Interval | None:
    """``one`` minus ``other`` over the seeds that both have; ``None`` without any."""
    both = [seed for seed in one.seeds if seed in other.seeds]
    if not both:
        return None
    here, there = (
        found.values[[found.seeds.index(seed) for seed in both], :, measure].mean(0)
        for found in (one, other)
    )
    known = np.isfinite(here) & np.isfinite(there)
    if not known.any():
        return None
    return metrics.paired_difference(here[known], there[known], one.slides[known])


def make_table(plan: Plan, out: Path, group: str = ALL) -> Table:
    """The finished part of the comparison on one group of patch sets."""
    found = [each for v in plan.variants if (each := collect(plan, out, v, group)) is not None]
    against = [each for each in found if each.variant.name in plan.references]
    columns: tuple[str, ...] = ("Variant", "Seeds", "Parameters", "SPC", *MEASURES)
    columns += tuple(f"{name} against {each.variant.name}" for each in against for name in MEASURES)
    rows = []
    for each in found:
        spc = 1000 * float(np.median(each.seconds))
        cells = [
            Cell(each.variant.name, numbers=(("variant", each.variant.name), ("group", group))),
            Cell(str(len(each.seeds)), numbers=(("seeds", len(each.seeds)),)),
            Cell(f"{each.parameters:,}", numbers=(("parameters", each.parameters),)),
            Cell(f"{spc:.0f} ms", numbers=(("SPC, ms, median", spc),)),
            *(_value(each, i) for i in range(len(MEASURES))),
        ]
        for reference in against:
            for i, name in enumerate(MEASURES):
                apart = None if reference is each else difference(each, reference, i)
                cells.append(_change(f"{name} - {reference.variant.name}", apart, DIGITS[i]))
        rows.append(tuple(cells))
    patches = len(found[0].slides) if found else 0
    slides = len(set(found[0].slides)) if found else 0
    sets = [data.folder for data in plan.data if group in (ALL, data.group)]
    notes = (
        f"{patches} patches of {slides} slides: {', '.join(sets)}.",
        f"{plan.steps} steps each; means over seeds, +- standard deviation between them. In square "
        "brackets: 95 % intervals, BCa bootstrap over slides. A failure counts "
        f"{plan.max_clicks} clicks.",
        f"Harm: share of the clicks after click {LATE} that lower the IoU (by more than "
        f"{metrics.HARM:g}); far flips: share of what such a click changes more than "
        f"{metrics.FAR_PX} px away. Means over patches of each patch's mean.",
        "SPC: median over all clicks, on the machine as busy as it was.",
    )
    return Table(f"{plan.title}: {group}", columns, 1, tuple(rows), notes)


def _value(found: Found, measure: int) -> Cell:
    name, digits = MEASURES[measure], DIGITS[measure]
    per_patch = found.values[:, :, measure].mean(0)
    known = np.isfinite(per_patch)
    if not known.any():
        return Cell("none")
    interval = metrics.mean_interval(per_patch[known], found.slides[known])
    per_seed = np.nanmean(found.values[:, :, measure], axis=1)
    spread = float(per_seed.std(ddof=1)) if len(per_seed) > 1 else float("nan")
    text = f"{interval.mean:.{digits}f}"
    if len(per_seed) > 1:
        text += f" +- {spread:.{digits}f}"
    numbers = (
        (name, interval.mean), (f"{name} low", interval.low), (f"{name} high", interval.high),
        (f"{name} sd of seeds", spread),
    )  # fmt: skip
    return Cell(text, f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]", numbers=numbers)


def _change(name: str, apart: Interval | None, digits: int) -> Cell:
    if apart is None:
        return Cell("")
    bounds = f"[{apart.low:+.{digits}f}, {apart.high:+.{digits}f}]"
    numbers = ((name, apart.mean), (f"{name} low", apart.low), (f"{name} high", apart.high))
    return Cell(f"{apart.mean:+.{digits}f}", bounds, numbers=numbers)


def split(table: Table) -> list[Table]:
    """The values, then a table for each reference: what fits on a page."""
    first = 4 + len(MEASURES)
    parts = [_columns(table, range(first), table.title, table.notes)]
    for start in range(first, len(table.columns), len(MEASURES)):
        reference = table.columns[start].partition(" against ")[2]
        chosen = [0, 1, *range(start, start + len(MEASURES))]
        title = f"{table.title}, difference to {reference} on the same patches and seeds"
        renamed = tuple(name.partition(" against ")[0] for name in table.columns)
        part = _columns(
            Table("", renamed, 1, table.rows), chosen, title, ("Below zero is better.",)
        )
        parts.append(part)
    return parts


def _columns(table: Table, chosen: Sequence[int], title: str, notes: tuple[str, ...]) -> Table:
    columns = tuple(table.columns[i] for i in chosen)
    return Table(
        title, columns, 1, tuple(tuple(row[i] for i in chosen) for row in table.rows), notes
    )


def write_tables(plan: Plan, out: Path) -> Path:
    """``table.md`` and a CSV for each group, replaced as they are; returns the Markdown file."""
    groups = [ALL, *dict.fromkeys(data.group for data in plan.data)]
    tables = {group: make_table(plan, out, group) for group in groups}
    for group, table in tables.items():
        _replace(out / f"table-{group}.csv", comma_separated(table))
    text = markdown(part for table in tables.values() for part in split(table))
    _replace(out / "table.md", text)
    return out / "table.md"


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
