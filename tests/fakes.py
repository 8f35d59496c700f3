"""A tiny world for tests: discs as tissue, and a segmenter that answers clicks with discs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from histoclick.types import RGB8, Prediction, Prompt, Sample


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


class FakeSegmenter:
    """Discs of radius 8 around positive clicks minus discs of 4 around negative ones; its memory
    counts the predictions before, and it refuses a memory that does not fit its prompt."""

    def encode(self, image: RGB8) -> FakeEncoded:
        return FakeEncoded(image.shape[:2])

    def predict(
        self, encoded: FakeEncoded, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        seen = 0 if previous is None else previous.memory
        assert seen == len(prompt.clicks) - 1, "the previous prediction is not the one before"
        logits = np.full(encoded.shape, -1, np.float32)
        for click in prompt.clicks:
            radius = 8 if click.positive else 4
            near = disc(encoded.shape[0], click.x, click.y, radius)
            logits[near] = 1 if click.positive else -1
        return Prediction(logits, memory=seen + 1)
