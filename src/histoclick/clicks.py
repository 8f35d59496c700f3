"""Simulated users: where the next click goes.

``next_click`` is the deterministic user of the paper's evaluation (Xu et al. 2016, as the RITM line
of code implements it); ``sample_click`` is the random one that training uses.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from histoclick.types import Click, Mask

SquaredDistances = NDArray[np.int64]


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
    truth: Mask, predicted: Mask, rng: np.random.Generator, *, depth: float = 0.5
) -> Click | None:
    """A random click into the deeper error; ``None`` when nothing is wrong.

    Drawn evenly from its pixels that are at least ``depth`` times as deep as the deepest: 0.5 is
    RITM's training rule (up to its approximate distances), 1 clicks the middle, 0 anywhere.
    ``truth``, ``predicted``: (H, W) bool.
    """
    missed, false = _errors(truth, predicted)
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
