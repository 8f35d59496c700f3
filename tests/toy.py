"""The closed form that stands for a click network in the reference's tests of predictors."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from histoclick.models.clickmaps import disks


def logits(image: Tensor, before: Tensor, points: Tensor) -> Tensor:
    """(B, 1, H, W): clicks blurred into blobs. ``image``: (B, 3, H, W) in 0..1; ``before``:
    (B, 1, H, W), probabilities; ``points``: as in ``clickmaps``."""
    height, width = image.shape[2:]
    positive, negative = disks(points, height, width, 5).chunk(2, 1)
    seen = -2.5 + 4 * blur(positive, 81) - 5 * blur(negative, 61)
    return seen + (before - 0.5) + 2 * (0.6 - image.mean(1, keepdim=True))


def blur(maps: Tensor, window: int) -> Tensor:
    """The sum over a window around every pixel, zeros beyond the border, divided by 81."""
    for axis in (2, 3):
        half = [0, 0, window // 2 + 1, window // 2] if axis == 2 else [window // 2 + 1, window // 2]
        running = F.pad(maps.double(), half).cumsum(axis)
        size = maps.shape[axis]
        maps = running.narrow(axis, window, size) - running.narrow(axis, 0, size)
    return (maps / 81).float()
