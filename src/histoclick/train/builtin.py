"""Train the built-in model: ``python -m histoclick.train.builtin --help``.

Each step draws a few crops, encodes them once, and lets several simulated users per crop click on
different targets for a random number of clicks. Gradients flow through the last two clicks and the
trunk. The learning rate follows a cosine of what is done, in steps or in the *time spent*; a
checkpoint is written every minute, and who continues from it sees the same batches as if the
training had never stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tomllib
from pathlib import Path

import cv2
import torch

from histoclick.files import sha256
from histoclick.models.card import Card, check_architecture, read_card
from histoclick.models.denseclick.network import DenseClickNet
from histoclick.models.gatedclick.network import GatedClickNet
from histoclick.models.gatedclick.parts import ARCHITECTURES
from histoclick.models.nets.mobilenet import calibrate
from histoclick.models.weights import read_state_dict, write_safetensors
from histoclick.train.course import CHECKPOINT, Budget, Net, learn
from histoclick.train.crops import RECIPE, Recipe, draw, read_folders
from histoclick.types import HistoclickError

DENSE = "mobilenetv2"  # the architecture of the first built-in model


def train(
    folders: list[Path],
    out: Path,
    budget: Budget,
    *,
    trunk: Path | None = None,
    start: Path | None = None,
    seed: int = 0,
    rate: float = 1e-3,
    recipe: Recipe = RECIPE,
    architecture: str = DENSE,
    device: str = "cpu",
) -> bool:
    """Train as long as ``budget`` says; returns whether the training is complete.

    Begins with the ImageNet weights in ``trunk``, with all those of the model folder ``start``,
    whose norms are folded and stay so, or with random ones. ``architecture``: of the gated family,
    or ``DENSE``. ``device``: as PyTorch names them; batches are drawn on the processor anyway.
    Raises ``HistoclickError`` for a device that cannot be used.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise HistoclickError(f"device '{device}' cannot be used here; try cpu or cuda") from None
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    sets = read_folders(folders)
    net = build(architecture, norm=start is None).to(device)

    def begin() -> None:
        if start is not None:
            take_over(net, start)
        if trunk is not None:
            images = torch.cat([draw(sets, seed + 1, i, recipe).images for i in range(4)])
            calibrate(net.trunk, read_trunk(trunk), images.to(device))

    return learn(
        net, lambda step: draw(sets, seed, step, recipe), out, budget,
        seed=seed, rate=rate, begin=begin,
    )  # fmt: skip


def read_trunk(file: Path) -> dict[str, torch.Tensor]:
    """Weights and biases of a folded trunk in the order of computation. Raises ``HistoclickError``
    for what is no weight file."""
    folded = read_state_dict(file)
    return {key: value.float() for key, value in folded.items() if not key.startswith("head.")}


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


def export(checkpoint: Path, folder: Path, card: Card) -> None:
    """Make a model folder of the averaged weights: norms folded, stored as 16-bit floats."""
    average = torch.load(checkpoint, weights_only=True, map_location="cpu")["average"]
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
    begin.add_argument("--random", action="store_true", help="begin with random weights")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint and log")
    parser.add_argument("--card", type=Path, required=True, help="folder whose card.toml to use")
    parser.add_argument("--minutes", type=float, default=120, help="of training in all")
    parser.add_argument("--steps", type=int, default=0, help="of training in all, not minutes")
    parser.add_argument("--session", type=float, default=math.inf, help="minutes of this run")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="as PyTorch names them: cpu, cuda, mps")
    parser.add_argument("--architecture", default=DENSE, help="of the network")
    parser.add_argument(
        "--stop", type=float, default=RECIPE.stop, help="chance of each click to be last"
    )
    parser.add_argument(
        "--clicks", type=int, default=RECIPE.most_clicks, help="the most a user makes"
    )
    parser.add_argument("--images", type=int, default=RECIPE.images, help="crops per step")
    parser.add_argument("--users", type=int, default=RECIPE.users, help="of every crop")
    parser.add_argument("--crop", type=int, default=RECIPE.crop, help="side of crops, px")
    parser.add_argument("--settings", type=Path, help="TOML file with other defaults for these")
    if settings := parser.parse_known_args()[0].settings:
        parser.set_defaults(**tomllib.loads(settings.read_text(encoding="utf-8")))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    complete = train(
        options.data,
        options.out,
        Budget(options.minutes, options.steps, options.session),
        trunk=options.trunk,
        start=options.start,
        seed=options.seed,
        rate=options.rate,
        recipe=dataclasses.replace(
            RECIPE,
            crop=options.crop,
            images=options.images,
            users=options.users,
            stop=options.stop,
            most_clicks=options.clicks,
        ),
        architecture=options.architecture,
        device=options.device,
    )
    if complete:
        export(options.out / CHECKPOINT, options.card, read_card(options.card))


if __name__ == "__main__":
    main()
