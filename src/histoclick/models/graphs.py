"""A model as two networks that can be exported: an encoder, and a decoder of clicks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from histoclick.models.compliance import Rules


@dataclass(frozen=True)
class Graphs:
    """What a family offers for an export; what goes in and out is told in ``models.onnx``.

    ``encoder``: (1, H, W, 3) uint8 -> a tuple of maps. ``decoder``: the maps, ``clicks``,
    ``before``, ``begun`` -> logits, or logits and quality. ``maps``: names and strides of the maps,
    in order. ``stride``: of ``before`` and the logits. ``quality``: whether the decoder tells it.
    ``rules``: for the logits. ``multiple``: of the sides of what goes in.
    """

    encoder: nn.Module
    decoder: nn.Module
    maps: Mapping[str, int]
    stride: int
    quality: bool = False
    rules: Rules = field(default_factory=Rules)
    multiple: int = 32


class Encoder(nn.Module):
    """The first half of a network with ``encode``, which takes (B, 3, H, W) in [-1, 1]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net: Any = net

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """``image``: (1, H, W, 3) uint8."""
        return tuple(self.net.encode(image.permute(0, 3, 1, 2).float() / 127.5 - 1))
