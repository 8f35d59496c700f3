"""Networks made ready to predict, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


def fold(net: nn.Module, device: str | torch.device) -> None:
    """Make ``net``, in evaluation mode, faster in place, and no longer fit to be trained or saved.

    Every batch norm becomes part of the convolution that stands directly before it, which must be
    the one whose output it takes. On a CPU, weights are laid out channels last. Results change by
    rounding only; of HRNets on one thread it saves a tenth to a fifth of the time.
    """
    for module in net.modules():
        for (name, conv), (next_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, nn.utils.fusion.fuse_conv_bn_eval(conv, norm))
                setattr(module, next_name, nn.Identity())
    if torch.device(device).type == "cpu":
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
