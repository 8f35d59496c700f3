"""``histoclick prepare``: from slides to patch sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from histoclick.cli.console import INCOMPLETE, say
from histoclick.types import HistoclickError

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

    from histoclick.crew import Crew
    from histoclick.datasets.cases import DataSet
    from histoclick.prepare import Bench, Prepared, Recipe

SHOWN_NOTES = 20


def prepare(
    data_set: Annotated[str, typer.Argument(help="camelyon16, paip2019, or folder.")],
    slides: Annotated[Path, typer.Option(help="Folder with the slides.")],
    annotations: Annotated[
        Path, typer.Option(help="Folder with an annotation file for each slide, named alike.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the patch set; repeated, it goes on.")],
    magnification: Annotated[
        float, typer.Option(help="Of the patches: 5 is 2 um/px, 10 is 1 um/px.")
    ] = 10,
    patch_size: Annotated[int, typer.Option(help="Side of a patch, px.")] = 400,
    stride: Annotated[int, typer.Option(help="From patch to patch, px; 0: their size.")] = 0,
    object_fraction: Annotated[
        tuple[float, float],
        typer.Option(metavar="LEAST MOST", help="Of a patch that is object, as in 0.2 0.8."),
    ] = (0.2, 0.8),
    tissue_fraction: Annotated[
        float, typer.Option(help="Least of a patch that is tissue and not glass.")
    ] = 0.05,
    splits: Annotated[
        str,
        typer.Option(
            help="Shares, as in train=0.8,val=0.1,test=0.1, or a CSV file with slide,split; "
            "default: a single patch set."
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="Of the splits.")] = 0,
    target: Annotated[str, typer.Option(help="PAIP2019: viable or whole tumour.")] = "viable",
    outlines: Annotated[str, typer.Option(help="PAIP2019: from xml or from tif masks.")] = "xml",
    label: Annotated[
        list[str] | None, typer.Option(help="folder: a class that is the object; default: all.")
    ] = None,
    hole: Annotated[
        list[str] | None, typer.Option(help="folder: a class that is cut out of the object.")
    ] = None,
    mpp: Annotated[
        float | None, typer.Option(help="um per px of level 0, for slides that do not say.")
    ] = None,
    icc: Annotated[bool, typer.Option(help="Apply the colour profiles of the slides.")] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one per processor.")] = 0,
    ray: Annotated[
        str | None, typer.Option(help="Workers on a Ray cluster: auto, ray://HOST:PORT, or local.")
    ] = None,
) -> None:
    """Cut patches out of slides, where enough of them is object; the defaults are the paper's."""
    from histoclick.crew import preloaded

    count = workers or processors()
    context = (
        preloaded("histoclick.cli", "histoclick.prepare") if count > 1 and ray is None else None
    )
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from histoclick.prepare import Progress, Recipe, Splits, prepare

    if magnification <= 0:
        raise HistoclickError(f"--magnification {magnification:g}: give a number above 0")
    chosen = choose(data_set, target, outlines, tuple(label or ()), tuple(hole or ()))
    recipe = Recipe(
        chosen, 10 / magnification, patch_size, stride, object_fraction, tissue_fraction, mpp, icc
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        make_crew(recipe, workers, ray, context) as crew,
        Bars(*columns, TimeRemainingColumn()) as bars,
    ):
        by_slide, by_place = (
            bars.add_task("slides", total=None),
            bars.add_task("places", total=None),
        )

        def seen(progress: Progress) -> None:
            bars.update(by_slide, completed=progress.slides)
            text = f"places ({progress.patches} patches)"
            bars.update(
                by_place, completed=progress.looked, total=progress.places, description=text
            )

        prepared = prepare(
            crew,
            recipe,
            slides.resolve(),
            annotations.resolve(),
            out,
            splits=Splits.parse(splits, seed),
            begun=lambda count: bars.update(by_slide, total=count),
            seen=seen,
        )
    tell(prepared, out)
    if prepared.failures:
        raise typer.Exit(INCOMPLETE)


def choose(
    data_set: str, target: str, outlines: str, labels: tuple[str, ...], holes: tuple[str, ...]
) -> DataSet:
    """The data set by its name; options of another one are refused."""
    from histoclick.datasets.camelyon16 import Camelyon16
    from histoclick.datasets.folder import Folder
    from histoclick.datasets.paip2019 import Paip2019

    if (labels or holes) and data_set != "folder":
        raise HistoclickError(f"--label and --hole are for 'prepare folder', not for {data_set}")
    if (target, outlines) != ("viable", "xml") and data_set != "paip2019":
        raise HistoclickError(f"--target and --outlines are for PAIP2019, not for {data_set}")
    if data_set == "camelyon16":
        return Camelyon16()
    if data_set == "paip2019":
        return Paip2019(target, outlines)
    if data_set == "folder":
        return Folder(labels, holes)
    raise HistoclickError(f"no data set '{data_set}'; give camelyon16, paip2019 or folder")


def make_crew(
    recipe: Recipe, workers: int, ray: str | None, context: BaseContext | None
) -> Crew[Bench]:
    """Who reads the slides."""
    from functools import partial

    from histoclick.crew import Alone, Processes, RayCluster
    from histoclick.prepare import Bench

    load = partial(Bench, recipe)
    if ray is not None:
        if workers:
            raise HistoclickError("--workers and --ray: a Ray cluster knows its workers; give one")
        return RayCluster(load, ray)
    count = workers or processors()
    return Alone(load()) if count == 1 else Processes(load, count, context)


def processors() -> int:
    """How many this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not everywhere
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def tell(prepared: Prepared, out: Path) -> None:
    """What came of it, and what to do next."""
    for note in prepared.notes[:SHOWN_NOTES]:
        say(f"Note: {note}")
    if len(prepared.notes) > SHOWN_NOTES:
        say(f"Note: and {len(prepared.notes) - SHOWN_NOTES} more")
    for reason in prepared.failures:
        say(f"Skipped: {reason}")
    for split, count in prepared.patches.items():
        say(f"{count} patches in {out / split}")
    done = prepared.slides - len(prepared.failures)
    say(f"{done} of {prepared.slides} slides done.")
    if prepared.failures:
        say("Repeat the command when the others are mended: only they will be done.")
    elif any(prepared.patches.values()):
        some = max(prepared.patches, key=lambda split: prepared.patches[split])
        say(f"Next: histoclick evaluate --data {out / some} --out run")
