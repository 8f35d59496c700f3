"""The loop that trains a built-in network: so many steps, or so many minutes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import Tensor, nn

from histoclick.models.denseclick.network import DenseClickNet
from histoclick.models.gatedclick.network import GatedClickNet
from histoclick.train.crops import Batch, batches
from histoclick.train.lessons import lesson
from histoclick.types import HistoclickError

EMA = 0.998
CHECKPOINT = "checkpoint.pt"
SAVE_EVERY_S = 60.0
Net = DenseClickNet | GatedClickNet


@dataclass(frozen=True)
class Budget:
    """When a training is over: after ``steps``, or where that is 0 after ``minutes``, earlier
    sessions included. ``session``: minutes of this one. Raises ``HistoclickError`` for neither."""

    minutes: float = 0.0
    steps: int = 0
    session: float = math.inf

    def __post_init__(self) -> None:
        if self.steps <= 0 and not self.minutes > 0:
            raise HistoclickError("a training needs an end: give steps or minutes above 0")

    def progress(self, step: int, spent: float) -> float:
        """What part of the training is done, after ``step`` steps and ``spent`` seconds; 1 or more
        when all is."""
        return step / self.steps if self.steps else spent / (60 * self.minutes)


def learn(
    net: Net,
    drawn: Callable[[int], Batch],
    out: Path,
    budget: Budget,
    *,
    seed: int,
    rate: float,
    begin: Callable[[], None],
) -> bool:
    """Train the parameters of ``net`` that ask for it, with the batches ``drawn`` of every step.

    ``begin`` fills a network that starts now; one whose checkpoint lies in ``out`` goes on with the
    same batches as if it had never stopped. ``rate``: of all but the trunk. Returns whether the
    training is complete. It runs where the network is.
    """
    device = next(net.parameters()).device
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(parameter_groups(net, 0.3 * rate, rate))
    checkpoint = out / CHECKPOINT
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, spent = state["average"], state["step"], state["spent"]
    else:
        begin()
        average = {key: value.clone() for key, value in net.state_dict().items()}
        step, spent = 0, 0.0
    if budget.progress(step, spent) >= 1:
        return True
    began = saved = last = time.monotonic()
    with _open_log(out / "log.csv", step) as log:
        for batch in batches(drawn, step):
            progress = budget.progress(step, spent)
            set_rates(optimiser, step, progress)
            net.train()
            if progress > 0.85:  # ends with the statistics it will be used with
                for unit in net.trunk.units():
                    unit.norm.eval()
            loss, iou = lesson(net, batch, np.random.default_rng([seed, step, 1]))
            if not torch.isfinite(loss):
                raise FloatingPointError(f"loss is {loss.item()} at step {step}")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            step += 1
            follow(average, net, min(EMA, (1 + step) / (10 + step)))
            now = time.monotonic()
            spent, last = spent + now - last, now
            log.write(f"{step},{spent / 60:.2f},{batch.clicks},{loss.item():.5f},{iou:.4f}\n")
            complete = budget.progress(step, spent) >= 1
            stop = complete or now - began >= 60 * budget.session
            if stop or now - saved >= SAVE_EVERY_S:
                state = {"net": net.state_dict(), "optimiser": optimiser.state_dict()}
                state |= {"average": average, "step": step, "spent": spent}
                torch.save(state, checkpoint.with_suffix(".partial"))
                checkpoint.with_suffix(".partial").replace(checkpoint)
                saved = now
            if stop:
                return complete
    raise AssertionError("batches never end")


def parameter_groups(net: Net, trunk_rate: float, rate: float) -> list[dict[str, object]]:
    """Trunk and rest, matrices with weight decay and the rest without; nothing frozen."""
    groups: list[dict[str, object]] = []
    learning = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
    for trunk in (True, False):
        chosen = [p for name, p in learning if name.startswith("trunk.") == trunk]
        full = trunk_rate if trunk else rate
        matrices = [p for p in chosen if p.ndim > 1]
        rest = [p for p in chosen if p.ndim <= 1]
        groups += [
            {"params": matrices, "weight_decay": 0.05, "lr": full, "full": full},
            {"params": rest, "weight_decay": 0.0, "lr": full, "full": full},
        ]
    return [group for group in groups if group["params"]]


def set_rates(optimiser: torch.optim.Optimizer, step: int, progress: float) -> None:
    """Learning rates: 100 steps of warm-up, then a cosine of ``progress`` (0..1) down to 1 %."""
    warm = min((step + 1) / 100, 1.0)
    cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    for group in optimiser.param_groups:
        group["lr"] = group["full"] * warm * cosine


@torch.no_grad()
def follow(average: dict[str, Tensor], net: nn.Module, decay: float) -> None:
    """Move the running average of the weights towards ``net``."""
    for key, value in net.state_dict().items():
        if value.is_floating_point():
            average[key].lerp_(value, 1 - decay)


def _open_log(path: Path, step: int) -> TextIO:
    """The CSV log, without lines of steps that will be done again."""
    lines = path.read_text().splitlines()[: step + 1] if path.exists() else []
    path.write_text("\n".join(lines or ["step,minutes,clicks,loss,iou"]) + "\n")
    return path.open("a", buffering=1)
