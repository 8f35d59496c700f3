"""What real users did in the annotator, as runs that ``report`` reads beside simulated ones.

A "patch" is an object that somebody finished by clicks. Its truth is what it became in the end, or
an annotation of somebody else. Slides need not be there: the store remembers what matters.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from shapely import MultiPolygon, Polygon

from histoclick import records
from histoclick.replay import truths
from histoclick.replay.history import History, histories
from histoclick.replay.measuring import Area, closest, measure
from histoclick.replay.people import Object, objects_table, users_table
from histoclick.report.tables import comma_separated, markdown
from histoclick.session import BoxAround, Import, from_row
from histoclick.store import Store
from histoclick.types import HistoclickError

__all__ = ["MAX_CLICKS", "TARGETS", "Replayed", "replay"]

MAX_CLICKS = 20  # that count, as for a simulated user
TARGETS = (0.80, 0.85, 0.90)


@dataclass(frozen=True)
class Replayed:
    """``runs``: folders that ``report`` reads, one for each model. ``users``: the table of users as
    Markdown. ``notes``: what was left out, a sentence each."""

    runs: tuple[Path, ...]
    users: str
    notes: tuple[str, ...]


def replay(
    store: Store,
    out: Path,
    *,
    slide: str | None = None,
    user: str | None = None,
    truth: Path | None = None,
) -> Replayed:
    """Turn the clicks in a store into a run folder ``out``, or several in it, one for each model.

    ``slide``, ``user``: only this one; the user is the only one who worked on the object.
    ``truth``: folder with an annotation file for each slide, named as the slide; for each object
    the annotation with the largest IoU counts. Without it, objects as they became in the end.

    Raises ``HistoclickError`` if nobody clicked on anything, or ``out`` is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise HistoclickError(f"{out}: is there already; choose another --out")
    left_out: Counter[str] = Counter()
    objects: list[Object] = []
    gone: list[History] = []
    for known, name in _chosen(store, slide):
        of_truth = None if truth is None else truths.areas(truth, known)
        for history in _histories(store, known):
            if user is not None and history.users != (user,):
                left_out["of other users, or of several, left out"] += 1
            elif history.item is None:
                gone.append(history)
                left_out["deleted or taken back, left out"] += 1
            elif history.item.grid is None:
                left_out["from files that nobody worked on, left out"] += 1
            else:
                objects.append(_object(history, name, truth is not None, of_truth, left_out))
    measured = [each for each in objects if each.measured is not None]
    if not measured:
        told = _told(left_out)
        raise HistoclickError(
            f"{store.where}: no object to compare that somebody clicked on"
            + (f" ({'; '.join(told)})" if told else "")
        )
    words = "the final shape" if truth is None else f"the annotations in {truth.name}"
    users = users_table(objects, gone, TARGETS, MAX_CLICKS, words)
    dataset = _dataset(store.where)
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".histoclick-") as folder:
        made = Path(folder) / "run"
        made.mkdir()
        runs = _write_runs(made, measured, dataset, words)
        (made / "users.csv").write_text(comma_separated(users), encoding="utf-8")
        (made / "users.md").write_text(markdown([users]), encoding="utf-8")
        (made / "objects.csv").write_text(comma_separated(objects_table(objects)), encoding="utf-8")
        if out.exists():
            out.rmdir()  # empty: some systems rename over none
        made.rename(out)
    return Replayed(tuple(out / run for run in runs), markdown([users]), tuple(_told(left_out)))


def _chosen(store: Store, wanted: str | None) -> Iterator[tuple[dict[str, Any], str]]:
    """The slides that were asked for, each with a name of its own."""
    slides = [slide for slide in store.slides() if slide["events"]]
    stems = [Path(slide["name"]).stem for slide in slides]
    twice = {stem for stem, count in Counter(stems).items() if count > 1}
    found = False
    for slide, stem in zip(slides, stems, strict=True):
        if wanted is None or wanted in (slide["name"], stem, slide["key"], slide["path"]):
            found = True
            short = hashlib.sha256(slide["key"].encode()).hexdigest()[:8]
            yield slide, f"{stem}-{short}" if stem in twice else stem
    if not found and wanted is not None:
        known = ", ".join(slide["name"] for slide in slides[:10]) or "none"
        raise HistoclickError(
            f"{store.where}: nobody clicked on a slide '{wanted}'; the first there are: {known}"
        )


def _histories(store: Store, slide: Mapping[str, Any]) -> list[History]:
    try:
        return histories(slide, (from_row(row) for row in store.events(slide["key"])))
    except HistoclickError as error:
        raise HistoclickError(f"{store.where}: slide {slide['name']}: {error}") from None


def _object(
    history: History, slide: str, compared: bool, truth: Any, left_out: Counter[str]
) -> Object:
    """An object that is there, measured if it can be. ``truth``: all areas of the slide."""
    patch, item = f"{slide}_{history.id}", history.item
    assert item is not None
    wanted: Area | None = None
    without = Object(patch, slide, history, None)
    if not history.clicks:
        left_out["without clicks, counted for their users only"] += 1
        return without
    if not isinstance(item.shape, Polygon | MultiPolygon):
        left_out["without any area in the end, counted for their users only"] += 1
        return without
    if compared:
        wanted = None if truth is None else closest(item.shape, truth)
        if wanted is None:
            left_out["without a truth that meets them, counted for their users only"] += 1
            return without
    if len(history.clicks) > MAX_CLICKS:
        left_out[f"with more than {MAX_CLICKS} clicks, of which the first {MAX_CLICKS} count"] += 1
    return Object(patch, slide, history, measure(history, wanted))


def _write_runs(out: Path, objects: Sequence[Object], dataset: str, truth: str) -> list[str]:
    """The runs: ``out`` itself, or a folder for each model in it; returns their names there."""
    models: dict[str, list[Object]] = {}
    for each in objects:
        models.setdefault(" + ".join(each.history.models), []).append(each)
    start = _start(objects)
    names: list[str] = []
    for model, own in models.items():
        alone = len(models) == 1
        names.append("." if alone else re.sub(r"[^A-Za-z0-9._@-]+", "-", model))
        folder = out / names[-1]
        folder.mkdir(exist_ok=alone)
        id_, _, sha256 = model.rpartition("@") if model.count("@") == 1 else (model, "", "")
        # Models answered other objects each: they are no rows of one data set.
        data = dataset if alone else f"{dataset}, objects of {model}"
        card = {
            "schema": 1,
            "model_id": id_,
            "protocol": {
                "max_clicks": MAX_CLICKS, "targets": list(TARGETS), "start": start,
                "click_rule": records.REAL_USERS, "truth": truth,
                "users": len({name for each in own for name in each.history.users}),
            },
            "model": {"id": id_, "sha256": sha256},
            "data": {
                "name": data, "patches": len(own), "slides": len({each.slide for each in own}),
                "sha256": _hash(own, truth),
            },
            "inference": {"window": "follows the clicks"},
            "machine": {"replayed_by": f"histoclick {importlib.metadata.version('histoclick')}"},
        }  # fmt: skip
        records.write_card(folder, card)
        records.write_table(
            folder,
            [
                {"model": id_, "dataset": data, "patch": each.patch, "slide": each.slide} | row
                for each in own
                if each.measured is not None
                for row in each.measured.rows[:MAX_CLICKS]
            ],
        )
    return names


def _start(objects: Sequence[Object]) -> str:
    """What users had before their first click, in words for the card."""
    kinds: dict[str, type[Import] | type[BoxAround]] = {
        "an outline from a file": Import,
        "a box": BoxAround,
    }
    some = [
        words
        for words, kind in kinds.items()
        if any(isinstance(each.history.frames[0].event.action, kind) for each in objects)
    ]
    return " or ".join([records.NOTHING, *some])


def _hash(objects: Sequence[Object], truth: str) -> str:
    """Of what was clicked on, as a patch set has one."""
    keys = [(each.history.slide["key"], each.history.id) for each in objects]
    return hashlib.sha256(json.dumps([truth, keys]).encode()).hexdigest()


def _dataset(where: str) -> str:
    """The file's or the database's name."""
    path = sa.make_url(where).database if "://" in where else where
    return Path(path or where).stem


def _told(left_out: Counter[str]) -> list[str]:
    return [f"{count} object{'s' * (count != 1)} {why}" for why, count in left_out.items()]
