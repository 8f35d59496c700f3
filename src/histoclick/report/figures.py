"""Figures of numbers, in ink for light or dark paper. Matplotlib without any global state.

``curves`` is Fig. 3 of the paper; ``histograms`` shows what the mean in NoC hides, ``harm`` which
clicks spoil something.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
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
from histoclick.report.measures import by_dataset, with_start
from histoclick.report.records import Run

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "histoclick",  # the same runs give the same file
}
MARKERS, DASHES = "osD^vPX", ("-", "--", "-.", ":")
PANEL_WIDTHS = {1: 6.4, 2: 5.2, 3: 3.5}  # of the curves, in inches, by their number in a row


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
    """Mean IoU after each click with its 95 % band: a panel per dataset, a line per model.

    Masks that users started from stand at click 0.
    """
    first = 0 if runs[0].started else 1
    figure = _lines(runs, ink, "mean IoU", first, lambda run: with_start(run)[:, first:])
    for panel in figure.axes:
        for target in runs[0].card.targets:
            panel.axhline(target, color=ink.muted, lw=0.7, ls=(0, (1, 3)), zorder=1)
        panel.set_ylim(top=1)
    return figure


@matplotlib.rc_context(STYLE)
def harm(runs: Sequence[Run], ink: Ink = LIGHT) -> Figure:
    """Share of patches that each click made worse, as ``curves``; needs a click that can."""
    first = 1 if runs[0].started else 2

    def harmed(run: Run) -> metrics.Floats:
        return metrics.harmful(with_start(run)[:, first - 1 :])

    figure = _lines(runs, ink, "patches made worse", first, harmed)
    for panel in figure.axes:
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def _lines(
    runs: Sequence[Run], ink: Ink, label: str, first: int, values: Callable[[Run], metrics.Floats]
) -> Figure:
    """Means of the columns of ``values`` (N, budget - first + 1), at clicks from ``first`` on."""
    groups, look = by_dataset(runs), _looks(runs, ink)
    columns = min(max(PANEL_WIDTHS), len(groups))
    lines = ceil(len(groups) / columns)
    beside = 2 if columns == 1 else 3  # legend entries in a row
    size = (PANEL_WIDTHS[columns] * columns, 3.0 * lines + 0.2 * ceil(len(look) / beside))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for panel in panels.flat[len(groups) :]:
        panel.remove()
    budget = runs[0].card.max_clicks
    clicks = np.arange(first, budget + 1)
    handles = {}
    for panel, (dataset, group) in zip(panels.flat, groups.items(), strict=False):
        _frame(panel, ink)
        partial = ", ".join(run.label for run in group if run.partial)
        name = f"{dataset} (partial: {partial})" if partial else dataset
        panel.set_title(name, loc="left", color=ink.text, weight="bold", fontsize=10)
        for run in group:
            colour, marker, dash = look[run.label]
            bands = metrics.mean_intervals(values(run), run.slides)
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
        panel.set_xlim(first - 0.5, budget + 0.5)
        panel.set_xticks(sorted({first, *range(5, budget + 1, 5), budget}))
        panel.set_xlabel("clicks", color=ink.text)
    for panel in panels[:, 0]:
        panel.set_ylabel(label, color=ink.text)
    figure.legend(
        list(handles.values()), list(handles), loc="outside upper left", frameon=False,
        labelcolor=ink.text, handlelength=3, borderaxespad=0.1, ncols=beside,
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
    width, height = max(6.4, 3.47 * len(targets)), 1.3 * len(ordered) + 0.5
    figure = Figure(figsize=(width, height))
    panels = figure.subplots(
        len(ordered), len(targets), sharex=True, sharey="row", squeeze=False,
        # Fixed margins in inches: the constrained layout takes seconds for this many panels.
        gridspec_kw={
            "left": 0.45 / width, "right": 1 - 0.05 / width, "wspace": 0.05,
            "top": 1 - 0.25 / height, "bottom": 0.45 / height, "hspace": 0.45,
        },
    )  # fmt: skip
    never = budget + 2.5  # a gap sets failures apart from clicks
    ticks = sorted({1, *range(5, budget, 5), budget})
    for run, row in zip(ordered, panels, strict=True):
        colour = look[run.label][0]
        for target, panel in zip(targets, row, strict=True):
            failed = metrics.failed(run.ious, target, budget)
            reached = metrics.clicks_to_reach(run.ious, target, budget)[~failed]
            share = np.bincount(reached, minlength=budget + 1)[1:] / len(run)
            _frame(panel, ink)
            panel.bar(np.arange(1, budget + 1), share, width=0.8, color=colour, zorder=2)
            if failed.any():
                panel.bar(
                    never, failed.mean(), width=1.4, facecolor="none", edgecolor=colour,
                    hatch="/////", lw=1, zorder=2,
                )  # fmt: skip
            panel.annotate(
                f"{failed.sum()}", (never, failed.mean()), (0, 2), textcoords="offset points",
                ha="center", va="bottom", color=ink.text, fontsize=8,
            )  # fmt: skip
            panel.set_xticks([*ticks, never], [*map(str, ticks), "never"])
            panel.margins(y=0.2)
            panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        name = f"{run.label} · {run.card.dataset}" + " · partial" * run.partial
        row[0].set_title(name, loc="left", color=ink.text, fontsize=9, weight="bold")
    for target, panel in zip(targets, panels[-1], strict=True):
        panel.set_xlabel(f"clicks to IoU {target:g}", color=ink.text)
    return figure


@matplotlib.rc_context(STYLE)
def svg(figure: Figure) -> bytes:
    """``figure`` as SVG on transparent paper."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


@matplotlib.rc_context(STYLE)
def png(figure: Figure, dpi: int) -> bytes:
    """``figure`` as PNG on white paper, ``dpi`` pixels to the inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.06)
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
