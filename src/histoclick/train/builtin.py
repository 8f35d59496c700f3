"""Train the built-in model: ``python -m histoclick.train.builtin --help``.

Each step draws a few crops, encodes them once, and lets several simulated users per crop click on
different targets for a random number of clicks. Gradients flow through the last two clicks and the
trunk. The learning rate follows a cosine of the *time spent*, so the run ends when its minutes are
over; it writes a checkpoint every minute and continues from it, with the same batches as if it had
never stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
import tomllib
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from histoclick.files import sha256
from histoclick.models.card import Card, check_architecture, read_card
from histoclick.models.denseclick.network import DenseClickNet
from histoclick.models.gatedclick.network import GatedClickNet
from histoclick.models.gatedclick.parts import ARCHITECTURES
from histoclick.models.nets.mobilenet import calibrate
from histoclick.models.weights import read_state_dict, write_safetensors
from histoclick.train.crops import STOP, batches, draw, read_folders
from histoclick.train.lessons import lesson

EMA = 0.998
DENSE = "mobilenetv2"  # the architecture of the first built-in model
Net = DenseClickNet | GatedClickNet


def parameter_groups(net: Net, trunk_rate: float, rate: float) -> list[dict[str, object]]:
    """Trunk and rest, matrices with weight decay and the rest without."""
    groups = []
    for trunk in (True, False):
        chosen = [p for name, p in net.named_parameters() if name.startswith("trunk.") == trunk]
        full = trunk_rate if trunk else rate
        matrices = [p for p in chosen if p.ndim > 1]
        rest = [p for p in chosen if p.ndim <= 1]
        groups += [
            {"params": matrices, "weight_decay": 0.05, "lr": full, "full": full},
            {"params": rest, "weight_decay": 0.0, "lr": full, "full": full},
        ]
    return groups


def train(
    folders: list[Path],
    out: Path,
    *,
    trunk: Path | None = None,
    start: Path | None = None,
    minutes: float,
    session: float = math.inf,
    seed: int = 0,
    rate: float = 1e-3,
    stop_chance: float = STOP,
    architecture: str = DENSE,
) -> bool:
    """Train for ``minutes`` in all, earlier runs into ``out`` included; at most ``session`` now.

    Begins with the ImageNet weights in ``trunk``, or with all those of the model folder ``start``,
    whose norms are folded and stay so. ``stop_chance``: that a click is the last one.
    ``architecture``: of the gated family, or ``DENSE``. Returns whether the training is complete.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    sets = read_folders(folders)
    net = build(architecture, norm=start is None)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(parameter_groups(net, 0.3 * rate, rate))
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, spent = state["average"], state["step"], state["spent"]
    else:
        if start is not None:
            take_over(net, start)
        if trunk is not None:
            folded = torch.load(trunk, weights_only=True, map_location="cpu")
            folded = {key: value for key, value in folded.items() if not key.startswith("head.")}
            images = torch.cat([draw(sets, seed + 1, i).images for i in range(4)])
            calibrate(net.trunk, folded, images)
        average = {key: value.clone() for key, value in net.state_dict().items()}
        step, spent = 0, 0.0
    began = saved = last = time.monotonic()
    with _open_log(out / "log.csv", step) as log:
        for batch in batches(sets, seed, step, stop_chance):
            set_rates(optimiser, step, spent / (60 * minutes))
            net.train()
            if spent > 0.85 * 60 * minutes:  # ends with the statistics it will be used with
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
            stop = spent >= 60 * minutes or now - began >= 60 * session
            if stop or now - saved >= 60:
                state = {"net": net.state_dict(), "optimiser": optimiser.state_dict()}
                state |= {"average": average, "step": step, "spent": spent}
                torch.save(state, checkpoint.with_suffix(".partial"))
                checkpoint.with_suffix(".partial").replace(checkpoint)
                saved = now
            if stop:
                break
    return bool(spent >= 60 * minutes)


def build(architecture: str, norm: bool) -> Net:
    """A network that knows nothing; ``norm`` as in ``MobileNetV2``."""
    if architecture == DENSE:
        return DenseClickNet(norm)
    check_architecture(architecture, ARCHITECTURES, "--architecture")
    return GatedClickNet(ARCHITECTURES[architecture], norm)


def take_over(net: Net, start: Path) -> None:
    """The weights of the model folder ``start``; what a gated network has beyond the first
    built-in one stays as it is."""
    weights = read_state_dict(start / "weights.safetensors")
    state = {key: value.float() for key, value in weights.items()}
    if isinstance(net, GatedClickNet) and read_card(start).family == "denseclick":
        own = net.state_dict()
        state = {key if key in own else f"decoder.{key}": value for key, value in state.items()}
        state = own | {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    net.load_state_dict(state)


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


def export(checkpoint: Path, folder: Path, card: Card) -> None:
    """Make a model folder of the averaged weights: norms folded, stored as 16-bit floats."""
    average = torch.load(checkpoint, weights_only=True)["average"]
    normed = any(key.endswith("running_mean") for key in average)
    net = build(card.architecture, normed)
    net.load_state_dict(average)
    net.eval().trunk.fold()
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.safetensors"
    write_safetensors({key: value.half() for key, value in net.state_dict().items()}, weights)
    parameters = sum(value.numel() for value in net.parameters())
    dataclasses.replace(card, sha256=sha256(weights), parameters=parameters).write(folder)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="patch-set folders")
    begin = parser.add_mutually_exclusive_group(required=True)
    begin.add_argument("--trunk", type=Path, help="begin with ImageNet weights, folded")
    begin.add_argument("--start", type=Path, help="begin with the weights of a model folder")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint and log")
    parser.add_argument("--card", type=Path, required=True, help="folder whose card.toml to use")
    parser.add_argument("--minutes", type=float, default=120, help="of training in all")
    parser.add_argument("--session", type=float, default=math.inf, help="minutes of this run")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--architecture", default=DENSE, help="of the network")
    parser.add_argument("--stop", type=float, default=STOP, help="chance of each click to be last")
    parser.add_argument("--settings", type=Path, help="TOML file with other defaults for these")
    if settings := parser.parse_known_args()[0].settings:
        parser.set_defaults(**tomllib.loads(settings.read_text(encoding="utf-8")))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    complete = train(
        options.data,
        options.out,
        trunk=options.trunk,
        start=options.start,
        minutes=options.minutes,
        session=options.session,
        seed=options.seed,
        rate=options.rate,
        stop_chance=options.stop,
        architecture=options.architecture,
    )
    if complete:
        export(options.out / "checkpoint.pt", options.card, read_card(options.card))


if __name__ == "__main__":
    main()
