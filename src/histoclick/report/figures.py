"""Figures of the paper, in ink for light or dark paper. Matplotlib without any global state.

``curves`` is Fig. 3, ``strips`` is Fig. 4, ``histograms`` shows what the mean in NoC hides.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from math import ceil
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from histoclick import metrics
from histoclick.report.measures import by_dataset
from histoclick.report.records import Run, Strip
from histoclick.types import Mask

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "histoclick",  # the same runs give the same file
}
MARKERS, DASHES = "osD^vPX", ("-", "--", "-.", ":")
COLUMNS = 3  # panels beside each other
MOST_STRIPS = 12
PANEL, GAP, CAPTION = 1.55, 0.05, 0.5  # of strips, in inches
MASK, TRUTH = "#1e9bff", "#ffe119"
POSITIVE, NEGATIVE = "#12b347", "#e3172b"


@dataclass(frozen=True)
class Ink:
    """Colours for one kind of paper; the series are those of Okabe and Ito, safe for the colour
    blind, brightened where the paper is dark.
    """

    text: str
    muted: str
    grid: str
    series: tuple[str, ...]


LIGHT = Ink(
    "#1d1b20", "#6b6672", "#dedbe2",
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d"),
)  # fmt: skip
DARK = Ink(
    "#ece8f0", "#a49eac", "#3c3843",
    ("#4aa8e8", "#ff8a3d", "#2cc79b", "#e29cc3", "#f5bd4a", "#93d2f7", "#b8b8b8"),
)  # fmt: skip


@matplotlib.rc_context(STYLE)
def curves(runs: Sequence[Run], ink: Ink = LIGHT) -> Figure:
    """Mean IoU after each click with its 95 % band: a panel per dataset, a line per model."""
    groups, look = by_dataset(runs), _looks(runs, ink)
    columns = min(COLUMNS, len(groups))
    lines = ceil(len(groups) / columns)
    height = 2.9 * lines + 0.25 * len(look)
    figure = Figure(figsize=(max(6.0, 3.9 * columns), height), layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for panel in panels.flat[len(groups) :]:
        panel.remove()
    budget = runs[0].card.max_clicks
    clicks = np.arange(1, budget + 1)
    handles = {}
    for panel, (dataset, group) in zip(panels.flat, groups.items(), strict=False):
        _frame(panel, ink)
        panel.set_title(dataset, loc="left", color=ink.text, weight="bold", fontsize=10)
        for target in runs[0].card.targets:
            panel.axhline(target, color=ink.muted, lw=0.7, ls=(0, (1, 3)), zorder=1)
        for run in group:
            colour, marker, dash = look[run.label]
            bands = metrics.mean_intervals(metrics.held(run.ious), run.slides)
            panel.fill_between(
                clicks,
                [band.low for band in bands],
                [band.high for band in bands],
                color=colour, alpha=0.16, lw=0, zorder=2,
            )  # fmt: skip
            (handles[run.label],) = panel.plot(
                clicks,
                [band.mean for band in bands],
                color=colour, ls=dash, lw=1.8, marker=marker, ms=4, mew=0, zorder=3,
            )  # fmt: skip
        panel.set_xlim(0.5, budget + 0.5)
        panel.set_xticks(sorted({1, *range(5, budget + 1, 5), budget}))
        panel.set_xlabel("clicks", color=ink.text)
        panel.set_ylim(top=1)
    for panel in panels[:, 0]:
        panel.set_ylabel("mean IoU", color=ink.text)
    figure.legend(
        list(handles.values()), list(handles), loc="outside upper left", frameon=False,
        labelcolor=ink.text, handlelength=3, borderaxespad=0.1,
    )  # fmt: skip
    return figure


@matplotlib.rc_context(STYLE)
def histograms(runs: Sequence[Run], ink: Ink = LIGHT) -> Figure:
    """Share of patches by the click that reached each target, and of those none did.

    A row per run, a column per target.
    """
    groups, look = by_dataset(runs), _looks(runs, ink)
    ordered = [run for group in groups.values() for run in group]
    targets, budget = runs[0].card.targets, runs[0].card.max_clicks
    figure = Figure(
        figsize=(max(6.0, 3.4 * len(targets)), 1.5 * len(ordered) + 0.5), layout="constrained"
    )
    panels = figure.subplots(len(ordered), len(targets), sharex=True, sharey=True, squeeze=False)
    never = budget + 2  # a gap sets failures apart from clicks
    for run, row in zip(ordered, panels, strict=True):
        colour = look[run.label][0]
        for target, panel in zip(targets, row, strict=True):
            failed = metrics.failed(run.ious, target, budget)
            reached = metrics.clicks_to_reach(run.ious, target, budget)[~failed]
            share = np.bincount(reached, minlength=budget + 1)[1:] / len(run)
            _frame(panel, ink)
            panel.bar(np.arange(1, budget + 1), share, width=0.8, color=colour, zorder=2)
            panel.bar(
                never, failed.mean(), width=1.4, facecolor="none", edgecolor=colour, hatch="/////",
                lw=1, zorder=2,
            )  # fmt: skip
            panel.annotate(
                f"{failed.sum()}", (never, failed.mean()), (0, 2), textcoords="offset points",
                ha="center", va="bottom", color=ink.text, fontsize=8,
            )  # fmt: skip
            panel.set_xticks([*sorted({1, *range(5, budget, 5), budget}), never])
            panel.set_xticklabels([*map(str, sorted({1, *range(5, budget, 5), budget})), "never"])
            panel.margins(y=0.2)
            panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        row[0].set_title(
            f"{run.label}  ·  {run.card.dataset}", loc="left", color=ink.text, fontsize=9,
            weight="bold",
        )  # fmt: skip
    for target, panel in zip(targets, panels[-1], strict=True):
        panel.set_xlabel(f"clicks to IoU {target:g}", color=ink.text)
    return figure


@matplotlib.rc_context(STYLE)
def strips(chosen: Sequence[Strip], ink: Ink = LIGHT) -> Figure:
    """Image, truth and masks after some clicks, a row per patch; green clicks add, red ones remove.

    Patches of several models stand below each other; at most ``MOST_STRIPS`` rows are drawn.
    """
    order = sorted(chosen, key=lambda strip: (strip.run.card.dataset, strip.patch))[:MOST_STRIPS]
    shown = sorted({number for strip in order for number in strip.shown})
    columns = 2 + len(shown)
    width, height = columns * PANEL, len(order) * (PANEL + CAPTION)
    figure = Figure(figsize=(width, height))
    panels = figure.subplots(
        len(order), columns, squeeze=False,
        gridspec_kw={
            "left": 0, "right": 1, "wspace": GAP / PANEL, "hspace": CAPTION / PANEL,
            "top": 1 - 0.6 * CAPTION / height, "bottom": 0.4 * CAPTION / height,
        },
    )  # fmt: skip
    for strip, row in zip(order, panels, strict=True):
        for panel in row:
            panel.set_axis_off()
        _picture(row[0], strip, ink, "image")
        _picture(row[1], strip, ink, "truth")
        _outline(row[1], strip.truth, TRUTH)
        for number, mask in zip(strip.shown, strip.masks, strict=True):
            panel = row[2 + shown.index(number)]
            clicks = strip.clicks[strip.clicks["click"] <= number]
            score = float(clicks["iou"].iloc[-1])
            _picture(panel, strip, ink, f"{score:.2f} · click {number}")
            panel.imshow(
                np.dstack([np.broadcast_to(_rgb(MASK), (*mask.shape, 3)), 0.32 * mask]),
                interpolation="nearest",
            )
            _outline(panel, mask, MASK)
            _draw_clicks(panel, strip, number)
        row[0].set_title(
            f"{strip.patch}  ·  {strip.run.card.dataset}  ·  {strip.run.label}",
            loc="left", fontsize=8, color=ink.text, weight="bold", pad=3,
        )  # fmt: skip
    return figure


@matplotlib.rc_context(STYLE)
def encoded(figure: Figure, form: str, dpi: int = 150) -> bytes:
    """The bytes of ``figure`` as ``png``, ``svg`` or ``webp``, the paper left transparent."""
    buffer = io.BytesIO()
    undated = {"svg": {"Date": None}, "png": {"Software": None}}.get(form)
    figure.savefig(buffer, format=form, dpi=dpi, transparent=True, metadata=undated)
    return buffer.getvalue()


def _looks(runs: Sequence[Run], ink: Ink) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and dash of every label, the same in all panels and figures."""
    labels = dict.fromkeys(run.label for run in runs)
    turns = (DASHES[i // len(ink.series) % len(DASHES)] for i in range(len(labels)))
    return dict(
        zip(labels, zip(cycle(ink.series), cycle(MARKERS), turns, strict=False), strict=False)
    )


def _frame(panel: Axes, ink: Ink) -> None:
    panel.patch.set_alpha(0)
    panel.grid(axis="y", color=ink.grid, lw=0.7)
    panel.set_axisbelow(True)
    panel.tick_params(colors=ink.muted, length=3, labelcolor=ink.text)
    for side in ("left", "bottom"):
        panel.spines[side].set_color(ink.muted)


def _picture(panel: Axes, strip: Strip, ink: Ink, caption: str) -> None:
    panel.imshow(strip.image, interpolation="antialiased")
    panel.text(
        0.5, -0.03, caption, transform=panel.transAxes, ha="center", va="top", fontsize=8,
        color=ink.text,
    )  # fmt: skip


def _outline(panel: Axes, mask: Mask, colour: str) -> None:
    """The border of ``mask`` in colour on a dark line, closed where the image cuts it."""
    if not mask.any():
        return
    padded = np.pad(mask, 1).astype(float)
    xs, ys = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
    for line, width in (("#000000aa", 2.0), (colour, 1.1)):
        panel.contour(xs, ys, padded, levels=[0.5], colors=[line], linewidths=[width])
    panel.set_xlim(-0.5, mask.shape[1] - 0.5)
    panel.set_ylim(mask.shape[0] - 0.5, -0.5)


def _draw_clicks(panel: Axes, strip: Strip, number: int) -> None:
    clicks = strip.clicks[strip.clicks["click"] <= number]
    colours = np.where(clicks["positive"], POSITIVE, NEGATIVE)
    panel.scatter(
        clicks["x"],
        clicks["y"],
        s=26,
        c=colours.tolist(),
        edgecolors="white",
        linewidths=0.9,
        zorder=3,
    )


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
