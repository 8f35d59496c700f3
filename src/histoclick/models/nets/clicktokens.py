"""Prompts as SAM knows them: a token for every click, a map for the previous mask."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import SamPromptEncoderConfig
from transformers.models.sam.modeling_sam import SamMaskEmbedding

UNSURE = 0.02  # probabilities nearer to 0 or 1 become logits as if they were this far away


class Positions(nn.Module):
    """Places as random Fourier features (Tancik et al. 2020), drawn once and never trained."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, width // 2))

    def forward(self, places: Tensor) -> Tensor:
        """``places``: (..., 2) of x, y as shares of the image's sides. Returns (..., width)."""
        angles = 2 * math.pi * ((2 * places - 1) @ self.frequencies)
        return torch.cat([angles.sin(), angles.cos()], -1)

    def grid(self, like: Tensor) -> Tensor:
        """(1, width, h, w): of the cell centres of ``like`` (..., h, w)."""
        height, width = like.shape[-2:]
        ys = (torch.arange(height, device=like.device) + 0.5) / height
        xs = (torch.arange(width, device=like.device) + 0.5) / width
        places = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1)
        coded: Tensor = self(places)
        return coded.permute(2, 0, 1)[None]


class ClickTokens(nn.Module):
    """SAM's prompt encoder (Kirillov et al. 2023) for clicks and a mask."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.positions = Positions(width)
        self.signs = nn.Embedding(2, width)  # negative, positive
        self.mask = SamMaskEmbedding(SamPromptEncoderConfig(hidden_size=width))
        self.no_mask = nn.Embedding(1, width)

    def clicks(self, clicks: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Tokens (B, 1, N, width) of clicks (B, N, 3) as in ``clickrasters``, and (B, N) bool:
        which are no padding. ``size``: height and width of the network's input, px."""
        places = (clicks[:, :, :2] + 0.5) / clicks.new_tensor([size[1], size[0]])
        sign = self.signs((clicks[:, :, 2] > 0).long())
        return (self.positions(places) + sign)[:, None], clicks[:, :, 2] != 0

    def dense(self, previous: Tensor) -> Tensor:
        """(B, width, h / 4, w / 4) of the previous mask's probabilities (B, 1, h, w): its logits
        through convolutions, or one learned vector where the probabilities are 0 everywhere, which
        is how no mask is written."""
        embedded = self.mask(torch.logit(previous, UNSURE))
        there = (previous > 0).flatten(1).any(1).view(-1, 1, 1, 1)
        return torch.where(there, embedded, self.no_mask.weight[0, :, None, None])
