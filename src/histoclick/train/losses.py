"""What training minimises.

Every loss takes ``logits`` (B, 1, H, W) and a ``target`` of the same shape, 0 or 1, or -1 for
pixels that are ignored, and returns (B,) float32, one value per sample. All of it is computed in
float32 whatever the logits are: in bfloat16 the small errors of a nearly perfect mask are lost.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST = 1e-12  # what stands for zero where something is divided by


def normalized_focal_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    alpha: float = 0.5,
) -> Tensor:
    """The normalised focal loss of RITM (Sofiiuk et al. 2022), mean over the pixels.

    ``weight``: (B, 1, H, W), extra weight per pixel, applied after normalising and not divided out.
    ``alpha``: weight of the object's pixels; the others have ``1 - alpha``. The defaults are those
    of all published trainings.
    """
    loss = _focal(logits, target, gamma, alpha)
    if weight is not None:
        loss = loss * weight
    return loss.sum((1, 2, 3)) / (target >= 0).sum((1, 2, 3)).clamp(min=1)


def border_focal_loss(
    logits: Tensor, target: Tensor, border: Tensor, share: float = 0.5, gamma: float = 2.0
) -> Tensor:
    """FocalClick's loss of refined masks (Chen et al. 2022): the one above, with more weight on the
    border.

    ``border``: like the target, 1 near the outline (``train.focus.trimap``), else 0. Pixels there
    weigh 1, others ``1 - share``. The mean is taken within each sample; the published code takes
    it over the batch, in which samples with much border count for more.
    """
    weight = border.float() * share + (1 - share)
    loss = _focal(logits, target, gamma, 0.5) * weight
    return loss.sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=LEAST)


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Sigmoid cross entropy, mean over all pixels; ignored ones count as 0, as in RITM."""
    entropy = F.binary_cross_entropy_with_logits(
        logits.float(), target.float().clamp(min=0), reduction="none"
    )
    return (entropy * (target >= 0)).mean((1, 2, 3))


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft Dice coefficient."""
    valid = target >= 0
    target = target.float() * valid
    probability = torch.sigmoid(logits.float()) * valid
    overlap = (probability * target).sum((1, 2, 3))
    total = probability.sum((1, 2, 3)) + target.sum((1, 2, 3))
    return 1 - (2 * overlap + 1) / (total + 1)


def _focal(logits: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    """(B, 1, H, W) float32: the normalised focal loss of every pixel; 0 where it is ignored.

    The focus ``wrong ** gamma`` is scaled to a mean of 1, and no gradient flows through the scale.
    """
    logits, target, valid = logits.float(), target.float(), target >= 0
    target = target.clamp(min=0)
    wrong = (target - torch.sigmoid(logits)).abs() * valid
    focus = wrong**gamma
    pixels = valid.sum((1, 2, 3), keepdim=True)
    scale = pixels / (focus.sum((1, 2, 3), keepdim=True) + LEAST)
    # -log(1 - wrong) is cross entropy for a target of 0 or 1; taken from logits it cannot overflow
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    side = torch.where(target > 0.5, alpha, 1 - alpha)
    return side * focus * scale.detach() * entropy
