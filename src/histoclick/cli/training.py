"""``histoclick train``."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from histoclick.cli.console import say

if TYPE_CHECKING:
    from histoclick.studies import Trained, Training
    from histoclick.train.settings import Machine, Settings
    from histoclick.train.training import Order


def train(
    base: Annotated[str, typer.Option(help="Model to begin with: id or folder.")],
    scenario: Annotated[
        str, typer.Option(help="What learns: md, ie-md, whole or refine for SAM; else whole.")
    ],
    data: Annotated[list[Path], typer.Option(help="Patch set to learn from; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Model folder to make.")],
    val: Annotated[
        list[Path] | None, typer.Option(help="Patch set by whose NoC the result is chosen.")
    ] = None,
    val_limit: Annotated[
        int, typer.Option(min=0, help="Patches of it looked at after each epoch; 0: all.")
    ] = 50,
    recipe: Annotated[
        Path | None, typer.Option(help="TOML with settings; default: the paper's.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: 30.")] = None,
    batch: Annotated[int | None, typer.Option(help="Patches per step.")] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate; default: 5e-4.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="End after these, in all.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything drawn.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting, as in ema=0.999.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, or auto for the best.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="Processor threads; 0: as many as fit.")] = 0,
    micro_batch: Annotated[
        int, typer.Option(min=0, help="Patches at a time, for small memories; 0: all of a step.")
    ] = 0,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Less memory, more time.")
    ] = False,
    store: Annotated[
        bool, typer.Option(help="Keep what a frozen encoder makes of each patch on disk.")
    ] = True,
    shared_slides: Annotated[
        bool, typer.Option("--shared-slides", help="Allow slides in both --data and --val.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training there.")
    ] = False,
    session: Annotated[
        float, typer.Option(min=0, help="Stop after these minutes, to go on later; 0: never.")
    ] = 0.0,
) -> None:
    """Fine-tune a model on patch sets. Several GPUs: torchrun -m histoclick train ..."""
    from histoclick.train.settings import Machine, parse_changes, read_settings
    from histoclick.train.training import Order

    changes = parse_changes(change or []) | {
        "epochs": epochs, "batch": batch, "rate": rate, "max_minutes": max_minutes, "seed": seed,
    }  # fmt: skip
    settings = read_settings(recipe, **changes)
    order = Order(
        base, scenario, tuple(data), out, tuple(val or ()), val_limit, store, shared_slides
    )
    machine = Machine(device, micro_batch, checkpointing)
    done = run_training(
        order, settings, machine, threads, resume=resume, session_s=60 * session or math.inf
    )
    if done is None:
        return
    if not done:
        say(f"Not finished yet. Go on: repeat the command with --resume ({out})")
        return
    say(f"Trained {out}: its curve is {out / 'training/curve.png'}")
    say(f"Next: histoclick evaluate --model {out} --data TEST --out run")


def run_training(
    order: Order,
    settings: Settings,
    machine: Machine,
    threads: int,
    *,
    resume: bool,
    session_s: float = math.inf,
) -> bool | None:
    """Train with a progress bar; whether it is finished, ``None`` in processes that only help."""
    import torch
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from histoclick.machine import resolve
    from histoclick.train.checkpoint import Progress as Reached
    from histoclick.train.training import processes, train

    machine = replace(machine, device=resolve(machine.device))
    if threads:
        torch.set_num_threads(threads)
    lead = processes(machine.device).is_main_process
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), disable=not lead) as bars:
        task = bars.add_task("reading", total=None)

        def seen(reached: Reached, steps: int, loss: float) -> None:
            best = "" if reached.best_step < 0 else f", best NoC@85 {reached.best:.2f}"
            text = f"loss {loss:.4f}{best}"
            if settings.max_minutes and reached.seconds:  # that end it sooner, as it looks now
                minutes = reached.seconds / 60
                steps = min(steps, max(1, round(reached.step * settings.max_minutes / minutes)))
            bars.update(task, completed=reached.step, total=steps, description=text)

        done = train(
            order, settings, machine, resume=resume, session_s=session_s, seen=seen,
            told=lambda text: bars.update(task, description=text),
        )  # fmt: skip
    return done if lead else None


def train_for_study(
    base: str, trained: Trained, training: Training, out: Path, *, device: str, threads: int
) -> bool:
    """One model of a study; goes on where it stopped."""
    from histoclick.train.settings import Machine, read_settings
    from histoclick.train.training import WORK, Order

    say(f"Training {out.name}: {trained.scenario} of {trained.base}")
    order = Order(
        base,
        trained.scenario,
        tuple(map(Path, training.data)),
        out,
        tuple(map(Path, training.validation)),
    )
    settings = read_settings(**training.settings)
    resume = (out / WORK).exists()
    return bool(run_training(order, settings, Machine(device), threads, resume=resume))
