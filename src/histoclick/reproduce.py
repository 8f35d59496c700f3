"""Run a whole study: every model on every patch set, one report, and what is missing.

The folder of a study holds ``runs/<patch set>/<model>``, ``models/`` (random weights, where the
study allows them, and what it trains) and ``report/``. Started again, it goes on where it stopped,
and takes in what has been imported or prepared since.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from histoclick.models import registry
from histoclick.patches import PatchSet, open_patch_set
from histoclick.report import ReportFiles, write_report
from histoclick.studies import Study, Trained, Training
from histoclick.types import HistoclickError

Evaluate = Callable[[str, PatchSet, Path], object]  # model, patches, run folder
Train = Callable[[str, Trained, Training, Path], bool]  # base, what, how, model folder; done?


@dataclass(frozen=True, slots=True)
class Missing:
    """A part that could not be done: what, why, and where to get it."""

    what: str
    why: str
    get: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}." + (f" Get {self.get}." if self.get else "")


def reproduce(
    study: Study,
    root: Path,
    out: Path,
    evaluate: Evaluate,
    say: Callable[[str], object] = lambda text: None,
    train: Train | None = None,
) -> tuple[ReportFiles | None, list[Missing]]:
    """Evaluate what is there of ``study`` and report on it.

    ``root``: where its patch sets lie. ``evaluate`` makes one run, or finishes it; ``train`` makes
    one model of a study that trains some. Returns the report, ``None`` if nothing could be
    evaluated, and what was missing or refused.
    """
    missing: list[Missing] = []
    sets = list(_patch_sets(study, root, missing))
    models = list(_models(study, out / "models", missing))
    before = {}
    if study.trained and train is not None:
        for trained, base, folder in _trained(study, root, out / "models", models, train, missing):
            models.append((trained, folder))
            before[trained] = base
    runs = []
    for patches in sets:
        for name, model in models:
            run = out / "runs" / patches.name.replace("/", "-") / name
            say(f"{name} on {patches.name}, {len(patches)} patches")
            try:
                evaluate(model, patches, run)
                runs.append(run)
            except HistoclickError as error:  # the other runs are not to blame
                missing.append(Missing(f"{name} on {patches.name}", str(error), ""))
    if not runs:
        return None, missing
    report = write_report(runs, out / "report", published=study.published, before=before or None)
    return report, missing


def _trained(
    study: Study,
    root: Path,
    folder: Path,
    models: list[tuple[str, str]],
    train: Train,
    missing: list[Missing],
) -> Iterator[tuple[str, str, str]]:
    """Every model that the study trains, or has trained: the name of its runs, that of its base's,
    and its folder."""
    assert study.training is not None
    known = {name.removesuffix("-untrained"): (name, model) for name, model in models}
    for trained in study.trained:
        if trained.base not in known:
            missing.append(Missing(f"Model {trained.id}", f"no {trained.base} to train", ""))
            continue
        name, base = known[trained.base]
        # Trained from random weights is another model than trained from the published ones.
        ending = "-from-random" if name.endswith("-untrained") else ""
        made = folder / f"{trained.id}{ending}"
        try:
            placed = replace_folders(study.training, root)
            done = _is_trained(made, trained, study.training) or train(base, trained, placed, made)
        except HistoclickError as error:
            missing.append(Missing(f"Model {trained.id}", str(error), ""))
            continue
        if done:
            yield made.name, name, str(made.resolve())
        else:
            missing.append(Missing(f"Model {trained.id}", "its training is not finished", ""))


def _is_trained(made: Path, trained: Trained, training: Training) -> bool:
    """Whether the model is there. Raises ``HistoclickError`` if it was trained otherwise."""
    if not (made / "card.toml").exists():
        return False
    facts = registry.find(made)[0].training
    settings = facts.get("settings", {})
    same = facts.get("scenario") == trained.scenario and all(
        settings.get(key) == value for key, value in training.settings.items()
    )
    if not same:
        raise HistoclickError(
            f"{made}: was trained otherwise than the study says now; delete it to train again"
        )
    return True


def replace_folders(training: Training, root: Path) -> Training:
    """The same with whole paths."""
    data, validation = (
        tuple(str(root / folder) for folder in folders)
        for folders in (training.data, training.validation)
    )
    return replace(training, data=data, validation=validation)


def _patch_sets(study: Study, root: Path, missing: list[Missing]) -> Iterator[PatchSet]:
    if not root.is_dir():
        raise HistoclickError(f"{root}: no such folder; give the one with the patch sets inside")
    places = {entry.folder: entry.get for entry in study.data}
    if not places:
        places = dict.fromkeys(_below(root), "")
        if not places:
            raise HistoclickError(
                f"{root}: no patch set inside; one is a folder with images/ and masks/"
            )
    for folder, get in places.items():
        try:
            patches = open_patch_set(root / folder)
        except HistoclickError as error:
            missing.append(Missing(f"Patch set {folder}", str(error), get))
            continue
        # by its place, since several may be called "test"
        patches = patches if folder == "." else replace(patches, title=folder)
        yield patches.first(study.limit) if study.limit else patches


def _below(root: Path) -> list[str]:
    """Folders with ``images/`` inside, relative to ``root``; links are followed once."""
    found, seen = [], set[str]()
    for place, folders, _ in os.walk(root, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        if "images" in folders:
            found.append(Path(place).relative_to(root).as_posix())
    return sorted(found)


def _models(study: Study, folder: Path, missing: list[Missing]) -> Iterator[tuple[str, str]]:
    """Every model that is there or can be made: the name of its runs, and how the registry calls
    it. Random weights have another name, so that real ones can come later."""
    known = registry.folders()
    for model in study.models:
        name = f"{model.id}-untrained"
        made = folder / name
        if model.id in known:
            yield model.id, model.id
        elif not (study.random_weights and model.architecture):
            others = "" if model.get else f" (known: {', '.join(known)})"
            missing.append(Missing(f"Model {model.id}", f"not imported{others}", model.get))
        else:
            try:
                if not made.is_dir():
                    registry.with_random_weights(
                        model.family, model.architecture, made, model.input_size
                    )
            except HistoclickError as error:
                missing.append(Missing(f"Model {model.id}", str(error), ""))
                continue
            yield name, str(made.resolve())
