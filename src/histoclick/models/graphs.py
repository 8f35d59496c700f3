"""A model as two networks that can be exported: an encoder, and a decoder of clicks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

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
