"""Seconds per click of the families that run their whole network at every click.

Ours is what ``registry.load`` gives; beside it stands the same predictor around the network as it
was published: batch norms not folded, the layout PyTorch starts with, attention as softmax and two
matrix products. Both have the same random weights.
"""

from __future__ import annotations

import copy
import importlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel

from histoclick.models import registry
from histoclick.models.weights import read_state_dict
from histoclick.types import Click, Prompt, Sample

MEMBERS = (
    ("ritm", "hrnet18s"),
    ("ritm", "hrnet32"),
    ("focalclick", "segformerB0_S1"),
    ("focalclick", "hrnet18s_S2"),
    ("focalclick", "segformerB3_S2"),
    ("simpleclick", "xtiny448"),
    ("simpleclick", "base448"),
)
Pair = tuple[str, Callable[[], object], str, Callable[[], object]]


def pairs(sample: Sample) -> Iterator[Pair]:
    """The second click on ``sample``: what is timed, ours, the baseline's name, the baseline."""
    for family, architecture in MEMBERS:
        with tempfile.TemporaryDirectory() as folder:
            made = registry.with_random_weights(family, architecture, Path(folder) / architecture)
            ours: Any = registry.load(made)
            network = importlib.import_module(f"histoclick.models.{family}.network")
            state = read_state_dict(made / "weights.safetensors")
            plain = copy.copy(ours)
            plain.net = network.build(architecture, state).eval()
        yield (
            f"{family} {architecture}, click",
            click(ours, sample),
            "the network as published",
            unfused(click(plain, sample)),
        )


def click(segmenter: Any, sample: Sample) -> Callable[[], object]:
    """The second click, ready to be made any number of times."""
    prompt = Prompt((Click(100, 100), Click(40, 300, positive=False)))
    encoded = segmenter.encode(sample.image)
    first = segmenter.predict(encoded, Prompt(prompt.clicks[:1]))
    return lambda: segmenter.predict(encoded, prompt, first)


def unfused(call: Callable[[], object]) -> Callable[[], object]:
    """The same with attention as its formula says."""

    def plainly() -> object:
        with sdpa_kernel(SDPBackend.MATH):
            return call()

    return plainly
