"""Simulated users: where the next click goes.

``next_click`` is the deterministic user of the paper's evaluation (Xu et al. 2016, as the RITM line
of code implements it); ``sample_click`` is the random one that training uses. ``SimulatedUser`` is
either of them with a more or less steady hand, as an evaluation names it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from histoclick.types import Click, HistoclickError, Mask

SquaredDistances = NDArray[np.int64]

RULES = {
    "deepest": "deepest point of the larger error (Xu et al. 2016)",
    "inner": "anywhere at least half as deep in the larger error as its deepest point",
    "random": "anywhere in the larger error",
}
_DEPTHS = {"inner": 0.5, "random": 0.0}


@dataclass(frozen=True, slots=True)
class SimulatedUser:
    """Who clicks in an evaluation.

    ``rule``: a key of ``RULES``. ``jitter_px``: standard deviation of the Gaussian that shakes the
    hand, in px of the image; the click keeps the sign it was meant to have, so near an outline it
    may be wrong, as real ones are. Every click is a function of ``seed``, the patch and its number:
    neither the order of patches nor who evaluates them matters.
    """

    rule: str = "deepest"
    jitter_px: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise HistoclickError(f"unknown click rule '{self.rule}'; known: {', '.join(RULES)}")
        if not 0 <= self.jitter_px < float("inf"):
            raise HistoclickError(f"a jitter of {self.jitter_px} px; give 0 or more")
        if self.seed < 0:
            raise HistoclickError(f"the seed is {self.seed}; give 0 or more")

    @property
    def described(self) -> str:
        """The rule in words, with everything that decides about the clicks."""
        words = RULES[self.rule]
        if self.jitter_px:
            words += f", by a hand that shakes by {self.jitter_px:g} px"
        chance = self.jitter_px or self.rule in _DEPTHS
        return f"{words}; seed {self.seed}" if chance else words

    def click(self, patch: str, truth: Mask, predicted: Mask, clicked: tuple[Click, ...]) -> Click:
        """The click after ``clicked`` that answers ``predicted``; masks are (H, W) bool."""
        rng = np.random.default_rng([self.seed, zlib.crc32(patch.encode()), len(clicked)])
        click = None
        if self.rule in _DEPTHS:
            click = sample_click(truth, predicted, rng, depth=_DEPTHS[self.rule], clicked=clicked)
        if click is None:
            click = next_click(truth, predicted, clicked)
        if not self.jitter_px:
            return click
        height, width = truth.shape
        x, y = np.rint(rng.normal((click.x, click.y), self.jitter_px)).astype(int)
        return Click(int(np.clip(x, 0, width - 1)), int(np.clip(y, 0, height - 1)), click.positive)


def inner_distance_squared(region: Mask) -> SquaredDistances:
    """Exact squared Euclidean distance of every pixel to the outside of ``region``.

    ``region``: (H, W) bool. Returns (H, W) int64 in px^2, 0 outside. What lies beyond the image
    counts as outside, so objects cut by the border are not clicked on the border.

    Squared, because it is a whole number: OpenCV's roots differ in the last bit with the alignment
    of the buffer, which would let equally deep pixels win or lose by chance.
    """
    padded = cv2.copyMakeBorder(region.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return np.rint(np.square(distance, dtype=np.float64)).astype(np.int64)


def next_click(
    truth: Mask, predicted: Mask, clicked: Iterable[Click] = (), ignore: Mask | None = None
) -> Click:
    """The click that answers ``predicted``: where the larger error is deepest.

    False negatives ask for a positive click, false positives for a negative one; on equal depth
    the click is negative. Ties go to the first pixel in raster order. Pixels in ``clicked`` are not
    clicked again. Where no error is left the answer is a negative click at (0, 0).

    ``truth``, ``predicted``: (H, W) bool. ``ignore``: (H, W) bool, pixels that are never an error.
    Returns a click with integer coordinates.
    """
    missed, false = _errors(truth, predicted, ignore)
    for click in clicked:
        missed[int(click.y), int(click.x)] = false[int(click.y), int(click.x)] = 0
    positive = bool(missed.max() > false.max())
    depth = missed if positive else false
    y, x = divmod(int(depth.argmax()), depth.shape[1])
    return Click(x, y, positive)


def sample_click(
    truth: Mask,
    predicted: Mask,
    rng: np.random.Generator,
    *,
    depth: float = 0.5,
    clicked: Iterable[Click] = (),
) -> Click | None:
    """A random click into the deeper error; ``None`` when nothing is wrong that is not clicked yet.

    Drawn evenly from its pixels that are at least ``depth`` times as deep as the deepest: 0.5 is
    RITM's training rule (up to its approximate distances), 1 clicks the middle, 0 anywhere.
    ``truth``, ``predicted``: (H, W) bool.
    """
    missed, false = _errors(truth, predicted)
    for click in clicked:
        missed[int(click.y), int(click.x)] = false[int(click.y), int(click.x)] = 0
    positive = bool(missed.max() > false.max())
    squared = missed if positive else false
    if not squared.any():
        return None
    candidates = np.flatnonzero(squared >= max(depth**2 * squared.max(), 1))
    y, x = divmod(int(rng.choice(candidates)), truth.shape[1])
    return Click(x, y, positive)


def _errors(
    truth: Mask, predicted: Mask, ignore: Mask | None = None
) -> tuple[SquaredDistances, SquaredDistances]:
    """Squared depths inside the false negatives and inside the false positives."""
    missed, false = truth & ~predicted, predicted & ~truth
    if ignore is not None:
        missed, false = missed & ~ignore, false & ~ignore
    return inner_distance_squared(missed), inner_distance_squared(false)
