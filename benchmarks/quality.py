"""How good is it: every model on every patch set below some folders, in one report.

    python benchmarks/quality.py FOLDER... --out RUNS [--models A B ...] [--write-card MODEL]

Each patch set (a folder with ``images/`` and ``masks/``, named ``--split``) and model becomes a run
``RUNS/<set>/<model>`` as ``histoclick evaluate`` makes it; finished runs are not done again. The
report goes to ``RUNS/page``, the table of all models on all sets to ``--table``. ``--write-card``
puts the measured numbers into the model's card.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from histoclick import machine, metrics
from histoclick.cli import run_evaluation
from histoclick.comparison.table import LATE, MEASURES
from histoclick.comparison.table import measured as per_patch
from histoclick.files import replace
from histoclick.models import registry
from histoclick.patches import open_patch_set
from histoclick.report import write_report
from histoclick.report.measures import INTERVALS, by_dataset, number
from histoclick.report.records import Run, read_run, read_runs
from histoclick.report.tables import Cell, Table, markdown

SHARED = Path(os.environ.get("HISTOCLICK_SHARED", Path(__file__).parents[2] / "shared"))
TARGETS = (0.80, 0.85, 0.90)
# Who cannot beat these knows nothing.
SANE = ("discs", "nearest-colour", "grabcut", "random-walker")
SHOWN = {"NoC@85": 2, "NoC@90": 2, "NoF/n@85": 2, "Harm": 3}  # of the measures; digits
SURE, RIGHT = 0.9, 0.85  # who says the first should have the second


def measured(run: Run, folder: Path) -> dict[str, object]:
    """One line of a card: what a run on the patch set ``folder`` found.

    ``sure``: patches on which the model once said ``SURE`` or more; ``sure_right``: those of them
    with an IoU of ``RIGHT`` when it first did.
    """
    budget = run.card.max_clicks
    line: dict[str, object] = {"dataset": run.card.dataset, "patches": len(run)}
    for target in TARGETS:
        line[f"noc{100 * target:.0f}"] = round(metrics.noc(run.ious, target, budget), 2)
        line[f"nof{100 * target:.0f}"] = metrics.nof(run.ious, target, budget)
    if np.isfinite(run.qualities).any():
        stopped = when_sure(run)
        line["sure"], line["sure_right"] = len(stopped), int((stopped >= RIGHT).sum())
    model = run.card.model
    line["command"] = f"histoclick evaluate --model {model} --data {named(folder)} --out run"
    return line


def when_sure(run: Run) -> metrics.Floats:
    """IoU when the model first said ``SURE`` or more, of the patches on which it ever did."""
    sure = run.qualities >= SURE
    chosen: metrics.Floats = run.ious[np.arange(len(run)), sure.argmax(1)][sure.any(1)]
    return chosen


def named(path: Path) -> str:
    """A path as others can follow it."""
    whole = path.resolve()
    if whole.is_relative_to(SHARED.resolve()):
        return f"$HISTOCLICK_SHARED/{whole.relative_to(SHARED.resolve()).as_posix()}"
    return str(path)


def all_in_one(runs: Sequence[Run]) -> Table:
    """A row for each measure and model, a column for each patch set."""
    sets = by_dataset(runs)
    found = {(run.name, run.card.dataset): (run, per_patch(run)) for run in runs}
    rows = []
    for measure, digits in SHOWN.items():
        for model in dict.fromkeys(run.name for run in runs):
            cells = [Cell(measure), Cell(model)]
            for dataset in sets:
                run, values = found.get((model, dataset), (None, None))
                column = [] if values is None else values[:, MEASURES.index(measure)]
                known = np.isfinite(column)
                if run is None or not known.any():
                    cells.append(Cell("none"))
                    continue
                interval = metrics.mean_interval(column[known], run.slides[known])
                cells.append(number(measure, interval, digits))
            rows.append(tuple(cells))
    budget = runs[0].card.max_clicks
    sizes = [
        f"{dataset} {len(of[0])} patches of {len(set(of[0].slides))} slides"
        for dataset, of in sets.items()
    ]
    notes = (
        f"The sets: {'; '.join(sizes)}.",
        INTERVALS + " A set of one slide has none.",
        f"NoC counts a failure as {budget} clicks, the budget; NoF/n is their share.",
        f"Harm: share of the clicks after click {LATE} that lower the IoU, mean over patches.",
    )
    return Table("All models on all sets", ("Measure", "Model", *sets), 2, tuple(rows), notes)


def calibration(runs: Sequence[Run]) -> Table | None:
    """How far to trust what models say of their masks; ``None`` if none of them says anything."""
    rows = []
    for model in dict.fromkeys(run.name for run in runs):
        judged = [run for run in runs if run.name == model and np.isfinite(run.qualities).any()]
        if not judged:
            continue
        said, true, slides = (
            np.concatenate(part) for part in zip(*map(_judged, judged), strict=True)
        )
        sure = said >= SURE
        error = metrics.mean_interval(np.abs(said - true), slides)
        cells = [Cell(model), Cell(str(len(said))), number("error", error, 3)]
        cells += [Cell(f"{(said - true).mean():+.3f}"), Cell(f"{100 * sure.mean():.0f} %")]
        if sure.any():
            right = metrics.mean_interval((true >= RIGHT)[sure].astype(float), slides[sure])
            cells.append(number("right", right, 3))
        else:
            cells.append(Cell("none"))
        stopped = np.concatenate([when_sure(run) for run in judged])
        cells.append(Cell(f"{(stopped >= RIGHT).sum()} of {len(stopped)}"))
        rows.append(tuple(cells))
    columns = ("Model", "Clicks", "Mean error", "Bias", f"Says {SURE:g}", f"Then IoU {RIGHT:g}")
    columns += ("Stop when told",)
    notes = (
        "Over all clicks on all sets, also those after a target was reached. Mean error: of the "
        "estimated IoU, absolute; bias: estimate minus truth.",
        f"Says {SURE:g}: share of the clicks after which the estimate is {SURE:g} or more; beside "
        f"it the share of those with an IoU of {RIGHT:g} or more. Stop when told: the same of the "
        "patches, at the first such click.",
    )
    return (
        Table("Do models know how good they are", columns, 1, tuple(rows), notes) if rows else None
    )


def _judged(run: Run) -> tuple[metrics.Floats, metrics.Floats, np.ndarray]:
    """Estimate, IoU and slide of every click that was judged; slides of two sets differ."""
    there = np.isfinite(run.qualities)
    slides = np.repeat([f"{run.card.dataset}/{slide}" for slide in run.slides], there.sum(1))
    return run.qualities[there], run.ious[there], slides


def head(options: argparse.Namespace, models: Sequence[str]) -> Iterator[str]:
    """What was run, and where."""
    facts = machine.describe()
    folders = " ".join(map(named, options.folders))
    chosen = f" --models {' '.join(models)}" if options.models else ""
    yield "# Quality\n"
    yield f"`python benchmarks/quality.py {folders} --out RUNS{chosen}` on {facts['processor']}, "
    yield f"{facts['cores']} cores; {options.threads} thread(s), torch "
    yield f"{facts['versions']['torch']}. Every folder `{options.split}` below these is a set; the "
    yield "simulated user clicks at the deepest point of the larger error.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", help="default: the built-in one and the baselines")
    parser.add_argument("--split", default="val")
    parser.add_argument("--table", type=Path, help="Markdown file; default: RUNS/quality.md")
    parser.add_argument("--write-card")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    models = options.models or [registry.default_id(), *SANE]
    found = [path.parent for root in options.folders for path in sorted(root.rglob("images"))]
    runs, lines = [], []
    for folder in (folder for folder in found if folder.name == options.split):
        for model in models:
            run = options.out / folder.parent.name / Path(model).name
            run_evaluation(model, open_patch_set(folder), run, device="cpu")
            runs.append(run)
            if model == options.write_card:
                lines.append(measured(read_run(run), folder))
    write_report(runs, options.out / "page")
    loaded = read_runs(runs)
    tables = [table for table in (all_in_one(loaded), calibration(loaded)) if table is not None]
    text = "".join(head(options, models)) + "\n" + markdown(tables)
    replace(options.table or options.out / "quality.md", text.encode())
    print(text)
    if options.write_card:
        card, place = registry.find(options.write_card)
        dataclasses.replace(card, measured=tuple(lines)).write(place)


if __name__ == "__main__":
    main()
