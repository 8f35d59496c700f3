"""Baselines without weights. A model that does not beat them has learned nothing about tissue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from histoclick.models.card import Card
from histoclick.models.prompts import check_image, check_prompt
from histoclick.types import RGB8, HistoclickError, Prediction, Prompt

FAR = 1e9


@dataclass(frozen=True, slots=True)
class Picture:
    """What a baseline keeps of an image: (H, W, 3) float32 blurred CIELAB."""

    lab: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.lab.shape[0], self.lab.shape[1]


class Discs:
    """A disc of ``radius`` px around every positive click; where a negative click is nearer than
    any positive one, background. Never looks at the image."""

    def __init__(self, radius: float = 60.0) -> None:
        self._radius = radius

    def encode(self, image: RGB8) -> Picture:
        """Only the size is used."""
        check_image(image)
        return Picture(np.broadcast_to(np.float32(0), image.shape))

    def predict(
        self, encoded: Picture, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        """Logits in px: how far inside the nearest disc."""
        check_prompt(prompt, encoded.shape, boxes=False)
        inside = np.full(encoded.shape, FAR, np.float32)
        outside = np.full(encoded.shape, FAR, np.float32)
        ys, xs = np.ogrid[: encoded.shape[0], : encoded.shape[1]]
        for click in prompt.clicks:
            distance = np.hypot(xs - click.x, ys - click.y).astype(np.float32)
            nearest = inside if click.positive else outside
            np.minimum(nearest, distance, out=nearest)
        return Prediction(np.minimum(self._radius - inside, outside - inside))


class NearestColour:
    """Every pixel takes the sign of the click whose colour is most like its own.

    Colours are CIELAB after a Gaussian blur of 2 px. While all clicks have one sign there is
    nothing to compare with; then what differs by less than ``tolerance`` (Delta E) is the object.
    """

    def __init__(self, tolerance: float = 15.0) -> None:
        self._tolerance = tolerance

    def encode(self, image: RGB8) -> Picture:
        """Blur and convert. ``image``: (H, W, 3) uint8 RGB."""
        check_image(image)
        blurred = cv2.GaussianBlur(image.astype(np.float32) / 255, (0, 0), 2.0)
        return Picture(np.asarray(cv2.cvtColor(blurred, cv2.COLOR_RGB2LAB), np.float32))

    def predict(
        self, encoded: Picture, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        """Logits in Delta E: how much nearer a positive colour is than a negative one."""
        check_prompt(prompt, encoded.shape, boxes=False)
        positive = np.full(encoded.shape, FAR, np.float32)
        negative = np.full(encoded.shape, FAR, np.float32)
        height, width = encoded.shape
        for click in prompt.clicks:
            y, x = min(max(round(click.y), 0), height - 1), min(max(round(click.x), 0), width - 1)
            difference = encoded.lab - encoded.lab[y, x]
            distance = np.sqrt(np.einsum("hwc,hwc->hw", difference, difference))
            nearest = positive if click.positive else negative
            np.minimum(nearest, distance, out=nearest)
        if all(click.positive for click in prompt.clicks):
            negative[:] = self._tolerance
        return Prediction(negative - positive)


ARCHITECTURES: dict[str, type[Discs] | type[NearestColour]] = {
    "discs": Discs,
    "nearest-colour": NearestColour,
}


def load(card: Card, folder: Path, device: str) -> Discs | NearestColour:
    """Build the baseline a card names; ``folder`` and ``device`` are not needed."""
    if card.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise HistoclickError(f"unknown baseline '{card.architecture}'; known: {known}")
    return ARCHITECTURES[card.architecture]()
