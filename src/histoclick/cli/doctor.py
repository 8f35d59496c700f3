"""``histoclick doctor``: what is installed, or what a file or folder holds and what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from histoclick.cli.console import Json, say, say_json
from histoclick.types import HistoclickError

Findings = tuple[dict[str, Any], list[str]]  # facts, and problems, a sentence each

SHOWN_NAMES = 12
# What is a slide by its name, also when nothing can open it.
SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".czi", ".jpg", ".jpeg", ".bmp")


def doctor(
    path: Annotated[
        Path | None,
        typer.Argument(help="A slide, annotation file, or folder; default: this installation."),
    ] = None,
    json: Json = False,
) -> None:
    """What is installed, or what a slide, annotation file or folder holds, and what is wrong."""
    facts, problems = this_machine() if path is None else examine(path)
    if json:
        say_json(facts | {"problems": problems})
    else:
        width = max(map(len, facts)) + 1
        for key, value in facts.items():
            say(f"{key + ':':<{width}} {worded(value)}")
        for problem in problems:
            say(f"Problem: {problem}")
    if problems:
        raise typer.Exit(1)


def this_machine() -> Findings:
    """Versions, devices, models, and two clicks."""
    from histoclick import machine
    from histoclick.models import registry

    known = registry.cards()
    facts = machine.describe() | {
        "devices": machine.devices(),
        "models": [id_ for id_, card in known.items() if not isinstance(card, HistoclickError)],
        "model_folder": str(registry.home()),
        "self_test": self_test(),
    }
    return facts, [str(card) for card in known.values() if isinstance(card, HistoclickError)]


def self_test() -> str:
    """Two clicks of the built-in model on a real picture."""
    from histoclick.datasets.demo import demo_samples
    from histoclick.models.registry import load
    from histoclick.trajectory import trajectory

    sample = demo_samples(phantoms=0)[0]
    *_, step = trajectory(load(), sample, max_clicks=2)
    return f"two clicks on a real gland gave IoU {step.iou:.2f} in {step.seconds:.2f} s per click"


def examine(path: Path) -> Findings:
    """A file or a folder. Raises ``HistoclickError`` for one that holds nothing known."""
    from histoclick.models import registry
    from histoclick.rasters import is_raster

    if path.is_dir():
        return examine_folder(path)
    if not path.exists() and str(path) in registry.folders():
        return examine_model(registry.folders()[str(path)])
    try:
        with path.open("rb") as file:
            start = file.read(256)
    except OSError as error:
        raise HistoclickError(f"{path}: {error.strerror}; check the path") from None
    if is_raster(start):
        return examine_picture(path)
    # DICOM files are slides or segmentations; JSON, XML and archives are never slides.
    return examine_slide(path) if is_slide(path) else examine_annotations(path)


def is_slide(path: Path) -> bool:
    """Whether a file that is no PNG or TIFF is a slide; DICOM files may be segmentations."""
    from histoclick.slides import open_slide

    if path.suffix.lower() in SLIDES:
        return True
    try:
        open_slide(path).close()
    except HistoclickError:
        return False
    return True


def examine_picture(path: Path) -> Findings:
    """A PNG or TIFF: a mask if its pixels can only name classes, else a slide."""
    from histoclick.rasters import open_raster
    from histoclick.slides import open_slide

    try:
        with open_slide(path) as slide:
            colour = slide.thumbnail(64)
            grey = bool((colour.max(axis=2) == colour.min(axis=2)).all())
    except HistoclickError:
        grey = True
    if grey:
        try:
            open_raster(path)
        except HistoclickError:
            return examine_slide(path)
        return examine_annotations(path)
    return examine_slide(path)


def examine_slide(path: Path) -> Findings:
    """A slide."""
    from histoclick.slides import describe, open_slide, problems

    with open_slide(path) as slide:
        return {"file": str(path), "kind": "slide"} | describe(slide), problems(slide)


def examine_annotations(path: Path) -> Findings:
    """An annotation file: all of it is read."""
    from collections import Counter

    import numpy as np

    from histoclick import annotations

    format_ = annotations.recognise(path)
    document = annotations.read(path)
    shapes = Counter(each.shape.geom_type for each in document.annotations)
    labels = Counter(each.label or "(no class)" for each in document.annotations)
    holes = sum(
        len(part.interiors)
        for each in document.annotations
        for part in getattr(each.shape, "geoms", [each.shape])
        if part.geom_type == "Polygon"
    )
    facts: dict[str, Any] = {
        "file": str(path),
        "kind": "annotations",
        "format": f"{format_.title} ({format_.name})",
        "objects": len(document.annotations),
        "shapes": dict(shapes),
        "holes": holes,
        "classes": dict(labels),
    }
    if document.annotations:
        boxes = np.array([each.shape.bounds for each in document.annotations])
        extent = [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
        facts["extent_px"] = [round(float(value), 2) for value in extent]
    if document.notes:
        facts["notes"] = list(document.notes)
    return facts, [] if document.annotations else ["holds no object"]


def examine_folder(path: Path) -> Findings:
    """A patch set or several, a model, a run, a public data set, or any slides."""
    from histoclick.datasets.checkup import check_folder

    if (path / "images").is_dir() and (path / "masks").is_dir():
        return examine_patches(path)
    if (path / "card.toml").exists():
        return examine_model(path)
    if (path / "run.toml").exists():
        return examine_run(path)
    if sets := sorted(each.parent for each in path.glob("*/images") if each.is_dir()):
        found = {each.name: examine_patches(each) for each in sets}
        facts: dict[str, Any] = {"folder": str(path), "kind": "patch sets"}
        facts |= {name: part for name, (part, _) in found.items()}
        return facts, [problem for _, problems in found.values() for problem in problems]
    if inventories := check_folder(path):
        facts = {"folder": str(path), "kind": "slides"}
        for number, inventory in enumerate(inventories, start=1):
            prefix = f"{number}_" if len(inventories) > 1 else ""
            facts |= {f"{prefix}{key}": value for key, value in inventory.facts.items()}
        return facts, [problem for each in inventories for problem in each.problems]
    return examine_slides(path)


def examine_model(path: Path) -> Findings:
    """A model folder: its weights are loaded."""
    from histoclick.models.card import read_card
    from histoclick.models.registry import load

    card = read_card(path)
    load(path)
    return {
        "folder": str(path),
        "kind": "model",
        "id": card.id,
        "family": card.family,
        "architecture": card.architecture,
        "parameters": card.parameters,
    }, []


def examine_run(path: Path) -> Findings:
    """A run of an evaluation, complete or not."""
    from histoclick import records

    card = records.read_card(path)
    complete = (path / records.TABLE).exists()
    done = len(records.read_table(path)["patch"].unique()) if complete else 0
    if not complete:
        done = len(records.read_journal(path))
    facts = {
        "folder": str(path),
        "kind": "run",
        "model": card.get("model_id", "not known"),
        "dataset": card.get("data", {}).get("name", "not known"),
        "patches_done": done,
        "patches": card.get("data", {}).get("patches", "not known"),
    }
    return facts, [] if complete else ["not finished: repeat its command, it goes on"]


def examine_slides(path: Path) -> Findings:
    """Any folder with slides: each is opened, and looked for outlines of its name."""
    from histoclick.datasets.cases import SLIDE_SUFFIXES, files
    from histoclick.datasets.folder import ANNOTATION_SUFFIXES
    from histoclick.slides import open_slide, problems

    slides = files(path, SLIDE_SUFFIXES)
    if not slides:
        raise HistoclickError(
            f"{path}: no patch set (images/ and masks/), model (card.toml), run (run.toml) or "
            "slide in it; give one of these, or a single file"
        )
    kinds = [suffix for suffix in ANNOTATION_SUFFIXES if suffix not in SLIDE_SUFFIXES]
    outlined = {name.split(".geojson")[0] for kind in kinds for name in files(path, (kind,))}
    found = []
    for name, file in slides.items():
        try:
            with open_slide(file) as slide:
                found += [f"{name}: {problem}" for problem in problems(slide)]
        except HistoclickError as error:
            found.append(str(error))
    return {
        "folder": str(path),
        "kind": "slides",
        "slides": len(slides),
        "with_annotations": len(outlined & slides.keys()),
        "names": list(slides),
    }, found


def examine_patches(path: Path) -> Findings:
    """A patch set: every patch is read."""
    from histoclick.patches import open_patch_set

    patches = open_patch_set(path)
    problems, areas = [], []
    prepared = any((place / "prepare.toml").exists() for place in (path, path.parent))
    mend = " (made by histoclick prepare: repeat its command)" if prepared else ""
    for patch in patches:
        try:
            areas.append(float(patch.read().mask.mean()))
        except HistoclickError as error:
            problems.append(f"{error}{mend}")
    facts = {
        "folder": str(path),
        "kind": "patch set",
        "patches": len(patches),
        "slides": len({patch.slide for patch in patches}) if patches.has_slides else "not known",
        "object_fraction": f"{min(areas):.2f} to {max(areas):.2f}" if areas else "not known",
    }
    return facts, problems


def worded(value: Any) -> str:
    """For people."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {worded(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list):
        shown = [worded(each) for each in value[:SHOWN_NAMES]]
        more = len(value) - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more else "") or "none"
    return f"{value:.10g}" if isinstance(value, float) else str(value)
