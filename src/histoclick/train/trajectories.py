"""A batch of simulated users, in lock-step."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histoclick.clicks import sample_click
from histoclick.models.nets.modelinput import click_tensor
from histoclick.types import Click


class Trajectories:
    """Clicks of B users, each on a target of their own.

    ``targets``: (B, S, S) bool, the objects wanted. ``predicted``: (B, S, S) bool, the masks to
    start from (all False: from nothing). ``clicks``: of every user, oldest first.
    """

    def __init__(self, targets: NDArray[np.bool_], rng: np.random.Generator) -> None:
        self.targets = targets
        self._rng = rng
        self.clicks: list[list[Click]] = [[] for _ in targets]

    def click(self, predicted: NDArray[np.bool_]) -> None:
        """Every user answers ``predicted``: half of the time in the middle of the larger error, as
        the user of the evaluation does, else anywhere reasonable in it, with a shaky hand."""
        for target, mask, clicks in zip(self.targets, predicted, self.clicks, strict=True):
            depth = float(self._rng.choice([1.0, 0.5, 0.1], p=[0.5, 0.35, 0.15]))
            click = sample_click(target, mask, self._rng, depth=depth)
            if click is not None:
                clicks.append(click)

    def tensor(self) -> Tensor:
        """(B, N, 3) float32 of x, y, sign; padded with zeros."""
        return click_tensor(self.clicks)

    def weights(self, reach: float = 20.0, gain: float = 3.0) -> Tensor:
        """(B, 1, S, S) float32 loss weights: 1, rising to ``1 + gain`` at the clicks, so that a
        click has to be obeyed where it was made."""
        size = self.targets.shape[1]
        grid = np.arange(size, dtype=np.float32)
        weights = np.ones((len(self.clicks), 1, size, size), np.float32)
        for row, clicks in zip(weights, self.clicks, strict=True):
            if clicks:
                nearest = np.min(
                    [(grid[:, None] - c.y) ** 2 + (grid[None] - c.x) ** 2 for c in clicks], axis=0
                )
                row[0] += gain * np.exp(-nearest / (2 * reach**2))
        return torch.from_numpy(weights)
