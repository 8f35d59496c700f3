"""The built-in network as graphs for an export."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from histoclick.models.compliance import Rules
from histoclick.models.denseclick.network import DenseClickNet, Pyramid
from histoclick.models.graphs import Encoder, Graphs

STRIDES = (2, 4, 8, 16, 8)


class Decoder(nn.Module):
    """The pyramid, clicks and what was before -> logits at stride 2."""

    def __init__(self, net: DenseClickNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, s2: Tensor, s4: Tensor, s8: Tensor, s16: Tensor, likeness: Tensor,
        clicks: Tensor, before: Tensor, begun: Tensor,
    ) -> Tensor:  # fmt: skip
        """``clicks``, ``before``, ``begun``: as ``models.onnx`` has them."""
        kind = begun[:, None, None, None]
        previous = torch.where(kind == 1, torch.sigmoid(before), before) * (kind > 0)
        return self.net.decode(Pyramid(s2, s4, s8, s16, likeness), clicks, previous)


def graphs_of(net: DenseClickNet) -> Graphs:
    """Of a network on the processor, in evaluation mode."""
    maps = dict(zip(Pyramid._fields, STRIDES, strict=True))
    return Graphs(Encoder(net), Decoder(net), maps, stride=2, rules=Rules(lower=True))
