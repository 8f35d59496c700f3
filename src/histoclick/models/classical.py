"""Click segmentation before networks: GrabCut and the random walker.

GrabCut (Rother et al. 2004) is OpenCV's, the random walker (Grady 2006) scikit-image's. Both know
colours and neighbours and nothing about tissue. They work on a reduced image, and take a disc
around a click for certain: a few pixels say too little in an image that is all texture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import random_walker

from histoclick.geometry import Frame, fit
from histoclick.models.card import Card, check_architecture
from histoclick.models.prompts import check_image, check_prompt
from histoclick.types import RGB8, Click, Logits, Mask, Prediction, Prompt

Seeds = NDArray[np.int8]  # (h, w), 1: object, -1: background, 0: open

SIDE_PX = 256  # longest side of the reduced image
# Lengths that are fractions are of the image's shorter side.
CERTAIN = 0.08  # radius of the disc around a click that takes the click's sign
COLOURS = 5  # Gaussians in GrabCut's model of the colours of either side


@dataclass(frozen=True, slots=True)
class Reduced:
    """``image``: (h, w, 3) uint8 RGB, made small. ``shape``: (height, width) of the original."""

    image: RGB8
    shape: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the reduced image."""
        return self.image.shape[0], self.image.shape[1]

    @classmethod
    def of(cls, image: RGB8) -> Reduced:
        """``image`` with a longest side of at most ``SIDE_PX``."""
        check_image(image)
        shape = image.shape[0], image.shape[1]
        height, width = fit(*shape, min(SIDE_PX, max(shape)))
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return cls(np.asarray(small, np.uint8), shape)


class GrabCut:
    """A model of the colours of either side and the cheapest border between them, in turns.

    The discs around clicks are certain. The rest is a guess that may change: the previous mask, or
    without one all within ``reach`` of a positive click. Before, the image is blurred by ``blur``,
    which leaves the colours of tissues rather than those of nuclei.
    """

    def __init__(self, reach: float = 0.2, blur: float = 0.012, turns: int = 5) -> None:
        self._reach = reach
        self._blur = blur
        self._turns = turns

    def encode(self, image: RGB8) -> Reduced:
        """Reduce and blur. ``image``: (H, W, 3) uint8 RGB."""
        reduced = Reduced.of(image)
        blurred = cv2.GaussianBlur(reduced.image, (0, 0), self._blur * min(reduced.size))
        return Reduced(np.asarray(blurred, np.uint8), reduced.shape)

    def predict(
        self, encoded: Reduced, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        """Logits in -1..1, between them only at the border."""
        check_prompt(prompt, encoded.shape, boxes=False)
        seeds = _seeds(prompt, encoded)
        if previous is None:
            guess = _distance(seeds == 1) <= (self._reach - CERTAIN) * min(encoded.size)
        else:
            guess = _reduce_mask(previous, encoded)
        inside = ((seeds == 1) | guess) & (seeds != -1)
        if min(np.count_nonzero(inside), np.count_nonzero(~inside)) >= COLOURS:
            inside = self._cut(encoded.image, seeds, inside)
        return Prediction(_restore(np.where(inside, 1.0, -1.0), prompt, encoded))

    def _cut(self, image: RGB8, seeds: Seeds, guess: Mask) -> Mask:
        labels = np.where(guess, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        labels[seeds == 1] = cv2.GC_FGD
        labels[seeds == -1] = cv2.GC_BGD
        background, object_ = np.zeros((2, 1, 13 * COLOURS))
        cv2.setRNGSeed(0)  # the models start from random pixels
        cv2.grabCut(
            image, labels, (0, 0, 0, 0), background, object_, self._turns, cv2.GC_INIT_WITH_MASK
        )
        return np.asarray((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))


@dataclass(frozen=True, slots=True, eq=False)
class WalkerMemory:
    """``start``: (h, w) bool on the reduced image, a mask from elsewhere that came first."""

    start: Mask | None


class RandomWalker:
    """A pixel goes to the click that a walker who shuns edges would most likely reach first.

    The discs around clicks are the seeds. While no click is negative, the far part of the image's
    edge is background. A mask from elsewhere seeds both sides: what is farther than ``band`` from
    its border and farther than ``reach`` from clicks that contradict it. ``beta`` is Grady's: how
    much edges count.
    """

    def __init__(self, beta: float = 300.0, band: float = 0.03, reach: float = 0.2) -> None:
        self._beta = beta
        self._band = band
        self._reach = reach

    def encode(self, image: RGB8) -> Reduced:
        """Reduce. ``image``: (H, W, 3) uint8 RGB."""
        return Reduced.of(image)

    def predict(
        self, encoded: Reduced, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        """Logits in -1..1: twice the probability of the object, minus 1."""
        check_prompt(prompt, encoded.shape, boxes=False)
        memory = WalkerMemory(None)
        if previous is not None:
            memory = previous.memory or WalkerMemory(_reduce_mask(previous, encoded))
        seeds = _seeds(prompt, encoded)
        weak = self._weak_seeds(seeds, memory.start)
        field = self._walk(encoded.image, np.where(seeds == 0, weak, seeds))
        return Prediction(_restore(field, prompt, encoded), memory)

    def _weak_seeds(self, seeds: Seeds, start: Mask | None) -> Seeds:
        """Those that count where the clicks' are open."""
        weak = np.zeros_like(seeds)
        side = min(seeds.shape)
        if start is not None:
            for sign, part in ((1, start), (-1, ~start)):
                depth = _distance(~part)
                deep = depth > min(self._band * side, 0.5 * float(depth.max()))
                contradicted = _distance((seeds == -sign) & part) <= self._reach * side
                weak[deep & ~contradicted] = sign
        elif not (seeds == -1).any():
            edge = np.ones(seeds.shape, np.bool_)
            edge[1:-1, 1:-1] = False
            away = _distance(seeds == 1)
            weak[edge & (away > 0.8 * float(away[edge].max()))] = -1
        return weak

    def _walk(self, image: RGB8, seeds: Seeds) -> NDArray[np.float64]:
        """(h, w), -1..1."""
        if {-1, 0, 1} - set(np.unique(seeds)):  # nobody to walk, or only one side to come to
            return np.where(seeds == 0, 1.0 if (seeds == 1).any() else -1.0, seeds)
        lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        # Edges are measured in standard deviations. The channels' offsets change no edge, and keep
        # the deviation of an image without any above zero.
        colours = (lab - lab.mean((0, 1))) / max(float(lab.std()), 1e-3) + (-1, 0, 1)
        reached = random_walker(
            colours,
            np.where(seeds == -1, 2, seeds),
            beta=self._beta,
            mode="bf",  # direct: exact, and at this size faster than the iterative ones
            return_full_prob=True,
            channel_axis=-1,
        )
        return np.asarray(np.clip(2.0 * reached[0] - 1.0, -1.0, 1.0))  # the solver rounds


def _seeds(prompt: Prompt, encoded: Reduced) -> Seeds:
    """Discs around the clicks, smaller where a click of the other sign is near.

    They end half-way to it, so that discs of both signs do not meet.
    """
    frame = Frame.resized(*encoded.shape, *encoded.size)
    clicks = [frame.from_parent(click) for click in prompt.clicks]
    rows, columns = np.ogrid[: encoded.size[0], : encoded.size[1]]
    seeds = np.zeros(encoded.size, np.int8)
    for click in clicks:
        others = [other for other in clicks if other.positive != click.positive]
        gaps = [np.hypot(other.x - click.x, other.y - click.y) for other in others]
        radius = min([CERTAIN * min(encoded.size), *(0.5 * gap for gap in gaps)])
        near = np.hypot(columns - click.x, rows - click.y) <= radius
        near[_pixel(click, encoded.size)] = True
        seeds[near] = 1 if click.positive else -1
    return seeds


def _pixel(click: Click, size: tuple[int, int]) -> tuple[int, int]:
    """(row, column) on an image of ``size`` (height, width)."""
    y, x = round(click.y), round(click.x)
    return min(max(y, 0), size[0] - 1), min(max(x, 0), size[1] - 1)


def _distance(mask: Mask) -> NDArray[np.float32]:
    """(h, w) float32: how far, in px, the next pixel of ``mask`` is; infinity where it is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    away = (~mask).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def _reduce_mask(previous: Prediction, encoded: Reduced) -> Mask:
    if previous.logits.shape != encoded.shape:
        raise ValueError(
            f"the previous mask is {previous.logits.shape} and the image {encoded.shape}; give a "
            "mask of the image's size"
        )
    share = cv2.resize(
        previous.mask.astype(np.float32), encoded.size[::-1], interpolation=cv2.INTER_AREA
    )
    return np.asarray(share > 0.5)


def _restore(field: NDArray[np.float64], prompt: Prompt, encoded: Reduced) -> Logits:
    """A field of -1..1 on the reduced image to the image; clicked pixels have their sign."""
    height, width = encoded.shape
    large = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
    logits = np.asarray(large, np.float32)
    for click in prompt.clicks:
        logits[_pixel(click, encoded.shape)] = 1 if click.positive else -1
    return logits


ARCHITECTURES: dict[str, type[GrabCut] | type[RandomWalker]] = {
    "grabcut": GrabCut,
    "random-walker": RandomWalker,
}


def load(card: Card, folder: Path, device: str) -> GrabCut | RandomWalker:
    """Build the method a card names; there is nothing to read and no device to use."""
    check_architecture(card.architecture, ARCHITECTURES, str(folder))
    return ARCHITECTURES[card.architecture]()
