"""What training minimises. All losses take float32 logits and return one value per sample."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def normalized_focal_loss(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, gamma: float = 2.0
) -> Tensor:
    """The normalised focal loss of Sofiiuk et al. (RITM; alpha 0.5, sum of factors detached).

    ``logits``: (B, 1, H, W). ``target``: the same shape, 0..1. ``weight``: extra weight per pixel,
    applied after normalising. Returns (B,).
    """
    wrong = (target - torch.sigmoid(logits)).abs()
    focus = wrong**gamma
    scale = focus[0, 0].numel() / (focus.sum((2, 3), keepdim=True) + 1e-12)
    # -log(1 - wrong) is cross entropy for hard targets; taken from logits it cannot overflow.
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    loss = 0.5 * focus * scale.detach() * entropy
    return (loss if weight is None else loss * weight).mean((1, 2, 3))


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft Dice coefficient. Shapes as above; returns (B,)."""
    probability = torch.sigmoid(logits)
    overlap = (probability * target).sum((1, 2, 3))
    total = probability.sum((1, 2, 3)) + target.sum((1, 2, 3))
    return 1 - (2 * overlap + 1) / (total + 1)
