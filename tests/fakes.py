"""A tiny world for tests: discs as tissue, and a segmenter that answers clicks with discs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from histoclick.types import (
    RGB8,
    HistoclickError,
    Logits,
    Prediction,
    Prompt,
    Sample,
    Segmenter,
)


def disc(size: int, x: float, y: float, radius: float) -> np.ndarray:
    """(size, size) bool."""
    ys, xs = np.ogrid[:size, :size]
    return (xs - x) ** 2 + (ys - y) ** 2 <= radius**2


def make_samples(count: int, size: int = 64) -> list[Sample]:
    """Dark discs on a light ground; two samples share a slide."""
    rng = np.random.default_rng(7)
    samples = []
    for i in range(count):
        mask = disc(size, *rng.uniform(size * 0.3, size * 0.7, 2), rng.uniform(10, 20))
        image = np.where(mask[..., None], (120, 60, 140), (235, 200, 220)).astype(np.uint8)
        samples.append(Sample(f"p{i:02d}", image, mask, f"slide{i // 2}"))
    return samples


@dataclass(frozen=True)
class FakeEncoded:
    shape: tuple[int, int]


@dataclass(frozen=True)
class FakeMemory:
    """``seen``: predictions before. ``base``: logits of the mask from elsewhere, if any."""

    seen: int
    base: Logits


class FakeSegmenter:
    """Discs of radius 8 around positive clicks minus discs of 4 around negative ones, on top of the
    mask it started from. It refuses a memory that does not fit its prompt."""

    def encode(self, image: RGB8) -> FakeEncoded:
        return FakeEncoded(image.shape[:2])

    def predict(
        self, encoded: FakeEncoded, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        if previous is None:
            memory = FakeMemory(0, np.full(encoded.shape, -1, np.float32))
        elif previous.memory is None:
            memory = FakeMemory(0, previous.logits)
        else:
            memory = previous.memory
        assert memory.seen == len(prompt.clicks) - 1, (
            "the previous prediction is not the one before"
        )
        logits = memory.base.copy()
        for click in prompt.clicks:
            radius = 8 if click.positive else 4
            near = disc(encoded.shape[0], click.x, click.y, radius)
            logits[near] = 1 if click.positive else -1
        return Prediction(logits, FakeMemory(memory.seen + 1, memory.base))


class BatchFake(FakeSegmenter):
    """Its twin that answers many users at once; ``sizes`` tells how many each time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def encode_batch(self, images: Sequence[RGB8]) -> list[FakeEncoded]:
        return [self.encode(image) for image in images]

    def predict_batch(
        self,
        encoded: Sequence[FakeEncoded],
        prompts: Sequence[Prompt],
        previous: Sequence[Prediction | None],
    ) -> list[Prediction]:
        self.sizes.append(len(prompts))
        return [self.predict(*user) for user in zip(encoded, prompts, previous, strict=True)]


# What workers of a crew are given to do; they find these by name.


def slow_process_of(segmenter: Segmenter, item: int) -> tuple[int, int]:
    """The same, slowly enough that another worker gets some."""
    time.sleep(0.25)
    return process_of(segmenter, item)


def process_of(_: Segmenter, item: int) -> tuple[int, int]:
    return item, os.getpid()


def die_at_three(_: Segmenter, item: int) -> int:
    if item == 3:
        os._exit(7)
    return item


def refuse_three(_: Segmenter, item: int) -> int:
    if item == 3:
        raise ValueError("no threes")
    return item


def large_answer(_: Segmenter, item: int) -> np.ndarray:
    """Larger than any pipe: to be sent in parts."""
    return np.full((1500, 1500), item)


def no_segmenter() -> FakeSegmenter:
    raise HistoclickError("model.safetensors: damaged; import it again")
