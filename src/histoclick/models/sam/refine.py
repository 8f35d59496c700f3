"""The paper's modified mask decoder (Kim et al. 2023, Fig. 2c), in the place of SAM's own.

The two-way transformer stays. The dot product between output tokens and image embedding goes; the
embedding that leaves the transformer, (B, 256, 64, 64), is decoded by itself:

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
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamTwoWayTransformer

WIDTHS = (256, 128, 64, 32)
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

    def forward(self, tokens: Tensor, maps: Tensor, positions: Tensor) -> Tensor:
        """``tokens``: (B, 1, N, C); ``maps`` (B, C, H, W); ``positions``: (1, C, H, W). Returns the
        maps as they leave the last layer."""
        queries = tokens
        keys, where = (each.flatten(2).transpose(1, 2)[:, None] for each in (maps, positions))
        for layer in self.layers:
            queries, keys, _ = layer(
                queries=queries,
                keys=keys,
                query_point_embedding=tokens,
                key_point_embedding=where,
                attention_similarity=None,
            )
        return as_maps(keys[:, 0], maps)


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
        self.attention = SelfAttention(WIDTHS[0])
        self.up1 = UpConvBlock(WIDTHS[0])
        self.up2 = UpConvBlock(WIDTHS[1])
        self.convs = ConvBlock(WIDTHS[2])
        self.head = nn.Conv2d(WIDTHS[3], 1, 1)

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
        output = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        output = output.expand(len(sparse_prompt_embeddings), 1, -1, -1)
        tokens = torch.cat([output, sparse_prompt_embeddings], dim=2)
        maps = image_embeddings + dense_prompt_embeddings
        maps = self.transformer(tokens, maps, image_positional_embeddings)
        maps = self.attention(maps, image_positional_embeddings)
        logits = self.head(self.convs(self.up2(self.up1(maps))))
        return logits[:, None], logits.new_full((len(logits), 1, 1), torch.nan)
