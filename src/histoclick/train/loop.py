"""The one training loop, for every family, on one process or many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from safetensors.numpy import save_file
from torch import Tensor, nn

from histoclick.train.checkpoint import Checkpoint, Progress
from histoclick.train.grading import Grading
from histoclick.train.log import Log
from histoclick.train.samples import Batch, Samples
from histoclick.train.settings import Machine, Settings
from histoclick.train.trainee import Trainee
from histoclick.types import HistoclickError

Encode = Callable[[Batch, slice], Any]  # of a part of a batch, what the network is shown
Validate = Callable[[], tuple[float, float]]  # NoC of the weights as they are now, mean IoU


@dataclass(frozen=True)
class Run:
    """Everything a training is made of. ``facts``: what must be the same when it goes on.

    ``validate``: a lower NoC is better, then a higher IoU; asked at the end of every epoch.
    ``encode``: where what the network is shown comes from, ``None`` for the images themselves.
    """

    trainee: Trainee
    scenario: str
    samples: Samples
    settings: Settings
    machine: Machine
    folder: Path
    facts: dict[str, Any]
    validate: Validate | None = None
    encode: Encode | None = None

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.settings.epochs * self.samples.steps(self.settings)


def fit(
    run: Run,
    start: Checkpoint | None = None,
    seen: Callable[[Progress, float], object] = lambda progress, loss: None,
    session_s: float = math.inf,
) -> Progress:
    """Train until the epochs or minutes are over, or this session's seconds.

    At its end the trainee holds the result: the best weights by validation, else the last, averaged
    if that was asked for. ``start``: where to go on. ``seen`` is called after each step. Raises
    ``HistoclickError`` for a loss that is not a number, and when memory or disk are full.
    """
    settings, machine, trainee = run.settings, run.machine, run.trainee
    accelerator = Accelerator(
        cpu=machine.device == "cpu",
        # Which weights are asked depends on the clicks: the first has no mask to go on from.
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
        ],
    )
    check_parts(run, accelerator.num_processes)
    trainee.net.to(accelerator.device)
    trainee.freeze(run.scenario)
    optimiser = make_optimiser(trainee, run.scenario, settings)
    learning = learned(trainee, run.scenario)
    progress, chosen = Progress(), dict[str, Tensor]()
    average = copied(learning) if settings.ema else {}
    if start is not None:
        put(learning, start.weights)
        put(average, start.average)
        optimiser.load_state_dict(start.optimiser)
        progress, chosen = start.progress, start.chosen
    grading: nn.Module = accelerator.prepare_model(Grading(trainee, run.scenario, settings))
    lead = accelerator.is_main_process
    with Log(run.folder, progress.step) if lead else nullcontext() as log:

        def save() -> None:
            if lead:
                state = optimiser.state_dict()
                Checkpoint(run.facts, progress, copied(learning), state, average, chosen).write(
                    run.folder
                )

        def look() -> None:
            """Validate, once for each epoch; what was learned until then is safe before."""
            nonlocal chosen
            ends = progress.step % run.samples.steps(settings) == 0 or is_over(progress, run)
            if run.validate is None or not ends or progress.looked_step == progress.step:
                return
            save()
            if lead:
                with swapped(learning, average):
                    noc, iou = run.validate()
                    if (noc, -iou) < (progress.best, -progress.best_iou):
                        progress.best, progress.best_iou = noc, iou
                        progress.best_step, chosen = progress.step, copied(learning)
                assert log is not None
                log.validation(progress, noc)
            progress.looked_step = progress.step
            accelerator.wait_for_everyone()

        if progress.step:
            look()  # the last session may have ended before it could
        began = saved = last = time.monotonic()
        try:
            for batch in run.samples.batches(settings, progress.step, plain=run.encode is not None):
                if is_over(progress, run):
                    break
                set_rates(optimiser, settings, progress, run)
                loss, iou = take_step(run, accelerator, grading, optimiser, batch, progress.step)
                if not math.isfinite(loss):
                    raise not_a_number(run, batch, progress.step)
                progress.step += 1
                decay = min(settings.ema, (1 + progress.step) / (10 + progress.step))
                follow(average, learning, decay)
                now = time.monotonic()
                took = now - last
                seconds, stop = agreed(
                    accelerator, progress.seconds + took, now - began >= session_s
                )
                progress.seconds = seconds
                if log:
                    rate = optimiser.param_groups[0]["lr"]
                    log.step(progress, batch.clicks, loss, iou, rate)
                seen(progress, loss)
                look()
                last = time.monotonic()  # looking is no training
                if stop or last - saved + took >= machine.save_every_s:  # before it is too late
                    save()
                    saved = last
                if stop:
                    break
        except KeyboardInterrupt:
            save()
            raise
        save()
    put(learning, chosen or average)
    trainee.train(run.scenario, learning=False)
    return progress


def check_parts(run: Run, processes: int) -> None:
    """Raise ``HistoclickError`` where a process, or a part that fits its memory, has too few."""
    share, least = run.settings.batch // processes, run.trainee.least_part
    part = min(share, run.machine.micro_batch or share)
    rest = share % part if part else 0
    if part < least or 0 < rest < least:
        raise HistoclickError(
            f"a batch of {run.settings.batch} for {processes} process(es) in parts of {part}: this "
            f"model needs parts of {least} patches or more; use another --batch or --micro-batch"
        )


def take_step(
    run: Run,
    accelerator: Accelerator,
    grading: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    step: int,
) -> tuple[float, float]:
    """Forward, backward, update; returns the mean loss and IoU over all processes.

    The batch is divided among the processes, and each one's share into parts that fit its memory;
    gradients are those of the whole batch (but for batch norm, which knows only its part).
    """
    size, world, rank = len(batch.targets), accelerator.num_processes, accelerator.process_index
    share = range(rank * size // world, (rank + 1) * size // world)
    micro = run.machine.micro_batch or len(share)
    parts = [slice(a, min(a + micro, share.stop)) for a in range(share.start, share.stop, micro)]
    optimiser.zero_grad(set_to_none=True)
    total = torch.zeros(2)
    torch.manual_seed(
        hash((run.settings.seed, step, rank)) % 2**63
    )  # of whatever the network draws
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        with nullcontext() if last else accelerator.no_sync(grading), out_of_memory_told():
            images = shown(run, batch, part, accelerator.device)
            losses, ious = grading(
                images, batch.targets[part], batch.rngs[part], batch.clicks, run.encode is not None
            )
            (losses.sum() * (world / size)).backward()  # processes are averaged, patches summed
        total += torch.stack([losses.detach().sum(), ious.sum()]).float().cpu() / size
    if run.settings.clip:
        accelerator.clip_grad_norm_(trainable(optimiser), run.settings.clip)
    everywhere = accelerator.reduce(total.to(accelerator.device), "sum").cpu()
    if everywhere[0].isfinite():
        optimiser.step()
    return float(everywhere[0]), float(everywhere[1])


def shown(run: Run, batch: Batch, part: slice, device: torch.device) -> Any:
    """What the network is shown of a part of a batch."""
    if run.encode is not None:
        return run.encode(batch, part)
    return batch.images[part].to(device)


def make_optimiser(trainee: Trainee, scenario: str, settings: Settings) -> torch.optim.Optimizer:
    """Adam as the paper says, or AdamW; ``scale`` of a group stays with it."""
    groups = [
        {
            "params": list(group.parameters),
            "lr": settings.rate * group.scale,
            "scale": group.scale,
            "weight_decay": settings.weight_decay if group.decay else 0.0,
        }
        for group in trainee.groups(scenario)
    ]
    kind = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, lr=settings.rate)


def set_rates(
    optimiser: torch.optim.Optimizer, settings: Settings, progress: Progress, run: Run
) -> None:
    """The learning rates of the next step."""
    if settings.schedule == "steps":
        epoch = progress.step // run.samples.steps(settings)
        factor = settings.gamma ** sum(epoch >= milestone for milestone in settings.milestones)
    else:
        done = progress.step / run.steps
        if settings.max_minutes:
            done = max(done, progress.seconds / (60 * settings.max_minutes))
        factor = 0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1.0))) / 2
    for group in optimiser.param_groups:
        group["lr"] = settings.rate * group["scale"] * factor


def is_over(progress: Progress, run: Run) -> bool:
    """Whether all epochs are done, or all minutes spent."""
    minutes = run.settings.max_minutes
    return progress.step >= run.steps or bool(minutes and progress.seconds >= 60 * minutes)


def learned(trainee: Trainee, scenario: str) -> dict[str, Tensor]:
    """What changes in training, by name: parameters that learn, and the buffers beside them."""
    trains = trainee.scenarios[scenario].trains
    parameters = {n: p.data for n, p in trainee.net.named_parameters() if p.requires_grad}
    return parameters | {n: b for n, b in trainee.net.named_buffers() if trains(n)}


def trainable(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters that learn."""
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their values now, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


@torch.no_grad()
def put(tensors: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Set the tensors to ``values``, where there is one."""
    for name, value in values.items():
        tensors[name].copy_(value)


@torch.no_grad()
def follow(average: dict[str, Tensor], learning: dict[str, Tensor], decay: float) -> None:
    """Move the running average towards what is learned; whole numbers are taken over."""
    for name, value in average.items():
        if value.is_floating_point():
            value.lerp_(learning[name].cpu(), 1 - decay)
        else:
            value.copy_(learning[name])


@contextmanager
def swapped(learning: dict[str, Tensor], average: dict[str, Tensor]) -> Iterator[None]:
    """Within it, the running average is what the network has, if there is one."""
    own = copied(learning) if average else {}
    put(learning, average)
    yield
    put(learning, own)


def agreed(accelerator: Accelerator, seconds: float, stop: bool) -> tuple[float, bool]:
    """The same for all processes, whose clocks differ: the mean of the seconds, and whether any of
    them has to stop."""
    if accelerator.num_processes == 1:
        return seconds, stop
    both = torch.tensor([seconds, float(stop)], device=accelerator.device)
    total = accelerator.reduce(both, "sum")
    return float(total[0]) / accelerator.num_processes, bool(total[1] > 0)


def not_a_number(run: Run, batch: Batch, step: int) -> HistoclickError:
    """Keeps the batch for inspection."""
    path = run.folder / f"bad-batch-{step}.safetensors"
    save_file({"images": batch.images.numpy(), "targets": batch.targets.astype(np.uint8)}, path)
    return HistoclickError(
        f"the loss is no number at step {step}; the batch is in {path}: look at it, lower the "
        "rate, or use precision float32"
    )


@contextmanager
def out_of_memory_told() -> Iterator[None]:
    """Turns the ways in which memory ends into one sentence."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = str(error)
        if isinstance(error, RuntimeError) and not (
            "out of memory" in told or "can't allocate memory" in told
        ):
            raise
        raise HistoclickError(
            "out of memory; use a smaller --micro-batch (it changes batch norm only), "
            "--checkpointing, or --set precision=bfloat16"
        ) from error
