"""Object-contextual representations (Yuan et al. 2020), for one object.

The pixels are told what the object looks like as a whole. Names of modules are those of the
official files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DROPOUT = 0.05  # of the channels in training


def gather(feature: Tensor, logits: Tensor) -> Tensor:
    """What the object looks like: the mean (B, C, 1, 1) of ``feature`` (B, C, H, W), weighted by
    where the object is, ``logits`` (B, 1, H, W)."""
    share = torch.softmax(logits.flatten(2), 2)  # (B, 1, H * W)
    mean = torch.matmul(feature.flatten(2), share.transpose(1, 2))
    return mean[..., None]


class ObjectContext(nn.Module):
    """Adds to every pixel what it may know of the object.

    The general head weighs the descriptions of several objects, pixel by pixel, by a softmax of how
    ``f_pixel`` and ``f_object`` agree. Of one object that weight is 1 everywhere: the official
    files hold both, but nothing depends on them.
    """

    def __init__(self, channels: int, inside: int) -> None:
        super().__init__()
        self.object_context_block = nn.ModuleDict(
            {
                "f_pixel": _twice(channels, inside).requires_grad_(False),
                "f_object": _twice(channels, inside).requires_grad_(False),
                "f_down": _step(channels, inside),
                "f_up": _step(inside, channels),
            }
        )
        self.conv_bn_dropout = nn.Sequential(*_step(2 * channels, channels), nn.Dropout2d(DROPOUT))

    def forward(self, feature: Tensor, mean: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape. ``mean``: of ``gather``."""
        block = self.object_context_block
        # spread before ``f_up``: in training, its batch norm counts pixels
        context = block["f_down"](mean).expand(-1, -1, *feature.shape[2:])
        told: Tensor = self.conv_bn_dropout(torch.cat([block["f_up"](context), feature], 1))
        return told


def _step(inputs: int, outputs: int) -> nn.Sequential:
    norm = nn.Sequential(nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), norm)


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_step(inputs, outputs), *_step(outputs, outputs))
