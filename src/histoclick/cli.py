"""The command line: thin, lazy, and the only place that wires the layers together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from histoclick.types import HistoclickError

if TYPE_CHECKING:
    from histoclick.crew import Crew
    from histoclick.models.card import Card
    from histoclick.patches import PatchSet
    from histoclick.starts import Start
    from histoclick.types import Segmenter

app = typer.Typer(
    name="histoclick",
    help="Interactive segmentation for histopathology: click, train, evaluate. All of it offline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models_app = typer.Typer(help="List, show and import models.", no_args_is_help=True)
app.add_typer(models_app, name="models")

INTERRUPTED = 130  # what Typer makes of Ctrl-C
SCALES = ("mini", "full")
INCOMPLETE = 3  # the run went to its end, and parts of it are missing

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto for the best there is.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demo's files.")] = Path(
        "histoclick-demo"
    ),
) -> None:
    """Offline tour: evaluate the built-in model on built-in samples and write the report."""
    from histoclick.datasets.demo import demo_samples
    from histoclick.models.registry import default_id, find
    from histoclick.patches import write_patch_set
    from histoclick.report import write_report

    say(f"1/3  Writing samples to {out / 'samples'} (a real picture and generated tissue) ...")
    patches = write_patch_set(demo_samples(), out / "samples")
    say("2/3  A simulated user clicks up to 20 times on each of them, with two models ...")
    # The demo shows the models and samples of today: a run of others is another folder.
    data = patches.check()[:8]
    runs = []
    for model in (default_id(), "discs"):
        card, _ = find(model)
        runs.append(out / "runs" / "-".join(filter(None, (model, card.sha256[:8], data))))
        run_evaluation(model, patches, runs[-1], device="cpu")
    say("3/3  Writing the report ...")
    files = write_report(runs, out / "report")
    say("")
    say(files.markdown.read_text(encoding="utf-8"))
    say(f"Open {files.page.resolve()} in a browser.")


@app.command()
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
    )  # fmt: skip
    say(f"Records are in {out / 'clicks.parquet'}. Next: histoclick report {out} --out page")


@app.command()
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


@app.command()
def reproduce(
    study: Annotated[str, typer.Argument(help="table1, or a TOML file that names a study.")],
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
    """Evaluate every model of a study on every patch set, beside the published numbers."""
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


@models_app.command("list")
def list_models(json: Json = False) -> None:
    """The models this machine knows, built-in and imported."""
    from histoclick.models.registry import cards

    known = [
        {"id": id_, "family": "", "summary": f"damaged: {card}"}
        if isinstance(card, HistoclickError)
        else {"id": id_, "family": card.family, "summary": card.summary}
        for id_, card in cards().items()
    ]
    if json:
        say_json(known)
        return
    width = max(len(entry["id"]) for entry in known)
    for entry in known:
        say(f"{entry['id']:<{width}}  {entry['family']:<10}  {entry['summary']}")


@models_app.command("show")
def show_model(
    model: Annotated[str, typer.Argument(help="Id or folder.")], json: Json = False
) -> None:
    """A model's card: origin, licence, training data, measured NoC."""
    import dataclasses

    from histoclick.models.registry import find

    card, folder = find(model)
    if json:
        say_json(dataclasses.asdict(card) | {"folder": str(folder)})
        return
    say((folder / "card.toml").read_text(encoding="utf-8").rstrip())
    say(f"\n# folder: {folder}")


@models_app.command("import")
def import_model(
    file: Annotated[
        Path, typer.Argument(help="Official weight file, or folder of the Hugging Face Hub.")
    ],
    family: Annotated[str, typer.Option(help="Family of the file, such as sam.")],
    id_: Annotated[str, typer.Option("--id", help="Name the model shall have here.")],
) -> None:
    """Check an official weight file strictly and make a model of it."""
    from histoclick.models.registry import import_model

    say(f"Reading {file} ...")
    folder = import_model(file, family, id_)
    say(f"Imported into {folder}. Use it with: --model {id_}")


@models_app.command("random")
def random_model(
    architecture: Annotated[str, typer.Argument(help="Such as hrnet18s.")],
    out: Annotated[Path, typer.Option(help="Model folder to make.")],
    family: Annotated[str, typer.Option(help="Such as ritm.")],
) -> None:
    """Make a model with random weights: to time a network without its weights."""
    from histoclick.models.registry import with_random_weights

    folder = with_random_weights(family, architecture, out)
    say(f"Made {folder}, marked as untrained. Use it with: --model {folder}")


@app.command()
def doctor(json: Json = False) -> None:
    """What is installed, and whether it works."""
    from histoclick import machine
    from histoclick.models import registry

    known = registry.cards()
    facts = machine.describe() | {
        "devices": machine.devices(),
        "models": [id_ for id_, card in known.items() if not isinstance(card, HistoclickError)],
        "damaged": [str(card) for card in known.values() if isinstance(card, HistoclickError)],
        "model_folder": str(registry.home()),
        "self_test": self_test(),
    }
    if json:
        say_json(facts)
    else:
        for key, value in facts.items():
            if isinstance(value, dict):
                value = ", ".join(f"{name} {version}" for name, version in value.items())
            say(f"{key + ':':<14} {', '.join(value) if isinstance(value, list) else value}")
    if facts["damaged"]:
        raise typer.Exit(1)


def run_evaluation(
    model: str | None,
    patches: PatchSet,
    out: Path,
    *,
    device: str,
    threads: int = 0,
    workers: int = 1,
    ray: str | None = None,
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


def make_crew(folder: Path, device: str, threads: int, workers: int, ray: str | None) -> Crew:
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
    """What every worker does first. ``threads``: 0 leaves their number to PyTorch."""
    import torch

    from histoclick import machine
    from histoclick.datasets.demo import demo_samples
    from histoclick.models import registry
    from histoclick.trajectory import trajectory

    if threads:
        torch.set_num_threads(threads)
    device = machine.resolve(device)
    segmenter = registry.load(folder, device=device)
    if device != "cpu":  # an accelerator's first calls compile and allocate: nobody's seconds
        list(trajectory(segmenter, demo_samples(phantoms=0)[0], max_clicks=2))
    return segmenter


def describe(_: Segmenter, device: str) -> dict[str, Any]:
    """The machine of a worker."""
    from histoclick import machine

    return machine.describe(machine.resolve(device))


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


def self_test() -> str:
    """Two clicks of the built-in model on a real picture."""
    from histoclick.datasets.demo import demo_samples
    from histoclick.models.registry import load
    from histoclick.trajectory import trajectory

    sample = demo_samples(phantoms=0)[0]
    *_, step = trajectory(load(), sample, max_clicks=2)
    return f"two clicks on a real gland gave IoU {step.iou:.2f} in {step.seconds:.2f} s per click"


def say(text: str) -> None:
    """One line to standard output."""
    typer.echo(text)


def say_json(value: Any) -> None:
    """A value as JSON to standard output."""
    import json

    typer.echo(json.dumps(value, indent=2))


def main() -> None:
    """Entry point: bad input ends with one sentence and 2, Ctrl-C with 130."""
    try:
        code = app(standalone_mode=False)
    except HistoclickError as error:
        typer.echo(f"histoclick: {error}", err=True)
        code = 2
    except TyperException as error:  # wrong use: unknown command, missing option, ...
        typer.echo(f"histoclick: {error.format_message()}", err=True)
        code = error.exit_code
    except OSError as error:  # full disk, missing rights, a file where a folder should be
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        typer.echo(f"histoclick: {what}; check the path, your rights and the free space", err=True)
        code = 2
    except RuntimeError as error:  # torch has no other name for it on all devices
        if "out of memory" not in str(error):
            raise
        typer.echo("histoclick: out of memory; use a smaller --batch or fewer --workers", err=True)
        code = 2
    if code == INTERRUPTED:
        typer.echo(
            "\nhistoclick: interrupted; evaluate, reproduce and demo continue when repeated.",
            err=True,
        )
    sys.exit(code)
