"""The paper's modified mask decoder (Kim et al. 2023, Fig. 2c), in the place of SAM's own.

The two-way transformer stays. The dot product between output tokens and image embedding goes; the
embedding that leaves the transformer is decoded by itself. In SAM it is (B, 256, 64, 64):

    step            output              parameters
    self-attention  (B, 256, 64, 64)       789,760
    UpConvBlock     (B, 128, 128, 128)     984,448
    UpConvBlock     (B, 64, 256, 256)      246,464
    ConvBlock       (B, 32, 256, 256)       57,664
    1x1 convolution (B, 1, 256, 256)            33

What the paper leaves open, and what is done here, is in ADR 7.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.sam.modeling_sam import (
    SamMaskDecoder,
    SamTwoWayAttentionBlock,
    SamTwoWayTransformer,
)

HEADS = 8


def as_maps(tokens: Tensor, like: Tensor) -> Tensor:
    """Tokens (B, H * W, C) as maps (B, C, H, W) of the height and width of ``like``."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *like.shape[2:])


class SelfAttention(nn.Module):
    """One pre-norm transformer block over all places of a map: attention, then an MLP.

    Places are told apart by SAM's own positional encoding, added to queries and keys as the
    two-way transformer does.
    """

    def __init__(self, width: int, heads: int = HEADS, expansion: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.query_key = nn.Linear(width, 2 * width)
        self.value = nn.Linear(width, width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width)
        )

    def forward(self, maps: Tensor, positions: Tensor) -> Tensor:
        """``maps``: (B, C, H, W); ``positions``: (1 or B, C, H, W). Returns (B, C, H, W)."""
        tokens, where = (each.flatten(2).transpose(1, 2) for each in (maps, positions))
        normed = self.norm1(tokens)
        parts = [*self.query_key(normed + where).chunk(2, dim=2), self.value(normed)]
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        seen = F.scaled_dot_product_attention(query, key, value)  # fused: no 4096 x 4096 matrix
        tokens = tokens + self.project(seen.transpose(1, 2).flatten(2))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return as_maps(tokens, maps)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, the second halves the channels; instance norm and GELU after each; a
    1x1 convolution is the shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm1 = nn.InstanceNorm2d(width, affine=True)
        self.conv2 = nn.Conv2d(width, half, 3, padding=1)
        self.norm2 = nn.InstanceNorm2d(half, affine=True)
        self.shortcut = nn.Conv2d(width, half, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C / 2, H, W)."""
        inner = F.gelu(self.norm1(self.conv1(maps)))
        return F.gelu(self.norm2(self.conv2(inner)) + self.shortcut(maps))


class UpConvBlock(nn.Module):
    """A ``ConvBlock``, then a 2x2 up-convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = ConvBlock(width)
        self.up = nn.ConvTranspose2d(width // 2, width // 2, 2, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C / 2, 2 H, 2 W)."""
        raised: Tensor = self.up(self.convs(maps))
        return raised


class TwoWayLayers(nn.Module):
    """The layers of SAM's two-way transformer, without the attention of the tokens at its end:
    here only the image embedding is read."""

    def __init__(self, original: SamTwoWayTransformer) -> None:
        super().__init__()
        self.layers = original.layers

    def forward(
        self, tokens: Tensor, maps: Tensor, positions: Tensor, real: Tensor | None = None
    ) -> Tensor:
        """``tokens``: (B, 1, N, C); ``maps`` (B, C, H, W); ``positions``: (1, C, H, W). ``real``:
        as in ``attend``. Returns the maps as they leave the last layer."""
        queries = tokens
        keys, where = (each.flatten(2).transpose(1, 2)[:, None] for each in (maps, positions))
        for layer in self.layers:
            queries, keys = attend(layer, queries, keys, tokens, where, real)
        return as_maps(keys[:, 0], maps)


def attend(
    layer: SamTwoWayAttentionBlock,
    queries: Tensor,
    keys: Tensor,
    tokens: Tensor,
    where: Tensor,
    real: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One layer of SAM's two-way transformer, in which nobody attends to padding.

    ``queries``, ``tokens``: (B, 1, N, C), as they are and as they were at the start; ``keys``,
    ``where``: (B, 1, H * W, C), image and its positions. ``real``: (B, N) bool, tokens that are no
    padding; ``None`` for all. Returns queries and keys.
    """
    mask = None if real is None else real[:, None, None]
    query = queries if layer.skip_first_layer_pe else queries + tokens
    seen, _ = layer.self_attn(query=query, key=query, value=queries, attention_similarity=mask)
    queries = layer.layer_norm1(seen if layer.skip_first_layer_pe else queries + seen)
    placed = keys + where
    seen, _ = layer.cross_attn_token_to_image(query=queries + tokens, key=placed, value=keys)
    queries = layer.layer_norm2(queries + seen)
    queries = layer.layer_norm3(queries + layer.mlp(queries))
    seen, _ = layer.cross_attn_image_to_token(
        query=placed, key=queries + tokens, value=queries, attention_similarity=mask
    )
    return queries, layer.layer_norm4(keys + seen)


class RefineDecoder(nn.Module):
    """SAM's mask decoder with another head, behind the same signature.

    The output tokens stay, because the pretrained transformer attends to them; nothing reads them
    afterwards. There is one mask, whatever ``multimask_output`` asks for, and no predicted IoU
    besides NaN.
    """

    def __init__(self, original: SamMaskDecoder) -> None:
        super().__init__()
        self.iou_token = original.iou_token
        self.mask_tokens = original.mask_tokens
        self.transformer = TwoWayLayers(original.transformer)
        width = original.hidden_size
        self.attention = SelfAttention(width)
        self.up1 = UpConvBlock(width)
        self.up2 = UpConvBlock(width // 2)
        self.convs = ConvBlock(width // 4)
        self.head = nn.Conv2d(width // 8, 1, 1)

    def forward(
        self,
        image_embeddings: Tensor,
        image_positional_embeddings: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, 1, 1, 256, 256) and NaN (B, 1, 1) for B prompts.

        ``image_embeddings``, ``dense_prompt_embeddings``: (B, 256, 64, 64), the positions
        (1, 256, 64, 64); ``sparse_prompt_embeddings``: (B, 1, N, 256).
        """
        maps = image_embeddings + dense_prompt_embeddings
        _, fine = self.features(maps, image_positional_embeddings, sparse_prompt_embeddings)
        logits = self.head(fine)
        return logits[:, None], logits.new_full((len(logits), 1, 1), torch.nan)

    def features(
        self, maps: Tensor, positions: Tensor, sparse: Tensor, real: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The maps (B, C, h, w) after the attention, and those (B, C / 8, 4 h, 4 w) that the head
        reads. ``maps``: image and dense prompts together; ``positions``: (1, C, h, w); ``sparse``:
        (B, 1, N, C); ``real``: (B, N) bool, prompts that are no padding."""
        output = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        output = output.expand(len(sparse), 1, -1, -1)
        tokens = torch.cat([output, sparse], dim=2)
        if real is not None:
            real = F.pad(real, (output.shape[2], 0), value=True)
        maps = self.transformer(tokens, maps, positions, real)
        maps = self.attention(maps, positions)
        return maps, self.convs(self.up2(self.up1(maps)))
