"""Colours as the networks that began on ImageNet know them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MEAN = (0.485, 0.456, 0.406)  # of the ImageNet images, red, green and blue in 0..1
STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """Takes off the mean and divides by the standard deviation of ImageNet. Has no weights."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in 0..1 -> the same shape."""
        return (image - self.mean) / self.std
