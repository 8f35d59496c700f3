"""Running an evaluation for a command: who clicks, and the progress bars."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from histoclick.cli.console import say
from histoclick.types import HistoclickError

if TYPE_CHECKING:
    from histoclick.crew import Crew
    from histoclick.models.card import Card
    from histoclick.patches import PatchSet
    from histoclick.types import Segmenter


def run_evaluation(
    model: str | None,
    patches: PatchSet,
    out: Path,
    *,
    device: str,
    threads: int = 0,
    workers: int = 1,
    ray: str | None = None,
    shared_slides: bool = False,
    **options: Any,
) -> None:
    """Load a model and evaluate it with a progress bar; ``options`` are those of ``evaluate``."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from histoclick.evaluate import evaluate
    from histoclick.models import registry

    card, folder = registry.find(registry.default_id() if model is None else model)
    check_leaks(folder, patches, shared_slides)
    if card.untrained:
        say(f"{card.id} has untrained weights: its numbers check the machinery, and nothing else.")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        make_crew(folder.resolve(), device, threads, workers, ray) as crew,
        Progress(*columns, TimeRemainingColumn()) as bar,
    ):
        machine = next(crew.map(describe, [device]))
        checking = bar.add_task("checking patches", total=len(patches))
        clicking = bar.add_task(f"clicking with {card.id}", total=len(patches))
        evaluate(
            crew,
            patches,
            out,
            model=card_facts(card),
            machine=machine,
            checked=lambda: bar.advance(checking),
            done=lambda patch, resumed: bar.advance(clicking),
            **options,
        )
    keep_training_curve(folder, out)


def keep_training_curve(model: Path, run: Path) -> None:
    """The curve of a model that histoclick trained, for the report."""
    from histoclick import files, records
    from histoclick.models.card import CURVE

    curve = model / CURVE
    if curve.is_file():
        files.replace(run / records.TRAINING_CURVE, curve.read_bytes())


def check_leaks(folder: Path, patches: PatchSet, allowed: bool) -> None:
    """Refuse a patch set with slides that the model in ``folder`` was trained on here."""
    import json

    path = folder / "training" / "slides.json"
    if allowed or not path.exists():
        return
    trained = set(json.loads(path.read_text(encoding="utf-8")))
    both = sorted({patch.slide for patch in patches} & trained)
    if both:
        raise HistoclickError(
            f"{patches.folder}: the model was trained on {len(both)} of its slides ({both[0]} "
            "...), so its numbers would say nothing; evaluate on others, or give --shared-slides"
        )


def make_crew(
    folder: Path, device: str, threads: int, workers: int, ray: str | None
) -> Crew[Segmenter]:
    """Who clicks with the model in ``folder``; several on one machine get one thread each."""
    from functools import partial

    from histoclick.crew import Alone, Processes, RayCluster

    if ray is None and workers == 1:
        return Alone(load_segmenter(folder, device, threads))
    threads = threads or 1
    load = partial(load_segmenter, folder, device, threads)
    if ray is None:
        return Processes(load, workers)
    if workers != 1:
        raise HistoclickError("--workers and --ray: a Ray cluster knows its workers; give one only")
    return RayCluster(load, ray, threads=threads, gpu=device.startswith("cuda"))


def load_segmenter(folder: Path, device: str, threads: int) -> Segmenter:
    """What every worker does first. ``threads``: 0 leaves their number to the model's library."""
    from histoclick import machine
    from histoclick.datasets.demo import demo_samples
    from histoclick.models import registry
    from histoclick.trajectory import trajectory

    device = machine.resolve(device)
    segmenter = registry.load(folder, device=device, threads=threads)
    if threads and not hasattr(segmenter, "threads"):
        machine.limit_threads(threads)
    if device != "cpu":  # an accelerator's first calls compile and allocate: nobody's seconds
        list(trajectory(segmenter, demo_samples(phantoms=0)[0], max_clicks=2))
    return segmenter


def describe(segmenter: Segmenter, device: str) -> dict[str, Any]:
    """The machine of a worker."""
    from histoclick import machine

    return machine.describe(machine.resolve(device), getattr(segmenter, "threads", 0))


def card_facts(card: Card) -> dict[str, Any]:
    """What a protocol card says of a model."""
    return {
        "id": card.id,
        "family": card.family,
        "architecture": card.architecture,
        "sha256": card.sha256,
        "parameters": card.parameters,
        "untrained": card.untrained,
    }
