"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jinja2
from matplotlib.figure import Figure

from histoclick import metrics
from histoclick.report import figures
from histoclick.report.figures import DARK, LIGHT, Ink
from histoclick.report.measures import by_dataset, hardest_table
from histoclick.report.records import Run, Strip
from histoclick.report.tables import Table

MIME = {"svg": "image/svg+xml", "webp": "image/webp"}
SHORT_HASH = 12


@dataclass(frozen=True)
class Picture:
    """A figure twice, in ink for light and for dark paper, as data URIs."""

    light: str
    dark: str


def render(runs: Sequence[Run], tables: Sequence[Table], strips: Sequence[Strip]) -> str:
    """The page on ``runs``; ``tables`` are shown as they are, ``strips`` may be empty."""
    loader = jinja2.PackageLoader("histoclick.report")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    groups = by_dataset(runs)
    card = runs[0].card
    return environment.get_template("index.html.j2").render(
        datasets=list(groups),
        models=list(dict.fromkeys(run.label for run in runs)),
        budget=card.max_clicks,
        targets=card.targets,
        click_rule=card.click_rule,
        resamples=metrics.RESAMPLES,
        exact_slides=metrics.EXACT_SLIDES,
        untrained=list(dict.fromkeys(run.name for run in runs if run.card.untrained)),
        partial=[run for run in runs if run.partial],
        unnamed=[name for name, group in groups.items() if not _slides_named(group)],
        tables=tables,
        findings=_findings(tables[0], card.targets),
        hardest=[hardest_table(group) for group in groups.values()],
        curve=_picture(partial(figures.curves, runs), "svg"),
        histogram=_picture(partial(figures.histograms, runs), "svg"),
        strips=_picture(partial(figures.strips, strips), "webp") if strips else None,
        strips_kept=len(strips),
        strips_drawn=min(len(strips), figures.MOST_STRIPS),
        protocol=_protocol(runs),
        labels=[f"{run.label} on {run.card.dataset}" for run in runs],
    )


def _picture(draw: Callable[[Ink], Figure], form: str) -> Picture:
    def uri(ink: Ink) -> str:
        content = base64.b64encode(figures.encoded(draw(ink), form)).decode()
        return f"data:{MIME[form]};base64,{content}"

    return Picture(uri(LIGHT), uri(DARK))


def _slides_named(group: Sequence[Run]) -> bool:
    return all(run.card.facts["data"].get("slides") != 0 for run in group)


def _findings(table: Table, targets: Sequence[float]) -> list[dict[str, Any]]:
    """One line per row of the first table: clicks to the middle target, and failures there."""
    middle = targets[len(targets) // 2]
    noc = table.columns.index(f"NoC@{100 * middle:g}")
    nof = table.columns.index(f"NoF@{100 * middle:g}")
    return [
        {
            "model": row[0],
            "dataset": row[1].value,
            "patches": row[2].value,
            "target": middle,
            "clicks": row[noc],
            "failures": row[nof],
        }
        for row in table.rows
    ]


def _protocol(runs: Sequence[Run]) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Cards side by side: (part, [(key, values)]), a single value where all runs agree."""
    folders = [run.folder.name for run in runs]
    parts = list(dict.fromkeys(part for run in runs for part in run.card.facts))
    sections = [("run", [("folder", folders)])]
    for part in parts:
        cards = [run.card.facts.get(part, {}) for run in runs]
        lines = []
        for key in dict.fromkeys(key for card in cards for key in card):
            values = [_shown(card.get(key, "")) for card in cards]
            lines.append((key.replace("_", " "), values[:1] if len(set(values)) == 1 else values))
        sections.append((part, lines))
    return sections


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(entry)}" for key, entry in value.items())
    text = str(value)
    is_hash = len(text) == 64 and not text.strip("0123456789abcdef")
    return f"{text[:SHORT_HASH]}…" if is_hash else text
