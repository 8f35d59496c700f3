"""What the network sees, and how its training went, as pictures."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from histoclick.train.log import STEPS, VALIDATIONS
from histoclick.train.points import first_points
from histoclick.train.samples import Samples
from histoclick.train.settings import Settings

SHOWN = 8  # images of the first batch
GREEN, RED = "#1a9850", "#d73027"


def sanity_picture(
    samples: Samples, settings: Settings, path: Path, *, plain: bool = False
) -> None:
    """The first batch as it is trained on: images, outlines of the targets, first clicks (green
    positive, red negative)."""
    batch = samples.batch(settings, 0, plain=plain)
    count = min(SHOWN, len(batch.items))
    points = first_points(batch.targets[:count], batch.rngs[:count], settings.first_points)
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(3 * columns, 3.3 * rows), layout="constrained")
    for i in range(count):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(batch.images[i].permute(1, 2, 0).numpy())
        axes.contour(batch.targets[i], [0.5], colors="yellow", linewidths=0.8)
        for half, colour in zip(points[i].chunk(2), (GREEN, RED), strict=True):
            there = half[half[:, 0] >= 0]
            axes.scatter(
                there[:, 1], there[:, 0], s=14, c=colour, edgecolors="white", linewidths=0.5
            )
        axes.set_title(samples.samples[batch.items[i]].id, fontsize=7)
        axes.set_axis_off()
    with mpl.rc_context({"savefig.dpi": 90}):
        figure.savefig(path)


def curve_picture(folder: Path) -> None:
    """Loss of every step, its running mean, and the NoC of every validation: ``curve.png``."""
    steps = pd.read_csv(folder / STEPS)
    looks = pd.read_csv(folder / VALIDATIONS)
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps["step"], steps["loss"], color="0.8", linewidth=0.6)
    window = max(1, len(steps) // 40)
    running = steps["loss"].rolling(window, min_periods=1).mean()
    axes.plot(steps["step"], running, color="#2166ac", label="loss, running mean")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    high = float(np.nanquantile(steps["loss"], 0.98)) if len(steps) else 1.0
    axes.set_ylim(0, 1.2 * max(high, 1e-6))
    if len(looks):
        right = axes.twinx()
        right.plot(looks["step"], looks["noc85"], "o-", color="#b2182b", label="validation NoC@85")
        right.set_ylabel("NoC@85")
        right.set_ylim(0, 20.5)
        right.legend(loc="upper right", frameon=False)
    axes.legend(loc="upper left", frameon=False)
    with mpl.rc_context({"savefig.dpi": 110}):
        figure.savefig(folder / "curve.png")
