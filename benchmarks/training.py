"""Training: patches per second and peak memory of every scenario, beside a plain loop.

    python benchmarks/training.py --report benchmarks/training.md

The plain loop shows the same network fixed tensors: it encodes, answers two clicks without gradient
and a third with it, takes the loss and steps Adam. Ours does what ``histoclick train`` does, with
drawn crops, augmentation, simulated users and log. Each is run in a process of its own, in turn.
What keeping a frozen encoder's answers gains is ours with them over ours without; the decoder
behind ViT-B is the one behind MobileSAM's encoder, so its gain is taken from that one's steps.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from histoclick.datasets.phantom import phantom_patch
from histoclick.machine import describe
from histoclick.models import registry
from histoclick.models.sam import network
from histoclick.train.d4 import VIEWS
from histoclick.train.embeddings import embed
from histoclick.train.families import start
from histoclick.train.grading import detached
from histoclick.train.loop import Run, fit
from histoclick.train.points import first_points
from histoclick.train.samples import Samples
from histoclick.train.settings import Machine, Settings, read_settings
from histoclick.train.trainee import Trainee

MEMBERS = (
    ("denseclick", "", "whole", False),
    ("ritm", "hrnet18s", "whole", False),
    ("focalclick", "segformerB0_S2", "whole", False),
    ("simpleclick", "xtiny448", "whole", False),
    ("sam", "vit_t", "md", True),
    ("sam", "vit_t", "md", False),
    ("sam", "vit_t", "ie-md", False),
    ("sam", "vit_t", "whole", False),
    ("sam", "vit_t", "refine", True),
    ("sam", "vit_t", "refine", False),
    ("sam", "vit_b", "md", False),
)
STEPS, BATCH = 2, 2
EPOCHS = 30
SEED = 94  # with which all users click twice before the graded click, as in the plain loop


def one(kind: str, family: str, architecture: str, scenario: str, stored: bool) -> None:
    """A child: prints patches per second and peak memory in MB."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "base"
        if architecture:
            registry.with_random_weights(family, architecture, model)
        card, folder = registry.find(model if architecture else "histoclick-tiny")
        settings = read_settings(epochs=STEPS + 1, batch=BATCH, next_clicks=2, seed=SEED)
        trainee = start(card, folder, scenario, settings.crop_px)
        samples = Samples(tuple(map(phantom_patch, range(BATCH))), ("phantom",), frozenset(), "")
        run = ours if kind == "ours" else plain
        seconds = run(trainee, scenario, samples, settings, Path(place), stored)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([BATCH / seconds, peak]))


def attention(kind: str) -> None:
    """A child: seconds and peak memory in MB of the paper's self-attention over 64x64 places of two
    images, forward and backward; ``math``: with the scores written down."""
    torch.set_num_threads(1)
    decoder = network.assemble(network.VARIANTS["vit_t"], refine=True).mask_decoder
    maps, where = torch.randn(2, 256, 64, 64, requires_grad=True), torch.randn(1, 256, 64, 64)
    kernels = [SDPBackend.MATH] if kind == "math" else [SDPBackend.FLASH_ATTENTION]
    seconds = []
    for _ in range(4):
        begin = time.perf_counter()
        with sdpa_kernel(kernels):
            decoder.attention(maps, where).sum().backward()
        seconds.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([statistics.median(seconds[1:]), peak]))


def ours(
    trainee: Trainee,
    scenario: str,
    samples: Samples,
    settings: Settings,
    place: Path,
    stored: bool,
) -> float:
    """Seconds per step, after the first."""
    side = settings.crop_px
    encode = embed(trainee, samples, place / "e", side_px=side, weights="") if stored else None
    ends = []
    run = Run(trainee, scenario, samples, settings, Machine(), place, {}, None, encode)
    fit(run, seen=lambda progress, loss: ends.append(time.perf_counter()))
    return statistics.median(np.diff(ends))


def plain(
    trainee: Trainee,
    scenario: str,
    samples: Samples,
    settings: Settings,
    place: Path,
    stored: bool,
) -> float:
    """Seconds per step, after the first."""
    trainee.freeze(scenario)
    parameters = [p for group in trainee.groups(scenario) for p in group.parameters]
    optimiser = torch.optim.Adam(parameters, 1e-4)
    batch = samples.batch(settings, 0, plain=True)
    points = first_points(batch.targets, batch.rngs, 24)
    targets = torch.from_numpy(batch.targets)[:, None].float()
    frozen = trainee.scenarios[scenario].frozen_encoder
    if stored:
        with torch.no_grad():
            kept = trainee.encode(batch.images)
    seconds = []
    for _ in range(STEPS + 1):
        begin = time.perf_counter()
        trainee.train(scenario)
        with torch.set_grad_enabled(not frozen):
            encoded = kept if stored else trainee.encode(batch.images)
        previous = None
        with torch.no_grad():
            for _ in range(2):
                previous = trainee.answer(detached(encoded), points, previous)
        answer = trainee.answer(encoded, points, previous)
        loss = trainee.loss(answer, targets, batch.rngs).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def measured(*words: str) -> list[float]:
    """What a child prints at its end."""
    command = [sys.executable, __file__, "--child", *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def gains(speeds: dict[tuple[str, str, bool], float]) -> list[str]:
    """What keeping the encoder's answers gains, one sentence a line."""
    lines = []
    for architecture, scenario in (("vit_t", "md"), ("vit_b", "md"), ("vit_t", "refine")):
        kept = 1 / speeds["vit_t", scenario, True]
        again = 1 / speeds[architecture, scenario, False]
        whole = VIEWS * (again - kept) + EPOCHS * kept
        lines.append(
            f"`{scenario}` of {architecture} with its encoder's answers kept: a step is "
            f"{again / kept:.1f} times as fast as with encoding each time. All {EPOCHS} epochs of "
            f"the paper, with making the {VIEWS} views of every patch before them, are "
            f"{EPOCHS * again / whole:.1f} times as fast.\n"
        )
    return lines


def main() -> None:
    """Every member, ours and plain in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--child", nargs=5)
    options = parser.parse_args()
    if options.child:
        kind, family, architecture, scenario, stored = options.child
        if family == "attention":
            attention(kind)
            return
        one(kind, family, architecture, scenario, stored == "True")
        return
    lines = [
        "| model | scenario | encoder's answers kept | ours, patches/s | plain loop, patches/s "
        "| ratio | our peak memory, MB | plain, MB |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    speeds: dict[tuple[str, str, bool], float] = {}
    for member in MEMBERS:
        found: dict[str, list[list[float]]] = {"ours": [], "plain": []}
        for _ in range(options.rounds):
            for kind, results in found.items():
                results.append(measured(kind, *map(str, member)))
        (a, memory), (b, other) = (np.median(found[kind], axis=0) for kind in ("ours", "plain"))
        ratio = statistics.median(
            x[0] / y[0] for x, y in zip(found["ours"], found["plain"], strict=True)
        )
        family, architecture, scenario, stored = member
        speeds[architecture, scenario, stored] = a
        name = f"{family} {architecture}".strip()
        lines.append(
            f"| {name} | {scenario} | {'yes' if stored else 'no'} | {a:.3f} "
            f"| {b:.3f} | {ratio:.2f} | {memory:.0f} | {other:.0f} |"
        )
        print(lines[-1], flush=True)
    (fused, small), (spelled, large) = (
        measured(kind, "attention", "", "", "") for kind in ("fused", "math")
    )
    told = (
        "The self-attention of the paper's decoder over 64x64 places, two images, forward and "
        f"backward: fused {fused:.2f} s and {small:.0f} MB for the process, with the scores "
        f"written down {spelled:.2f} s and {large:.0f} MB."
    )
    text = (
        f"# Training\n\nSteps of {BATCH} patches of 400 px with two clicks before the graded one, "
        f"one thread, {options.rounds} "
        f"round(s) in turn, medians: see [training.py](training.py). "
        f"{describe().get('processor', '')}, busy with other work.\n\n"
    ) + "\n".join([*lines, "", *gains(speeds), told])
    if options.report:
        options.report.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
