"""Models for sessions that need no network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from histoclick.geometry import Rect
from histoclick.slides import Slide
from histoclick.types import Prediction, Prompt, Segmenter


@dataclass
class Reading:
    """A segmenter that looks at a slide, as the server lets it."""

    slide: Slide
    segmenter: Segmenter
    window_px: int = 448
    model: str = "m@1"
    boxes: bool = False

    def encode(self, rect0: Rect, width: int, height: int) -> Any:
        return self.segmenter.encode(self.slide.read(rect0, width, height))

    def predict(self, encoded: Any, prompt: Prompt, previous: Prediction | None) -> Prediction:
        return self.segmenter.predict(encoded, prompt, previous)


@dataclass
class Knowing:
    """Answers with what ``truth(x, y)`` says of level 0, and remembers all it was asked.

    ``noise``: px at the border of a window where the answer is wrong, as a model's is that cannot
    see beyond.
    """

    truth: Callable[[Any, Any], Any]
    window_px: int = 64
    model: str = "m@1"
    boxes: bool = False
    noise: int = 0
    asked: list[tuple[Rect, Prompt, Prediction | None]] = field(default_factory=list)

    def encode(self, rect0: Rect, width: int, height: int) -> tuple[Rect, int, int]:
        return rect0, width, height

    def predict(
        self, encoded: tuple[Rect, int, int], prompt: Prompt, previous: Prediction | None
    ) -> Prediction:
        rect0, width, height = encoded
        self.asked.append((rect0, prompt, previous))
        y, x = np.mgrid[:height, :width] + 0.5
        x = rect0.x0 + x * rect0.width / width
        y = rect0.y0 + y * rect0.height / height
        logits = np.where(self.truth(x, y), np.float32(5), np.float32(-5))
        if self.noise:
            inner = np.zeros(logits.shape, bool)
            inner[self.noise : -self.noise, self.noise : -self.noise] = True
            logits = np.where(inner, logits, -logits)
        depth = 1 if previous is None or previous.memory is None else previous.memory + 1
        return Prediction(logits.astype(np.float32), depth, 0.9)
