"""Rules that hold whatever the network says. Logits are (H, W) float32, clicks in their frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from histoclick.types import Click, Logits, Mask

REACH = 3.0  # standard deviations; a bump ends there
LEAST = 1.0  # logit that a clicked pixel gets at least, with the click's sign


@dataclass(frozen=True)
class Rules:
    """What is done to the logits of a network; by default nothing.

    ``comply``: clicked pixels get what was said, by bumps of ``bump_px`` of the model's input.
    ``merge``: after ``free`` clicks, only the parts of a change that the last one meets are kept.
    ``sure``: no logit is larger.
    """

    comply: bool = False
    bump_px: float = 6.0
    merge: bool = False
    free: int = 3
    sure: float = math.inf

    def settle(self, logits: Logits, before: Logits | None, clicks: Sequence[Click]) -> Logits:
        """The answer in the model's input, where ``clicks`` are. ``before``: the last answer."""
        if self.merge and before is not None and len(clicks) > self.free:
            taken = merged(before > 0, logits > 0, clicks[-1:])
            logits = np.where(taken, logits, before)
        if self.comply:
            logits = comply(logits, clicks, self.bump_px)
        # As sure as the network will take it for at the next click: what that click leaves alone
        # then stays as it is to the bit.
        settled: Logits = np.clip(logits, -self.sure, self.sure, dtype=np.float32)
        return settled

    def show(
        self, logits: Logits, resized: tuple[int, int], shape: tuple[int, int],
        clicks: Sequence[Click],
    ) -> Logits:  # fmt: skip
        """The answer on the image, of ``shape`` (height, width), where ``clicks`` are now.

        ``logits``: of the model's input; ``resized``: height and width of the image's part of it.
        """
        rows, columns = resized
        large = cv2.resize(logits[:rows, :columns], shape[::-1], interpolation=cv2.INTER_LINEAR)
        shown = np.asarray(large, np.float32)
        if self.comply:
            scale = max(shape) / max(resized)
            shown = comply(shown, clicks, max(self.bump_px * scale, 1.0))
        return shown


def comply(logits: Logits, clicks: Sequence[Click], sigma: float) -> Logits:
    """``logits`` in which every clicked pixel says what the click said; among clicks on one pixel
    the last one counts.

    A pixel that disagrees is raised or lowered by a Gaussian bump of ``sigma`` px or less, which
    reaches no click of the other sign and nothing ``REACH * sigma`` px away or farther.
    """
    obeyed = logits.copy()
    height, width = logits.shape
    pixels = {(round(click.x), round(click.y)): click.positive for click in clicks}
    for (x, y), positive in pixels.items():
        sign = 1 if positive else -1
        missing = LEAST - sign * float(obeyed[y, x])
        if missing < LEAST:
            continue  # it agrees
        others = [np.hypot(x - u, y - v) for (u, v), said in pixels.items() if said != positive]
        reach = min([REACH * sigma, *others])
        far = int(np.ceil(reach))
        rows = slice(max(y - far, 0), min(y + far + 1, height))
        columns = slice(max(x - far, 0), min(x + far + 1, width))
        dy = np.arange(rows.start, rows.stop)[:, None] - y
        dx = np.arange(columns.start, columns.stop) - x
        squared = (dy**2 + dx**2).astype(np.float32)
        bump = np.exp(-squared / (2 * max(reach / REACH, 1e-3) ** 2)) * (squared < reach**2)
        obeyed[rows, columns] += sign * missing * np.maximum(bump, squared == 0)
    return obeyed


def merged(before: Mask, now: Mask, clicks: Sequence[Click]) -> Mask:
    """Where ``now`` is taken over: the connected parts of the change that hold a click, or, if no
    part does, everywhere. (H, W) bool each."""
    changed = (before != now).astype(np.uint8)
    _, parts = cv2.connectedComponents(changed, connectivity=8)
    touched = {int(parts[round(click.y), round(click.x)]) for click in clicks} - {0}
    if not touched:
        return np.ones_like(now)
    return np.isin(parts, list(touched))
