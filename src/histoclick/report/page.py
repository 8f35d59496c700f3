"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from matplotlib.figure import Figure

from histoclick import metrics
from histoclick.records import REAL_USERS, TRAINING_CURVE
from histoclick.report import figures, strips
from histoclick.report.figures import DARK, LIGHT, Ink
from histoclick.report.measures import by_dataset, hardest_table
from histoclick.report.records import Card, Run
from histoclick.report.strips import Strip
from histoclick.report.tables import Table

SHORT_HASH = 12


@dataclass(frozen=True)
class Picture:
    """A figure twice, in ink for light and for dark paper, as data URIs."""

    light: str
    dark: str


def render(
    runs: Sequence[Run], tables: Sequence[Table], shown: Sequence[Strip], strips_kept: int
) -> str:
    """The page on ``runs``, with ``tables`` and the strips ``shown`` of those kept."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("histoclick.report"),
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
        real_users=card.click_rule == REAL_USERS,
        start=card.start,
        started=runs[0].started,
        resamples=metrics.RESAMPLES,
        exact_slides=metrics.EXACT_SLIDES,
        untrained=list(dict.fromkeys(run.name for run in runs if run.card.untrained)),
        partial=[run for run in runs if run.partial],
        unnamed=[name for name, group in groups.items() if not _slides_named(group)],
        compared=any(cell.change for row in tables[0].rows for cell in row),
        tables=tables,
        findings=_findings(tables[0], card),
        target=_middle(card),
        hardest=[hardest_table(group) for group in groups.values()],
        curve=_picture(figures.curves, runs),
        histogram=_picture(figures.histograms, runs),
        harm=_picture(figures.harm, runs) if runs[0].started or card.max_clicks > 1 else None,
        far_px=metrics.FAR_PX,
        harm_iou=metrics.HARM,
        strips=[_strip(strip) for strip in shown],
        strips_kept=strips_kept,
        protocol=_protocol(runs),
        labels=[f"{run.label} on {run.card.dataset}" for run in runs],
        trainings=_trainings(runs),
    )


def _trainings(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Curves of the models that were trained by histoclick: (model, data URI), each once."""
    curves = {}
    for run in runs:
        path = run.folder / TRAINING_CURVE
        if path.is_file() and run.label not in curves:
            content = base64.b64encode(path.read_bytes()).decode()
            curves[run.label] = f"data:image/png;base64,{content}"
    return list(curves.items())


def _picture(draw: Callable[[Sequence[Run], Ink], Figure], runs: Sequence[Run]) -> Picture:
    def uri(ink: Ink) -> str:
        content = base64.b64encode(figures.svg(draw(runs, ink))).decode()
        return f"data:image/svg+xml;base64,{content}"

    return Picture(uri(LIGHT), uri(DARK))


def _strip(strip: Strip) -> tuple[str, list[tuple[str, str]]]:
    pictures = [(caption, strips.data_uri(picture)) for caption, picture in strips.pictures(strip)]
    return strips.title(strip), pictures


def _slides_named(group: Sequence[Run]) -> bool:
    return all(run.card.facts["data"].get("slides") != 0 for run in group)


def _middle(card: Card) -> float:
    """The target to put first: neither the easiest nor the hardest."""
    return card.targets[len(card.targets) // 2]


def _findings(table: Table, card: Card) -> dict[str, list[dict[str, Any]]]:
    """By dataset, for each row of the first table: clicks to the middle target and failures there.

    ``left`` and ``right`` are the bounds and ``at`` is the mean, in percent between click 1 and the
    budget.
    """
    noc, nof = (f"{name}@{100 * _middle(card):g}" for name in ("NoC", "NoF"))
    width = max(card.max_clicks - 1, 1) / 100
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.rows:
        clicks, failures = (row[table.columns.index(name)] for name in (noc, nof))
        numbers: dict[str, Any] = dict(clicks.numbers)
        mean = numbers[noc]
        low, high = (
            (numbers[f"{noc} {end}"] if clicks.detail else mean) for end in ("low", "high")
        )
        found.setdefault(row[1].value, []).append(
            {
                "model": row[0],
                "patches": row[2],
                "clicks": clicks,
                "failures": dict(failures.numbers)[nof],
                "left": (low - 1) / width,
                "at": (mean - 1) / width,
                "right": (high - 1) / width,
            }
        )
    return found


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
