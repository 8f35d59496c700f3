"""One step's forward pass: simulated users click, the answer to the last click is graded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from histoclick.train.points import first_points, next_points
from histoclick.train.settings import Settings
from histoclick.train.trainee import Answer, Trainee


class Grading(nn.Module):
    """A trainee and its users as one module, so that it can be spread over processes.

    The clicks before the graded one are answered in evaluation mode and without gradient, as RITM
    does (Sofiiuk et al. 2022); the encoder sees each image once.
    """

    def __init__(self, trainee: Trainee, scenario: str, settings: Settings) -> None:
        super().__init__()
        self.net = trainee.net  # registered: its parameters are this module's
        self._trainee = trainee
        self._scenario = scenario
        self._settings = settings

    def forward(
        self,
        images: Any,
        targets: NDArray[np.bool_],
        rngs: Sequence[np.random.Generator],
        clicks: int,
        encoded: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The losses (B,) and the IoU (B,) after the graded click.

        ``images``: (B, 3, S, S) float32 RGB in 0..1; if they are ``encoded``, what ``encode`` made
        of them. ``targets``: (B, S, S) bool.
        """
        trainee, learns = self._trainee, self._trainee.scenarios[self._scenario]
        device = next(self.net.parameters()).device
        narrow = self._settings.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=narrow):
            seen = images
            if not encoded:
                trainee.train(self._scenario)
                with torch.set_grad_enabled(not learns.frozen_encoder):
                    seen = trainee.encode(images)
            held = detached(seen)
            points = first_points(targets, rngs, self._settings.first_points, trainee.first_clicks)
            previous: Answer | None = None
            trainee.train(self._scenario, learning=False)
            with torch.no_grad():
                for _ in range(clicks):
                    previous = trainee.answer(held, points.to(device), previous)
                    predicted = previous.logits[:, 0].float().cpu().numpy() > 0
                    points = next_points(points, targets, predicted, rngs)
            trainee.train(self._scenario)
            answer = trainee.answer(seen, points.to(device), previous)
            wanted = torch.from_numpy(targets)[:, None].to(device)
            losses = trainee.loss(answer, wanted.float(), rngs)
        with torch.no_grad():
            mask = answer.logits > 0
            either = (mask | wanted).sum((1, 2, 3)).clamp(min=1)
            ious = (mask & wanted).sum((1, 2, 3)) / either
        return losses, ious


def detached(value: Any) -> Any:
    """The same tensors, tuples and mappings of tensors, outside of the gradient."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, tuple):
        parts = [detached(each) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, Mapping):
        return {key: detached(each) for key, each in value.items()}
    return value
