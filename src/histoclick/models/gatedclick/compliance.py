"""Rules that hold whatever the network says. Logits are (H, W) float32, clicks in their frame."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from histoclick.types import Click, Logits, Mask

REACH = 3.0  # standard deviations; a bump ends there
LEAST = 1.0  # logit that a clicked pixel gets at least, with the click's sign


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
        # Squares are whole numbers: the root of one, squared again, may reach the click after all.
        others = [
            (x - u) ** 2 + (y - v) ** 2 for (u, v), said in pixels.items() if said != positive
        ]
        limit = min([(REACH * sigma) ** 2, *others])
        reach = float(np.sqrt(limit))
        far = int(np.ceil(reach))
        rows = slice(max(y - far, 0), min(y + far + 1, height))
        columns = slice(max(x - far, 0), min(x + far + 1, width))
        dy = np.arange(rows.start, rows.stop)[:, None] - y
        dx = np.arange(columns.start, columns.stop) - x
        squared = (dy**2 + dx**2).astype(np.float32)
        bump = np.exp(-squared / (2 * max(reach / REACH, 1e-3) ** 2)) * (squared < limit)
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
