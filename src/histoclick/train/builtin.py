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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from histoclick.models.card import Card, read_card
from histoclick.models.denseclick.network import DenseClickNet, Pyramid
from histoclick.models.nets.mobilenet import calibrate
from histoclick.models.weights import read_state_dict, sha256, write_safetensors
from histoclick.patches import open_patch_set, read_image, read_labels
from histoclick.train import augment, objects
from histoclick.train.losses import dice_loss, normalized_focal_loss
from histoclick.train.trajectories import Trajectories
from histoclick.types import RGB8, Labels

Pairs = list[tuple[RGB8, Labels]]

CROP = 256
IMAGES, USERS = 6, 2  # crops per step, simulated users per crop
LONG_SIDE = (256, 640)  # px an image's longer side may be scaled to before cropping
MAX_CLICKS = 20
EMA = 0.998


@dataclass(frozen=True)
class Batch:
    """``images``: (IMAGES, 3, S, S) in [-1, 1]; ``targets``: (IMAGES * USERS, S, S) bool;
    ``start``: the same shape, the masks the users start from; ``clicks``: how many they make."""

    images: Tensor
    targets: NDArray[np.bool_]
    start: NDArray[np.bool_]
    clicks: int


def read_folders(folders: list[Path]) -> list[Pairs]:
    """All (image, label image) pairs, one list per patch-set folder."""
    return [
        [(read_image(patch.image), read_labels(patch.mask)) for patch in open_patch_set(folder)]
        for folder in folders
    ]


def draw(sets: list[Pairs], seed: int, step: int) -> Batch:
    """The batch of this step: a pure function of the data, the seed and the step."""
    rng = np.random.default_rng([seed, step])
    share = np.array([len(pairs) for pairs in sets]) ** 0.3  # small sets count for more
    crops: Pairs = []
    for index in rng.choice(len(sets), IMAGES, p=share / share.sum()):
        image, labels = sets[index][int(rng.integers(len(sets[index])))]
        side = float(np.exp(rng.uniform(*np.log(LONG_SIDE))))
        crops.append(augment.view(image, labels, CROP, side / max(labels.shape), rng))
    images, targets, start = [], [], []
    for i, (crop, labels) in enumerate(crops):
        image, pasted = crop, None
        if rng.random() < 0.2:
            pasted = objects.blob(CROP, rng)
            image = objects.paste(crop, crops[(i + 1) % IMAGES][0], pasted)
        for user in range(USERS):
            if pasted is not None:
                target = pasted if user == 0 else objects.choose(image, 0 * labels, rng)
            else:
                target = objects.choose(image, labels, rng)
            targets.append(target)
            wrong = rng.random() < 0.12
            start.append(objects.corrupt(target, rng) if wrong else np.zeros_like(target))
        images.append(augment.appearance(image, rng))
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    clicks = min(int(rng.geometric(0.3)), MAX_CLICKS)
    return Batch(to_input(stacked), np.stack(targets), np.stack(start), clicks)


def to_input(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 -> float32 in [-1, 1], channels last."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def batches(sets: list[Pairs], seed: int, first: int) -> Iterator[Batch]:
    """Batches from step ``first`` on, the next one prepared while the last one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(draw, sets, seed, first)
        while True:
            batch = coming.result()
            first += 1
            coming = pool.submit(draw, sets, seed, first)
            yield batch


def run_step(net: DenseClickNet, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Forward pass of one batch. Returns the loss and the mean IoU after the last click."""
    encoded = net.encode(batch.images)
    pyramid = Pyramid(*(features.repeat_interleave(USERS, 0) for features in encoded))
    users = Trajectories(batch.targets, rng)
    target = torch.from_numpy(batch.targets)[:, None].float()
    predicted = batch.start
    started = torch.from_numpy(predicted)[:, None].float()
    previous = F.avg_pool2d(started, 2)
    losses = []
    for click in range(batch.clicks):
        users.click(predicted)
        graded = click >= batch.clicks - 2
        with torch.set_grad_enabled(graded):
            features = pyramid if graded else Pyramid(*(f.detach() for f in pyramid))
            low = net.decode(features, users.tensor(), previous)
            logits = F.interpolate(low, scale_factor=2.0, mode="bilinear", align_corners=False)
            if graded:
                focal = normalized_focal_loss(logits, target, users.weights())
                losses.append((focal + 0.5 * dice_loss(logits, target)).mean())
        previous = torch.sigmoid(low.detach())
        if rng.random() < 0.05:
            previous = torch.zeros_like(previous)  # else the last mask is copied and clicks ignored
        predicted = (logits.detach()[:, 0] > 0).numpy()
    both = (predicted & batch.targets).sum((1, 2)) / (predicted | batch.targets).sum((1, 2))
    return torch.stack(losses).mean(), float(both.mean())


def parameter_groups(net: DenseClickNet, trunk_rate: float, rate: float) -> list[dict[str, object]]:
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
) -> bool:
    """Train for ``minutes`` in all, earlier runs into ``out`` included; at most ``session`` now.

    Begins with the ImageNet weights in ``trunk``, or with all those of the model folder ``start``,
    whose norms are folded and stay so. Returns whether the training is complete.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    sets = read_folders(folders)
    net = DenseClickNet(norm=start is None)
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
            net.load_state_dict(read_state_dict(start / "weights.safetensors"))
        if trunk is not None:
            folded = torch.load(trunk, weights_only=True, map_location="cpu")
            folded = {key: value for key, value in folded.items() if not key.startswith("head.")}
            images = torch.cat([draw(sets, seed + 1, i).images for i in range(4)])
            calibrate(net.trunk, folded, images)
        average = {key: value.clone() for key, value in net.state_dict().items()}
        step, spent = 0, 0.0
    began = saved = last = time.monotonic()
    with _open_log(out / "log.csv", step) as log:
        for batch in batches(sets, seed, step):
            set_rates(optimiser, step, spent / (60 * minutes))
            net.train()
            if spent > 0.85 * 60 * minutes:  # ends with the statistics it will be used with
                for unit in net.trunk.units():
                    unit.norm.eval()
            loss, iou = run_step(net, batch, np.random.default_rng([seed, step, 1]))
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
    net = DenseClickNet(norm=any(key.endswith("running_mean") for key in average))
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
    )
    if complete:
        export(options.out / "checkpoint.pt", options.card, read_card(options.card))


if __name__ == "__main__":
    main()
