"""The layers of SAM's image encoder, a ViT with windows and relative positions (Li et al. 2022).

They compute what transformers' ``SamVisionLayer`` computes, with the same weights, but in an order
that suits processors. There a layer waits for memory more than it should: the position biases of
all pairs of 64x64 places alone fill 805 MB in ViT-B. Here a layer is done band by band, from the
attention to the end of the MLP, so that what passes between its steps stays in the cache; and the
zeros that fill up the windows, a fifth of all tokens, are never multiplied with any weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from histoclick.models.sam.windows import cut, join

CPU_ROWS = 4  # of queries at a time that attend everywhere
CPU_BAND = 16  # rows of places that pass through an MLP at a time


class Layer(GradientCheckpointingLayer):  # type: ignore[misc]  # transformers has no types here
    """In place of a ``SamVisionLayer``: (B, H, W, C) to (B, H, W, C).

    The weights of attention and MLP may be of half precision; sums and norms stay float32.
    """

    def __init__(self, plain: Any) -> None:
        """``plain``: the ``SamVisionLayer`` whose weights are taken over."""
        super().__init__()
        self.layer_norm1: nn.LayerNorm = plain.layer_norm1
        self.layer_norm2: nn.LayerNorm = plain.layer_norm2
        self.mlp: nn.Module = plain.mlp
        side: int = plain.window_size
        self.attn = WindowAttention(plain.attn, side) if side else GlobalAttention(plain.attn)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """``hidden_states``: named as transformers does."""
        dtype = self.attn.qkv.weight.dtype
        x = hidden_states + self.attn(self.layer_norm1(hidden_states).to(dtype))
        bands = torch.split(x, _step(x, CPU_BAND), 1)
        return torch.cat([band + self.mlp(self.layer_norm2(band).to(dtype)) for band in bands], 1)


class Attention(nn.Module, ABC):
    """What both kinds share: the weights of a ``SamVisionAttention``."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.qkv: nn.Linear = plain.qkv
        self.proj: nn.Linear = plain.proj
        self.rel_pos_h: nn.Parameter = plain.rel_pos_h
        self.rel_pos_w: nn.Parameter = plain.rel_pos_w
        self.heads: int = plain.num_attention_heads

    def forward(self, tokens: Tensor) -> Tensor:
        """Normalised tokens (B, H, W, C) to what they attend to, (B, H, W, C)."""
        attended: Tensor = self.proj(torch.cat(list(self.bands(tokens)), 1))
        return attended

    @abstractmethod
    def bands(self, tokens: Tensor) -> Iterator[Tensor]:
        """The values attended to, (B, h, W, C), from the top."""

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, H, W, 3 C) to query, key and value (B, heads, H, W, c)."""
        query, key, value = qkv.view(*qkv.shape[:3], 3, self.heads, -1).permute(3, 0, 4, 1, 2, 5)
        return query, key, value


class WindowAttention(Attention):
    """Every place attends to its window of ``side`` x ``side`` places.

    Windows that reach over the edge are filled up with zeros, which take part: their query, key and
    value are the biases of the projection.
    """

    def __init__(self, plain: Any, side: int) -> None:
        super().__init__(plain)
        self.side = side

    def bands(self, tokens: Tensor) -> Iterator[Tensor]:
        """See ``Attention``."""
        down, across = (_relative(of, self.side) for of in (self.rel_pos_h, self.rel_pos_w))
        for band in torch.split(tokens, _step(tokens, self.side), 1):
            windows = cut(self._fill_up(self.qkv(band)), self.side)
            query, key, value = self._split(windows.flatten(0, 2))
            bias = _bias(*_parts(query, down, across))
            query, key, value = (each.flatten(2, 3) for each in (query, key, value))
            attended = F.scaled_dot_product_attention(query, key, value, bias)
            shape = (*windows.shape[:5], tokens.shape[3])
            yield join(attended.transpose(1, 2).reshape(shape), *band.shape[1:3])

    def _fill_up(self, qkv: Tensor) -> Tensor:
        """(B, H, W, 3 C) to the next multiples of the window."""
        for dim in (2, 1):
            shape = list(qkv.shape)
            shape[dim] = -shape[dim] % self.side
            if shape[dim]:
                qkv = torch.cat([qkv, self.qkv.bias.to(qkv.dtype).expand(shape)], dim)
        return qkv


class GlobalAttention(Attention):
    """Every place attends to every place."""

    def bands(self, tokens: Tensor) -> Iterator[Tensor]:
        """See ``Attention``."""
        height, width = tokens.shape[1:3]
        query, key, value = self._split(self.qkv(tokens))
        key, value = key.flatten(2, 3).contiguous(), value.flatten(2, 3).contiguous()
        down, across = _relative(self.rel_pos_h, height), _relative(self.rel_pos_w, width)
        by_heads = tokens.device.type == "cpu" and query.dtype == torch.float32
        attend = _by_heads if by_heads else _at_once
        step = _step(tokens, CPU_ROWS)
        for top in range(0, height, step):
            rows = query[:, :, top : top + step]
            parts = _parts(rows, down[top : top + step], across)
            attended = attend(rows.flatten(2, 3), key, value, *parts).transpose(1, 2)
            yield attended.reshape(len(tokens), -1, width, tokens.shape[3])


def _step(tokens: Tensor, rows: int) -> int:
    """How many rows to take at a time: on a CPU ``rows``, elsewhere all."""
    return rows if tokens.device.type == "cpu" else tokens.shape[1]


def _relative(table: Tensor, size: int) -> Tensor:
    """(2 size - 1, c) embeddings of offsets to (size, size, c): those of every query and key."""
    places = torch.arange(size, device=table.device)
    return table[places[:, None] - places + size - 1]


def _parts(query: Tensor, down: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
    """Queries (B, heads, h, w, c) and embeddings (h, H, c), (w, W, c) to the two summands of their
    biases, contiguous: (B, heads, h, w, H, 1) for rows of keys, (B, heads, h, w, 1, W) for columns.
    """
    rows = torch.einsum("bnhwc,hkc->bnhwk", query, down).contiguous()
    columns = torch.einsum("bnhwc,wkc->bnhwk", query, across).contiguous()
    return rows[..., :, None], columns[..., None, :]


def _bias(rows: Tensor, columns: Tensor) -> Tensor:
    """(..., h w, H W): of every query and key."""
    return (rows + columns).flatten(-2).flatten(-3, -2)


def _at_once(query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, heads, queries, c)."""
    return F.scaled_dot_product_attention(query, key, value, _bias(rows, columns))


def _by_heads(query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The same head by head: the scores of one stay in the cache, and the product of queries and
    keys is added to the bias where that lies.
    """
    scale = query.shape[3] ** -0.5
    attended = []
    for parts in zip(
        *(part.flatten(0, 1) for part in (query, key, value, rows, columns)), strict=True
    ):
        one, keys, values, *summands = parts
        scores = _bias(*summands).addmm_(one, keys.T, alpha=scale)
        attended.append(scores.softmax(1) @ values)
    return torch.stack(attended).view(query.shape)
