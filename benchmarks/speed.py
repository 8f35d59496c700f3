"""Speed on this machine, each figure beside a plain baseline measured in the same run.

    python benchmarks/speed.py [--threads N] [--rounds N] [--out benchmarks/speed.md]

Peers are timed in turn, A B A B ..., so that a machine whose speed drifts treats them alike; quoted
are medians and the median of the pairwise ratios. SAM runs with random weights: speed does not
depend on what they say.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import families
import numpy as np
import scipy.ndimage
import torch
from transformers import SamModel

import histoclick
from histoclick import machine
from histoclick.clicks import next_click
from histoclick.datasets.demo import demo_samples
from histoclick.models import registry
from histoclick.models.sam.network import VARIANTS, assemble, build
from histoclick.models.sam.segmenter import SamSegmenter
from histoclick.trajectory import trajectory
from histoclick.types import Click, Prompt, Sample


class Row(NamedTuple):
    """One figure: what, unit, ours, the baseline and its name, baseline / ours."""

    what: str
    ours: float
    baseline: str
    theirs: float
    ratio: float


def compare(
    what: str, ours: Callable[[], object], baseline: str, theirs: Callable[[], object], rounds: int
) -> Row:
    """Time both in turn. Seconds."""
    pairs = []
    for _ in range(rounds + 1):  # the first round warms up
        pair = []
        for call in (ours, theirs):
            start = time.perf_counter()
            call()
            pair.append(time.perf_counter() - start)
        pairs.append(pair)
    mine, other = zip(*pairs[1:], strict=True)
    ratio = statistics.median(b / a for a, b in pairs[1:])
    return Row(what, statistics.median(mine), baseline, statistics.median(other), ratio)


def plain_clicker(truth: np.ndarray, predicted: np.ndarray) -> None:
    """The click rule in scipy, as one would write it down first."""
    for wrong in (truth & ~predicted, predicted & ~truth):
        scipy.ndimage.distance_transform_edt(np.pad(wrong, 1))[1:-1, 1:-1].argmax()


def sam_rows(sample: Sample, rounds: int) -> list[Row]:
    """Ours against plain transformers on the same weights; ViT-B."""
    torch.manual_seed(0)
    model: SamModel = build("vit_b").eval()
    plain = assemble(VARIANTS["vit_b"], fast=False).eval()
    plain.load_state_dict(model.state_dict())
    ours = SamSegmenter(model)
    encoded = ours.encode(sample.image)
    prompt = Prompt((Click(100, 100), Click(40, 300, positive=False)))
    first = ours.predict(encoded, Prompt(prompt.clicks[:1]))
    pixels = torch.rand(1, 3, 1024, 1024)
    points = torch.tensor([[[[256.0, 256.0], [102.0, 768.0]]]])
    labels = torch.tensor([[[1, 0]]])
    with torch.inference_mode():
        embedding = plain.get_image_embeddings(pixels)

    @torch.inference_mode()
    def plain_encode() -> object:
        return plain.get_image_embeddings(pixels)

    @torch.inference_mode()
    def plain_click() -> object:
        return plain(
            image_embeddings=embedding,
            input_points=points,
            input_labels=labels,
            multimask_output=False,
        )

    @torch.inference_mode()
    def plain_reencode() -> object:
        return plain(pixel_values=pixels, input_points=points, input_labels=labels)

    return [
        compare(
            "SAM ViT-B encode (resize, normalise, network)", lambda: ours.encode(sample.image),
            "transformers, network only", plain_encode, rounds,
        ),
        compare(
            "SAM ViT-B click (prompt, decoder, mask at image size)",
            lambda: ours.predict(encoded, prompt, first),
            "transformers decoder, no resize of the mask", plain_click, rounds,
        ),
        compare(
            "SAM ViT-B click", lambda: ours.predict(encoded, prompt, first),
            "transformers, image encoded at every click", plain_reencode, max(1, rounds // 3),
        ),
    ]  # fmt: skip


def built_in_rows(sample: Sample, rounds: int) -> list[Row]:
    """Our own models against SAM's ViT-B, on a trajectory's fifth click."""
    segmenter = SamSegmenter(build("vit_b").eval())
    embedded = segmenter.encode(sample.image)
    found = []
    for name in (registry.default_id(), "histoclick-tiny"):
        model = histoclick.load(name)
        *_, before, last = trajectory(model, sample, 5)
        prompt = Prompt((Click(100, 100), Click(40, 300, positive=False)))
        prompt = Prompt((*prompt.clicks, Click(200, 9), Click(9, 200), last.click))
        encoded = model.encode(sample.image)
        embedding = segmenter.predict(embedded, Prompt(prompt.clicks[:1]))
        found += [
            compare(
                f"{name} encode", functools.partial(model.encode, sample.image),
                "our SAM ViT-B encode", lambda: segmenter.encode(sample.image),
                max(2, rounds // 4),
            ),
            compare(
                f"{name} click",
                functools.partial(model.predict, encoded, prompt, before.prediction),
                "our SAM ViT-B click",
                functools.partial(segmenter.predict, embedded, prompt, embedding), rounds,
            ),
        ]  # fmt: skip
    return found


def rows(sample: Sample, rounds: int) -> list[Row]:
    """All figures on one phantom patch of 400x400 px."""
    tiny = histoclick.load()
    encoded = tiny.encode(sample.image)
    prompt = Prompt((Click(100, 100), Click(40, 300, positive=False)))
    first = tiny.predict(encoded, Prompt(prompt.clicks[:1]))
    steps = [step.prediction.mask for step in trajectory(tiny, sample, 10)]

    def clicker_alone() -> None:
        clicks: list[Click] = []
        for mask in steps:
            clicks.append(next_click(sample.mask, mask, clicks))

    def plain_alone() -> None:
        for mask in steps:
            plain_clicker(sample.mask, mask)

    sam = sam_rows(sample, max(2, rounds // 4))
    return [
        *built_in_rows(sample, rounds),
        compare(
            "simulated user, 10 clicks answered", clicker_alone,
            "the same rule in scipy", plain_alone, rounds,
        ),
        compare(
            "whole trajectory, 10 clicks (encode, predict, click)",
            lambda: list(trajectory(tiny, sample, 10)),
            "predict calls alone",
            lambda: [tiny.predict(encoded, prompt, first) for _ in range(10)], rounds,
        ),
        *sam,
        *family_rows(sample, max(4, rounds // 2)),
    ]  # fmt: skip


def family_rows(sample: Sample, rounds: int) -> list[Row]:
    """Families that run their whole network at every click."""
    return [compare(*pair, rounds) for pair in families.pairs(sample)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("speed.md"))
    parser.add_argument("--only-families", action="store_true", help="clicks of RITM and its kin")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sample = demo_samples(phantoms=1)[-1]
    only = options.only_families
    found = family_rows(sample, options.rounds) if only else rows(sample, options.rounds)
    facts = machine.describe()
    words = f"--threads {options.threads}" + (" --only-families" if only else "")
    lines = [
        "# Speed",
        "",
        f"`python benchmarks/speed.py {words}` on {facts['processor']}, "
        f"{facts['cores']} cores; {options.threads} thread(s); torch {facts['versions']['torch']}, "
        f"transformers {facts['versions']['transformers']}. 400x400 px patch, float32, batch 1. "
        "Medians; the ratio is the median of pairs measured in turn.",
        "",
        "| what | ours, ms | baseline | baseline, ms | baseline / ours |",
        "|---|---:|---|---:|---:|",
    ]
    lines += [
        f"| {row.what} | {1e3 * row.ours:.1f} | {row.baseline} | {1e3 * row.theirs:.1f} "
        f"| {row.ratio:.2f} |"
        for row in found
    ]
    if not only:
        whole = next(row for row in found if row.what.startswith("whole trajectory"))
        lines += ["", f"Clicks simulated per second, all included: {10 / whole.ours:.1f}."]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
