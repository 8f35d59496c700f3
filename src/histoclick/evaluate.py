"""Evaluate a model on a patch set: simulated clicks in, click records out.

A run is a folder (see ``docs/formats.md``). While it is under way, finished patches stand in its
journal, forced to disk one by one. When all are there they become the table. Starting an
interrupted run again continues it and ends with the records an uninterrupted run would have made,
whoever does the work and however many patches are clicked on at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from histoclick import records
from histoclick.clicks import SimulatedUser
from histoclick.crew import Alone, Crew
from histoclick.patches import Patch, PatchSet
from histoclick.records import Finished, Row
from histoclick.starts import Start
from histoclick.trajectory import Step, lockstep, trajectory
from histoclick.types import BatchSegmenter, HistoclickError, Mask, Sample, Segmenter

SHOWN_CLICKS = (1, 2, 3, 5, 10, 20)  # of the qualitative strips (Fig. 4)
TIMED = 10  # patches that are clicked on one by one for their seconds, where others go in batches
AT_ONCE = ("workers", "batch")  # of the card: the most there were, if they changed


@dataclass(frozen=True)
class Protocol:
    """The rules of an evaluation. Runs are comparable when these agree."""

    max_clicks: int = 20
    targets: tuple[float, ...] = (0.80, 0.85, 0.90)
    user: SimulatedUser = field(default_factory=SimulatedUser)
    start: Start | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(sorted(set(self.targets))))
        if self.max_clicks < 1:
            raise HistoclickError(f"max_clicks is {self.max_clicks}; it must be at least 1")
        if not self.targets or not all(0 < target <= 1 for target in self.targets):
            raise HistoclickError(
                f"targets are {list(self.targets)}; give IoU values above 0 and up to 1, as in 0.85"
            )

    @property
    def facts(self) -> dict[str, Any]:
        """As the protocol card holds them."""
        return {
            "max_clicks": self.max_clicks,
            "targets": list(self.targets),
            "click_rule": self.user.described,
            **(self.start.facts if self.start else {"start": records.NOTHING}),
        }


@dataclass(frozen=True)
class Task:
    """Patches to be clicked on together, and what to keep of them besides the records."""

    patches: tuple[Patch, ...]
    protocol: Protocol
    shown: frozenset[str]
    predictions: bool


@dataclass(frozen=True)
class Outcome:
    """A finished patch. ``shown``: masks (H, W) bool after some clicks (after 0: the one it started
    from), if pictures are wanted; ``last``: the mask after the last click, if it is."""

    finished: Finished
    shown: dict[int, Mask]
    last: Mask | None


def evaluate(
    segmenter: Segmenter | Crew[Segmenter],
    patches: PatchSet,
    out: Path,
    *,
    model: dict[str, Any],
    machine: dict[str, Any],
    protocol: Protocol | None = None,
    batch: int = 1,
    strips: int = 6,
    predictions: bool = False,
    checked: Callable[[], object] = lambda: None,
    done: Callable[[str, bool], object] = lambda patch, resumed: None,
) -> Path:
    """Simulate a user on every patch and write the run folder ``out``.

    ``model``: its card as plain values, at least ``id`` and ``sha256``. ``machine``: what ran it.
    ``segmenter``: who answers the clicks, or a crew whose workers each have one. ``batch``: patches
    clicked on at once, if the model can (``BatchSegmenter``); seconds are then measured on
    ``TIMED`` patches, evenly spread and one by one, and NaN elsewhere. ``strips``: of
    how many patches, evenly spread over the set, the masks after selected clicks are kept for
    pictures. ``predictions``: keep the last mask of every patch as PNG. ``checked`` is called when
    a patch was found readable, ``done`` when it is finished. Returns ``out``.

    Raises ``HistoclickError`` for a bad patch, or when ``out`` holds a run with another card.
    """
    protocol = protocol or Protocol()
    if batch < 1:
        raise HistoclickError(f"the batch is {batch} patches; give at least 1")
    rules = protocol.facts
    if protocol.start is not None:
        protocol.start.check(patch.id for patch in patches)
    if not out.exists():
        out.mkdir(parents=True)  # before all patches are read: a bad path is told at once
    crew = segmenter if isinstance(segmenter, Crew) else Alone(segmenter)
    inference, batches = next(crew.map(_ways, [None]))
    batch = batch if batches else 1
    data = {
        "name": patches.name,
        "patches": len(patches),
        "slides": len({patch.slide for patch in patches}) if patches.has_slides else 0,
        "sha256": patches.check(checked),
    }
    card = {"schema": 1, "model_id": model["id"], "protocol": rules, "model": model}
    card |= {"data": data, "inference": inference}
    _open_run(out, card | {"machine": machine | {"workers": crew.workers, "batch": batch}})
    shown = frozenset(_spread(patches, strips))
    finished = _finished(out, patches)
    todo = []
    for patch in patches:
        wanted = [out / "strips" / f"{patch.id}.npz"] if patch.id in shown else []
        wanted += [out / "predictions" / f"{patch.id}.png"] if predictions else []
        if patch.id in finished and all(path.exists() for path in wanted):
            done(patch.id, True)
        else:
            todo.append(patch)
    timed = frozenset(_spread(patches, TIMED))
    by_id = {patch.id: patch for patch in todo}
    tasks = [Task(part, protocol, shown, predictions) for part in _parts(todo, batch, timed)]
    for outcomes in crew.map(click_through, tasks):
        for outcome in outcomes:
            patch = by_id[outcome.finished.patch]
            if outcome.shown:
                _write_strip(out, patch.read(), outcome.shown)
            if outcome.last is not None:
                _write_prediction(out, patch.id, outcome.last)
            if patch.id not in finished:
                records.append(out, outcome.finished)
                finished[patch.id] = outcome.finished
            done(patch.id, False)
    about = {"model": model["id"], "dataset": patches.name}
    rows = [
        about | {"patch": patch.id, "slide": patch.slide} | row
        for patch in patches
        for row in finished[patch.id].rows
    ]
    records.write_table(out, rows)
    return out


def click_through(segmenter: Segmenter, task: Task) -> list[Outcome]:
    """Click on the patches of one task to the end. Reads files, writes none."""
    samples = [patch.read() for patch in task.patches]
    start = task.protocol.start
    starts = [start.mask(sample) if start else None for sample in samples]
    steps: list[list[Row]] = [[] for _ in samples]
    shown: list[dict[int, Mask]] = [{} if mask is None else {0: mask} for mask in starts]
    last: list[Mask] = [sample.mask for sample in samples]
    for i, step in _steps(segmenter, samples, task.protocol, starts):
        steps[i].append(_row(len(steps[i]) + 1, step))
        last[i] = step.prediction.mask
        if samples[i].id in task.shown and len(steps[i]) in SHOWN_CLICKS:
            shown[i][len(steps[i])] = last[i]
    return [
        Outcome(
            Finished(sample.id, sample.slide, rows),
            kept | {len(rows): end} if sample.id in task.shown else {},
            end if task.predictions else None,
        )
        for sample, rows, kept, end in zip(samples, steps, shown, last, strict=True)
    ]


def _steps(
    segmenter: Segmenter, samples: list[Sample], protocol: Protocol, starts: list[Mask | None]
) -> Iterator[tuple[int, Step]]:
    """All steps on all samples: together if there are several and the model can."""
    rules = protocol.max_clicks, protocol.user
    if len(samples) > 1 and isinstance(segmenter, BatchSegmenter):
        yield from lockstep(segmenter, samples, *rules, starts)
        return
    for i, (sample, start) in enumerate(zip(samples, starts, strict=True)):
        for step in trajectory(segmenter, sample, *rules, start):
            yield i, step


def _ways(segmenter: Segmenter, _: None) -> tuple[dict[str, Any], bool]:
    """How a segmenter predicts, if it says so, for the protocol card; whether for many at once."""
    settings = {"tta": "none", "zoom": "none"} | dict(getattr(segmenter, "settings", {}))
    return settings, isinstance(segmenter, BatchSegmenter)


def _row(number: int, step: Step) -> Row:
    """One line of the table; model, dataset, patch and slide are added at the end."""
    quality = step.prediction.quality
    return {
        "click": number,
        "x": float(step.click.x),
        "y": float(step.click.y),
        "positive": step.click.positive,
        "iou": step.iou,
        "quality": None if quality is None else float(quality),
        "start_iou": step.start_iou,
        "flipped": step.flipped,
        "far_flipped": step.far_flipped,
        "seconds": step.seconds,
        "encode_seconds": step.encode_seconds,
    }


def _parts(todo: list[Patch], batch: int, timed: frozenset[str]) -> Iterator[tuple[Patch, ...]]:
    """Patches to be clicked on together: one by one those that are timed, then batches."""
    alone = [patch for patch in todo if batch == 1 or patch.id in timed]
    together = [patch for patch in todo if batch > 1 and patch.id not in timed]
    yield from ((patch,) for patch in alone)
    for first in range(0, len(together), batch):
        yield tuple(together[first : first + batch])


def _open_run(out: Path, card: dict[str, Any]) -> None:
    """Write the protocol card, or make sure the one that is there says the same."""
    if not (out / records.CARD).exists():
        if any(file.name != f"{records.CARD}.partial" for file in out.iterdir()):
            raise HistoclickError(f"{out}: is not empty and holds no run; choose another --out")
        records.write_card(out, card)
        return
    old, complete = records.read_card(out), (out / records.TABLE).exists()
    same: dict[str, tuple[str, ...]] = {
        # Targets only name columns.
        "protocol": ("click_rule", "max_clicks", "start", "start_sha256"),
        "model": ("id", "sha256"),
        "data": ("name", "patches", "sha256"),
        "inference": tuple(card["inference"]),
        # A finished run may be opened anywhere; one run must not mix two machines' seconds.
        "machine": () if complete else ("device", "threads"),
    }
    for part, keys in same.items():
        if not isinstance(old.get(part), dict):
            raise HistoclickError(
                f"{out / records.CARD}: no protocol card (no [{part}]); choose another --out"
            )
        for key in keys:
            known, asked = old[part].get(key), card[part].get(key)
            if known != asked:
                raise HistoclickError(
                    f"{out}: holds a run with another {part} ({key}: {known!r}, now "
                    f"{asked!r}); choose another --out or delete the folder"
                )
    new = old | {"protocol": card["protocol"]}
    if not complete:  # who runs out of memory goes on with fewer at once
        most = {key: max(old["machine"].get(key, 1), card["machine"][key]) for key in AT_ONCE}
        new |= {"machine": old["machine"] | most}
    if new != old:
        records.write_card(out, new)


def _finished(out: Path, patches: PatchSet) -> dict[str, Finished]:
    """Patches already done, from the table of a complete run or from the journal."""
    if not (out / records.TABLE).exists():
        records.mend_journal(out)
        return {entry.patch: entry for entry in records.read_journal(out)}
    table = records.read_table(out)
    try:
        done = {
            str(id_): Finished(str(id_), None, rows[list(records.CLICK)].to_dict("records"))  # type: ignore[arg-type]
            for id_, rows in table.groupby("patch", sort=False)
        }
        return {patch.id: replace(done[patch.id], slide=patch.slide) for patch in patches}
    except KeyError as error:
        raise HistoclickError(
            f"{out / records.TABLE}: {error} is missing; delete the run folder and evaluate again"
        ) from None


def _spread(patches: PatchSet, count: int) -> Iterator[str]:
    """``count`` ids at even distances: chosen whatever comes out of them."""
    last = len(patches) - 1
    for i in np.linspace(0, last, min(count, len(patches))):
        yield patches.patches[round(i)].id


def _write_strip(out: Path, sample: Sample, masks: dict[int, Mask]) -> None:
    """What a qualitative strip needs; the clicks are in the records."""
    (out / "strips").mkdir(exist_ok=True)
    partial = out / "strips" / f"{sample.id}.partial"
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            image=sample.image,
            truth=sample.mask,
            masks=np.stack(list(masks.values())),
            shown=np.array(list(masks)),
        )
    partial.replace(out / "strips" / f"{sample.id}.npz")


def _write_prediction(out: Path, patch: str, mask: Mask) -> None:
    """The last mask as an 8-bit PNG, 255 where the object is."""
    (out / "predictions").mkdir(exist_ok=True)
    partial = out / "predictions" / f"{patch}.partial"
    Image.fromarray(mask.astype(np.uint8) * 255).save(partial, format="PNG")
    partial.replace(out / "predictions" / f"{patch}.png")
