"""``histoclick demo``, ``evaluate``, ``report`` and ``reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from histoclick.cli.console import INCOMPLETE, Device, say
from histoclick.cli.running import run_evaluation
from histoclick.cli.training import train_for_study
from histoclick.types import HistoclickError

if TYPE_CHECKING:
    from histoclick.starts import Start

SCALES = ("mini", "full")
DEMO_PX = 4000  # sides of the generated slide: a quarter of a minute


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demo's files.")] = Path(
        "histoclick-demo"
    ),
    no_annotator: Annotated[
        bool, typer.Option("--no-annotator", help="End when the report is written.")
    ] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the page.")] = False,
) -> None:
    """Offline tour: evaluate the built-in model, write the report, annotate a generated slide."""
    from histoclick.cli.annotation import annotate
    from histoclick.datasets.demo import demo_samples
    from histoclick.datasets.phantomslides import write_phantom_slides
    from histoclick.models.registry import default_id, find
    from histoclick.patches import write_patch_set
    from histoclick.report import write_report

    say(f"1/4  Writing samples to {out / 'samples'} (a real picture and generated tissue) ...")
    patches = write_patch_set(demo_samples(), out / "samples")
    say("2/4  A simulated user clicks up to 20 times on each of them, with two models ...")
    # The demo shows the models and samples of today: a run of others is another folder.
    data = patches.check()[:8]
    runs = []
    for model in (default_id(), "discs"):
        card, _ = find(model)
        runs.append(out / "runs" / "-".join(filter(None, (model, card.sha256[:8], data))))
        run_evaluation(model, patches, runs[-1], device="cpu")
    say("3/4  Writing the report ...")
    files = write_report(runs, out / "report")
    say("")
    say(files.markdown.read_text(encoding="utf-8"))
    say(f"Open {files.page.resolve()} in a browser.")
    if no_annotator:
        return
    say("4/4  Your turn: a generated slide in the annotator ...")
    slides = out / "slides"
    if not any(slides.glob("*.tif")):
        write_phantom_slides(slides, 1, seed=3, width=DEMO_PX, height=DEMO_PX, mpp=0.5)
    annotate([slides], store=str(out / "annotations.sqlite"), no_browser=no_browser)


def evaluate(
    data: Annotated[Path, typer.Option(help="Patch set: a folder with images/ and masks/.")],
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run in it continues.")],
    model: Annotated[str | None, typer.Option(help="Id or folder; default: built-in.")] = None,
    max_clicks: Annotated[int, typer.Option(help="Click budget of the simulated user.")] = 20,
    targets: Annotated[str, typer.Option(help="IoU values to reach.")] = "0.80,0.85,0.90",
    start: Annotated[
        str, typer.Option(help="First mask: nothing, corrupted, or a folder of <patch>.png.")
    ] = "nothing",
    click_rule: Annotated[
        str, typer.Option(help="Where in the larger error: deepest, inner, or random.")
    ] = "deepest",
    jitter: Annotated[float, typer.Option(help="Shake of the clicking hand, in px.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of random clicks and of corrupted masks.")] = 0,
    device: Device = "cpu",
    threads: Annotated[
        int, typer.Option(min=0, help="Processor threads of each worker; 0: as many as fit.")
    ] = 0,
    batch: Annotated[int, typer.Option(help="Patches answered at once, if the model can.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes on this machine.")] = 1,
    ray: Annotated[
        str | None, typer.Option(help="Workers on a Ray cluster: auto, ray://HOST:PORT, or local.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Only the first N by id; 0 for all.")] = 0,
    strips: Annotated[int, typer.Option(min=0, help="Patches kept as pictures.")] = 6,
    predictions: Annotated[bool, typer.Option(help="Keep the last mask of every patch.")] = False,
    shared_slides: Annotated[
        bool, typer.Option("--shared-slides", help="Allow slides that the model was trained on.")
    ] = False,
) -> None:
    """Simulate a clicking user on every patch and record IoU and seconds of every click."""
    from histoclick.clicks import SimulatedUser
    from histoclick.evaluate import Protocol
    from histoclick.patches import open_patch_set

    patches = open_patch_set(data.resolve())  # who works elsewhere may stand in another folder
    if limit > 0:
        patches = patches.first(limit)
    user = SimulatedUser(click_rule, jitter, seed)
    protocol = Protocol(max_clicks, parse_targets(targets), user, parse_start(start, seed))
    run_evaluation(
        model, patches, out, device=device, threads=threads, workers=workers, ray=ray,
        protocol=protocol, batch=batch, strips=strips, predictions=predictions,
        shared_slides=shared_slides,
    )  # fmt: skip
    say(f"Records are in {out / 'clicks.parquet'}. Next: histoclick report {out} --out page")


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of 'evaluate'.")],
    out: Annotated[Path, typer.Option(help="Folder for tables, figures and index.html.")],
    baseline: Annotated[
        Path | None, typer.Option(help="Run to compare the others with (Table 2's brackets).")
    ] = None,
) -> None:
    """Tables, curves and pictures of one or more runs, as files and as one HTML page."""
    from histoclick.report import write_report

    files = write_report(runs, out, baseline)
    say(files.markdown.read_text(encoding="utf-8"))
    say(f"Open {files.page.resolve()} in a browser.")


def reproduce(
    study: Annotated[
        str, typer.Argument(help="table1, table2, or a TOML file that names a study.")
    ],
    data: Annotated[Path, typer.Option(help="Folder with the patch sets inside.")],
    out: Annotated[Path, typer.Option(help="Folder for runs and report; repeated, it goes on.")],
    scale: Annotated[
        str,
        typer.Option(
            help="Of a study that comes with histoclick: full, or mini, which runs everywhere."
        ),
    ] = "mini",
    device: Device = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="Processor threads; 0: as many as fit.")] = 0,
    batch: Annotated[int, typer.Option(help="Patches answered at once, if the model can.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes on this machine.")] = 1,
) -> None:
    """Train and evaluate every model of a study, beside the published numbers."""
    from functools import partial

    from histoclick.evaluate import Protocol
    from histoclick.machine import resolve
    from histoclick.reproduce import reproduce
    from histoclick.studies import read_study

    if scale not in SCALES:
        raise HistoclickError(f"--scale {scale}: give one of {', '.join(SCALES)}")
    if min(batch, workers) < 1:
        raise HistoclickError("--batch and --workers: give at least 1")
    resolve(device)  # a bad one is told before anything is made
    chosen = read_study(study if study.endswith(".toml") else f"{study}-{scale}")
    protocol = Protocol(chosen.max_clicks, chosen.targets)
    files, missing = reproduce(
        chosen,
        data.resolve(),
        out,
        lambda model, patches, run: run_evaluation(
            model, patches, run, device=device, threads=threads, workers=workers,
            batch=batch, protocol=protocol,
        ),
        say,
        partial(train_for_study, device=device, threads=threads),
    )  # fmt: skip
    if files is not None:
        say(f"\n{chosen.title}\n\n{files.markdown.read_text(encoding='utf-8')}")
    for part in missing:
        say(f"Missing: {part}")
    if files is None:
        raise HistoclickError("nothing of the study could be evaluated; see what is missing above")
    say(f"Open {files.page.resolve()} in a browser.")
    if missing:
        say("Repeat the command when the missing parts are there: only they will be done.")
        raise typer.Exit(INCOMPLETE)


def parse_start(text: str, seed: int) -> Start | None:
    """``--start`` as what it names; ``None`` is nothing."""
    from histoclick import records
    from histoclick.starts import Corrupted, Folder

    if text == records.NOTHING:
        return None
    return Corrupted(seed) if text == "corrupted" else Folder(Path(text).resolve())


def parse_targets(text: str) -> tuple[float, ...]:
    """``"0.80,0.85"`` or ``"0.80 0.85"`` as numbers."""
    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise HistoclickError(f"--targets {text!r}: give numbers, as in 0.80,0.85,0.90") from None
