"""Train a model: from a base and patch sets to a model folder that says what it was trained on."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from accelerate import PartialState

from histoclick import files, metrics
from histoclick.models import registry
from histoclick.models.card import Card
from histoclick.patches import PatchSet, open_patch_set
from histoclick.train.checkpoint import FILE, Progress, read_checkpoint
from histoclick.train.embeddings import Embeddings, embed
from histoclick.train.families import start
from histoclick.train.loop import Run, fit, is_over
from histoclick.train.pictures import curve_picture, sanity_picture
from histoclick.train.samples import Samples
from histoclick.train.settings import Machine, Settings
from histoclick.train.trainee import Trainee
from histoclick.trajectory import trajectory
from histoclick.types import HistoclickError

TARGET, MAX_CLICKS = 0.85, 20  # of validation: the first columns of the paper's tables
WORK = "training"  # the folder inside of the model's, for everything but card and weights
SLIDES = "slides.json"
LOOKED = "looked.json"  # what the validation that is on its way has found so far
PATIENCE = timedelta(days=1)  # of processes that wait for the one that encodes or validates


@dataclass(frozen=True)
class Order:
    """What to train. ``base``: id or folder of a model. ``data``, ``validation``: patch sets.

    ``validation_limit``: patches of the validation that are looked at after each epoch, evenly
    spread, 0 for all. ``store``: whether a frozen encoder's answers are kept on disk. ``shared``:
    allow slides that are in both data and validation. ``summary``: for the card.
    """

    base: str
    scenario: str
    data: tuple[Path, ...]
    out: Path
    validation: tuple[Path, ...] = ()
    validation_limit: int = 50
    store: bool = True
    shared: bool = False


def processes(device: str) -> PartialState:
    """What this process is among those that ``torchrun`` started, or alone."""
    return PartialState(cpu=device == "cpu", timeout=PATIENCE)


def train(
    order: Order,
    settings: Settings,
    machine: Machine,
    *,
    resume: bool = False,
    session_s: float = math.inf,
    told: Callable[[str], object] = lambda text: None,
    seen: Callable[[Progress, int, float], object] = lambda progress, steps, loss: None,
) -> bool:
    """Train into the model folder ``order.out``; returns whether it is finished.

    ``told`` hears of every stage, ``seen`` of every step (progress, number of steps, loss). Raises
    ``HistoclickError`` for bad data, a folder that holds something else, and what stops ``fit``.
    """
    state = processes(machine.device)
    lead: bool = state.is_main_process
    card, folder = registry.find(order.base)
    work = order.out / WORK
    _check_out(order, resume)
    samples = Samples.read(order.data)
    validation = [open_patch_set(path) for path in order.validation]
    learnt = samples.slides | slides_of(folder)
    _check_leaks(learnt, validation, order)
    facts = {
        "base": card.id,
        "base_sha256": card.sha256,
        "scenario": order.scenario,
        "data_sha256": samples.sha256,
        "validation": [f"{each.name} {each.check()}" for each in validation],
        "validation_limit": order.validation_limit,
        "settings": settings.facts,
    }
    begun = read_checkpoint(work) if resume else None
    if begun is not None and begun.facts != facts:
        different = ", ".join(key for key in facts if begun.facts.get(key) != facts[key])
        raise HistoclickError(
            f"{order.out}: the training there has other {different}; repeat its command, or choose "
            "another folder"
        )
    torch.manual_seed(settings.seed)  # of the parts that are new
    trainee = start(card, folder, order.scenario, settings.crop_px)
    if machine.checkpointing:
        trainee.save_memory()
    trainee.net.to(state.device)
    if lead:
        work.mkdir(parents=True, exist_ok=True)
        (work / "settings.toml").write_text(tomli_w.dumps(facts), encoding="utf-8")
    encode = _stored(order, trainee, samples, settings, state, told)
    if lead:
        sanity_picture(samples, settings, work / "batch.png", plain=encode is not None)
    measured: dict[str, Any] = {}

    def validate() -> tuple[float, float]:
        found, iou = _measure(trainee, card, validation, order.validation_limit, work / LOOKED)
        measured.update(found)
        return float(found["noc85"]), iou

    run = Run(
        trainee, order.scenario, samples, settings, machine, work, facts,
        validate if validation else None, encode,
    )  # fmt: skip
    progress = fit(run, begun, lambda at, loss: seen(at, run.steps, loss), session_s)
    if not is_over(progress, run):
        return False
    if lead:
        told("Writing the model ...")
        if validation:
            validate()
        made = _card(card, order, samples, validation, settings, progress, measured)
        made.training["augmentation"] = (
            "turns and mirrors"
            if encode or not settings.augment
            else ("turns, mirrors, scale, stain, blur and JPEG")
        )
        _finish(trainee, made, order.out, learnt)
    state.wait_for_everyone()
    return True


def _check_out(order: Order, resume: bool) -> None:
    out, work = order.out, order.out / WORK
    if (out / "card.toml").exists():
        raise HistoclickError(f"{out}: holds a finished model; choose another folder")
    if (work / FILE).exists() and not resume:
        raise HistoclickError(
            f"{out}: holds a training that was not finished; go on with --resume, or choose "
            "another folder"
        )
    if out.exists() and not work.exists() and any(out.iterdir()):
        raise HistoclickError(f"{out}: holds something else; choose another folder")


def slides_of(folder: Path) -> frozenset[str]:
    """The slides that the model in ``folder`` was trained on here, and its bases before it."""
    path = folder / WORK / SLIDES
    return frozenset(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else frozenset()


def _check_leaks(learnt: frozenset[str], validation: Sequence[PatchSet], order: Order) -> None:
    slides = {patch.slide for patches in validation for patch in patches}
    both = sorted(learnt & slides)
    if both and not order.shared:
        raise HistoclickError(
            f"{len(both)} slides are in both --data (or what the base was trained on) and --val "
            f"({both[0]} ...): what is measured on them says nothing; split by slide, or give "
            "--shared-slides"
        )


def _stored(
    order: Order,
    trainee: Trainee,
    samples: Samples,
    settings: Settings,
    state: PartialState,
    told: Callable[[str], object],
) -> Embeddings | None:
    """A frozen encoder's answers, if they are wanted."""
    if not (order.store and trainee.scenarios[order.scenario].frozen_encoder):
        return None
    folder = order.out / WORK / "embeddings"
    total = len(samples)
    with state.main_process_first():  # one makes them, the others find them
        return embed(
            trainee,
            samples,
            folder,
            side_px=settings.crop_px,
            weights=registry.find(order.base)[0].sha256,
            seen=lambda done: told(f"encoded {done} of {total} patches"),
        )


def _measure(
    trainee: Trainee, base: Card, validation: Sequence[PatchSet], limit: int, looked: Path
) -> tuple[dict[str, Any], float]:
    """NoC of the weights as they are now, by the deterministic user of the evaluation, and the mean
    IoU over all clicks. After an interruption it goes on with what ``looked`` holds."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        folder.mkdir()
        made = trainee.save(folder, base)
        made.write(folder)
        device = str(next(trainee.net.parameters()).device)
        segmenter = registry.load(folder, device=device)
    patches = [patch for each in validation for patch in each]
    if limit and len(patches) > limit:
        patches = [patches[i * len(patches) // limit] for i in range(limit)]
    rows = _looked(looked, made.sha256)
    for patch in patches[len(rows) :]:
        steps = [step.iou for step in trajectory(segmenter, patch.read(), MAX_CLICKS)]
        rows.append(steps + [1.0] * (MAX_CLICKS - len(steps)))  # the mask was exactly right
        files.replace(looked, json.dumps({"weights": made.sha256, "ious": rows}).encode())
    ious = np.array(rows)
    return {
        "dataset": ", ".join(each.name for each in validation),
        "patches": len(patches),
        **{
            f"noc{round(100 * target)}": round(metrics.noc(ious, target, MAX_CLICKS), 3)
            for target in (0.80, 0.85, 0.90)
        },
        "nof85": metrics.nof(ious, TARGET, MAX_CLICKS),
    }, float(ious.mean())


def _looked(path: Path, weights: str) -> list[list[float]]:
    """The IoUs of patches that ``weights`` were validated on already."""
    if not path.exists():
        return []
    held = json.loads(path.read_text(encoding="utf-8"))
    return list(held["ious"]) if held["weights"] == weights else []


def _card(
    base: Card,
    order: Order,
    samples: Samples,
    validation: Sequence[PatchSet],
    settings: Settings,
    progress: Progress,
    measured: dict[str, Any],
) -> Card:
    """Everything but what ``Trainee.save`` fills in."""
    title = f"{base.id}, trained further ({order.scenario}) on {', '.join(samples.names)}."
    slides = f"{len(samples.slides)} slides" if samples.has_slides else "slides not known"
    data = f"{', '.join(samples.names)}: {len(samples)} patches, {slides}"
    training = {
        "base": base.id,
        "base_sha256": base.sha256,
        "scenario": order.scenario,
        "data": list(samples.names),
        "data_sha256": samples.sha256,
        "patches": len(samples),
        "slides": len(samples.slides) if samples.has_slides else "not known",
        "validation": [each.name for each in validation],
        "steps": progress.step,
        "minutes": round(progress.seconds / 60, 1),
        "chosen_step": progress.best_step if validation else progress.step,
        "settings": settings.facts,
    }
    table = measured | {"command": "chosen on it while training"} if measured else {}
    return replace(
        base,
        id=order.out.resolve().name,
        summary=title,
        origin=f"trained with histoclick from {base.id} (SHA-256 {base.sha256 or 'none'})",
        default=False,
        untrained=False,
        trained_on=(*base.trained_on, data),
        notes=(),
        measured=(table,) if table else (),
        training=training,
    )


def _finish(trainee: Trainee, card: Card, out: Path, learnt: frozenset[str]) -> None:
    """The model folder, its card last: with it, it is a model."""
    work = out / WORK
    curve_picture(work)
    slides = json.dumps(sorted(learnt), indent=0, ensure_ascii=False)
    (work / SLIDES).write_text(slides, encoding="utf-8")
    trainee.save(out, card).write(out)
    shutil.rmtree(work / "embeddings", ignore_errors=True)
    (work / LOOKED).unlink(missing_ok=True)
    (work / FILE).unlink(missing_ok=True)
