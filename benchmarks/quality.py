"""How good is it: every model on every patch set below some folders, in one report.

    python benchmarks/quality.py FOLDER... --out RUNS [--models A B ...] [--write-card MODEL]

Each patch set (a folder with ``images/`` and ``masks/``, named ``--split``) and model becomes a run
``RUNS/<set>/<model>`` as ``histoclick evaluate`` makes it; finished runs are not done again. The
report goes to ``RUNS/page``. ``--write-card`` puts the measured numbers into the model's card.
"""

from __future__ import annotations

import argparse
import dataclasses
import tomllib
from pathlib import Path

import pandas as pd
import torch

from histoclick import metrics
from histoclick.cli import run_evaluation
from histoclick.models import registry
from histoclick.patches import open_patch_set
from histoclick.report import write_report

TARGETS = (0.80, 0.85, 0.90)


def measured(run: Path, folder: Path) -> dict[str, object]:
    """One line of a card: what a run on the patch set ``folder`` found."""
    records = pd.read_parquet(run / "clicks.parquet")
    with (run / "run.toml").open("rb") as file:
        budget = int(tomllib.load(file)["protocol"]["max_clicks"])
    table = records.pivot(index="patch", columns="click", values="iou")
    ious = metrics.held(table.reindex(columns=range(1, budget + 1)).to_numpy())
    line: dict[str, object] = {"dataset": records["dataset"].iloc[0], "patches": len(ious)}
    for target in TARGETS:
        line[f"noc{100 * target:.0f}"] = round(float(metrics.noc(ious, target, budget)), 2)
        line[f"nof{100 * target:.0f}"] = int(metrics.nof(ious, target, budget))
    model = records["model"].iloc[0]
    line["command"] = f"histoclick evaluate --model {model} --data {folder} --out run"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--models", nargs="+", default=["histoclick-tiny", "discs", "nearest-colour"]
    )
    parser.add_argument("--split", default="val")
    parser.add_argument("--write-card")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = [path.parent for root in options.folders for path in sorted(root.rglob("images"))]
    runs, lines = [], []
    for folder in (folder for folder in found if folder.name == options.split):
        for model in options.models:
            run = options.out / folder.parent.name / Path(model).name
            run_evaluation(model, open_patch_set(folder), run, device="cpu")
            runs.append(run)
            if model == options.write_card:
                lines.append(measured(run, folder))
    print(write_report(runs, options.out / "page").markdown.read_text(encoding="utf-8"))
    if options.write_card:
        card, place = registry.find(options.write_card)
        dataclasses.replace(card, measured=tuple(lines)).write(place)


if __name__ == "__main__":
    main()
