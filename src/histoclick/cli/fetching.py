"""``histoclick fetch`` and ``histoclick phantom``: slides to work with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from histoclick.cli.console import INCOMPLETE, say
from histoclick.types import HistoclickError

if TYPE_CHECKING:
    from histoclick.datasets.camelyon16_bucket import Choice


def fetch(
    data_set: Annotated[str, typer.Argument(help="camelyon16, or paip2019 for how to get it.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Slides such as tumor_001, or patterns such as 'test_*'; default: all."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder; default: one with the data set's name.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="images, annotations or masks; default: all three.")
    ] = None,
    mirror: Annotated[str | None, typer.Option(help="URL of a copy of the bucket.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List, and fetch nothing.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Downloads at a time.")] = 4,
) -> None:
    """Official open data: resumed where it was cut, and verified."""
    from histoclick.datasets import camelyon16_bucket as bucket
    from histoclick.datasets.paip2019_folder import STEPS
    from histoclick.fetch import get

    if data_set == "paip2019":
        say(STEPS.rstrip())
        return
    if data_set != "camelyon16":
        raise HistoclickError(f"no data set '{data_set}' to fetch; give camelyon16 or paip2019")
    say(f"Asking {mirror or bucket.BUCKET} what there is ...")
    choice = bucket.choose(get, names or (), only or bucket.KINDS, mirror)
    for note in choice.notes:
        say(f"Note: {note}")
    folder = out or Path(data_set)
    if dry_run:
        list_files(choice, folder)
    else:
        bring(choice, folder, workers)


def list_files(choice: Choice, folder: Path) -> None:
    """What would be fetched."""
    from histoclick.fetch import in_words, make_plan

    plan = make_plan(choice.files, folder)
    for item in plan.items:
        size = "unknown" if item.file.size is None else in_words(item.file.size)
        say(f"{item.state:<9} {size:>9}  {item.file.path}")
    least = "" if plan.sizes_known else "at least "
    size, missing = in_words(plan.size), in_words(plan.missing)
    say(f"{len(plan.items)} files of {least}{size}; {missing} to fetch")


def bring(choice: Choice, folder: Path, workers: int) -> None:
    """Fetch with a bar for every file at work; exit code 3 when some failed."""
    from collections import Counter

    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from histoclick.fetch import Result, fetch, in_words

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    failed, results = [], Counter[Result]()
    with Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn()) as bars:
        at_work: dict[str, TaskID] = {}

        def heard(path: str, done: int, total: int) -> None:
            if path not in at_work:
                at_work[path] = bars.add_task(path)
            bars.update(at_work[path], completed=done, total=total or None)

        for outcome in fetch(choice.files, choice.base, folder, workers=workers, progress=heard):
            results[outcome.result] += 1
            if (task := at_work.pop(outcome.file.path, None)) is not None:
                bars.remove_task(task)
            if outcome.result == Result.FAILED:
                failed.append(outcome.told)
            elif outcome.told:
                bars.console.print(f"Note: {outcome.told}", highlight=False)
            if outcome.result == Result.FETCHED:
                size = in_words(outcome.target.stat().st_size)
                bars.console.print(f"fetched {size:>9}  {outcome.file.path}", highlight=False)
    for told in failed:
        say(f"Failed: {told}")
    say(f"{results[Result.FETCHED]} files fetched, {results[Result.THERE]} were there, in {folder}")
    if failed:
        say("Repeat the command for the others: what is there is kept.")
        raise typer.Exit(INCOMPLETE)
    say(
        f"Next: histoclick prepare camelyon16 --slides {folder / 'images'} "
        f"--annotations {folder / 'annotations'} --out patches"
    )


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder for the slides and their truth.")],
    slides: Annotated[int, typer.Option(min=1, help="How many.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the first; the others follow.")] = 0,
    width: Annotated[int, typer.Option(help="Px of level 0.")] = 20_000,
    height: Annotated[int, typer.Option(help="Px of level 0.")] = 20_000,
    mpp: Annotated[float, typer.Option(help="um per px of level 0.")] = 0.25,
) -> None:
    """Generated slides that look like H&E, with exact outlines: to try everything without data."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from histoclick.datasets.phantomslides import write_phantom_slides

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, TimeRemainingColumn()) as bars:
        task = bars.add_task("drawing", total=slides * height)
        written = write_phantom_slides(
            out, slides, seed=seed, width=width, height=height, mpp=mpp,
            progress=lambda rows: bars.advance(task, rows),
        )  # fmt: skip
    for path in written:
        say(f"{path}, with .geojson, .xml and _mask.tif beside it")
    say(
        f"Next: histoclick prepare camelyon16 --slides {out} --annotations {out} --out patches "
        f"--magnification 10"
    )
