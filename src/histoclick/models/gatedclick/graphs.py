"""The gated network as graphs for an export, and what is done to what they give."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from histoclick.models.compliance import Rules
from histoclick.models.gatedclick.decoders import Pyramid
from histoclick.models.gatedclick.network import FREE, SURE, GatedClickNet
from histoclick.models.gatedclick.parts import Parts
from histoclick.models.graphs import Encoder, Graphs

STRIDES = (2, 4, 8, 16, 8, 1)
BUMP_PX = 6.0  # of the model's input


class Decoder(nn.Module):
    """The pyramid, clicks and what was before -> logits at stride 1, quality."""

    def __init__(self, net: GatedClickNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, s2: Tensor, s4: Tensor, s8: Tensor, s16: Tensor, likeness: Tensor, image: Tensor,
        clicks: Tensor, before: Tensor, begun: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """``clicks``, ``before``, ``begun``: as ``models.onnx`` has them."""
        kind = begun[:, None, None, None]
        logits = torch.where(kind == 2, SURE * (2 * before - 1), before)
        pyramid = Pyramid(s2, s4, s8, s16, likeness, image)
        decoded = self.net.decode(pyramid, clicks, logits, (begun > 0).float())
        return decoded.logits, decoded.quality


def rules_of(parts: Parts) -> Rules:
    """What is done to the logits of a network of such parts."""
    return Rules(parts.compliance, BUMP_PX, parts.merge, FREE, SURE, parts.lower)


def graphs_of(net: GatedClickNet) -> Graphs:
    """Of a network on the processor, in evaluation mode."""
    maps = dict(zip(Pyramid._fields, STRIDES, strict=True))
    return Graphs(Encoder(net), Decoder(net), maps, 1, quality=True, rules=rules_of(net.parts))
