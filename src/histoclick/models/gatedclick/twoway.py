"""Decoders whose clicks are tokens that the image attends to: SAM's, and the paper's.

Both read the pyramid at stride 16 only, answer at stride 4, and take the previous mask as SAM does.
SAM's own are 256 channels wide; here they are as wide as the embedding, with as many heads and
layers and the same ratio of widths, so that the head ends at an eighth of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder

from histoclick.models.gatedclick.decoders import Draft, Pyramid
from histoclick.models.gatedclick.parts import Parts
from histoclick.models.nets.clicktokens import ClickTokens
from histoclick.models.nets.clickunits import double
from histoclick.models.nets.refine import RefineDecoder, as_maps, attend


def original(width: int) -> SamMaskDecoder:
    """SAM's mask decoder with random weights, for one mask, ``width`` channels wide."""
    config = SamMaskDecoderConfig(
        hidden_size=width,
        mlp_dim=8 * width,
        num_multimask_outputs=0,
        layer_norm_eps=1e-5,
        attn_implementation="sdpa",
    )
    return SamMaskDecoder(config)


class SamDecoder(nn.Module):
    """The original (Kirillov et al. 2023): a mask is the product of its token and the embedding.

    One mask, not three; no IoU token's head, since the network's own judge has that task.
    """

    pyramidal = False

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        width = parts.widths[3]
        base = original(width)
        self.prompts = ClickTokens(width)
        self.output = nn.Embedding(2, width)  # IoU token and mask token
        self.transformer = base.transformer
        self.up1, self.norm, self.up2 = (
            base.upscale_conv1,
            base.upscale_layer_norm,
            base.upscale_conv2,
        )
        self.filter = base.output_hypernetworks_mlps[0]

    def forward(self, pyramid: Pyramid, clicks: Tensor, previous: Tensor) -> Draft:
        """As ``decoders.DenseDecoder``."""
        size = (pyramid.image.shape[2], pyramid.image.shape[3])
        sparse, real = self.prompts.clicks(clicks, size)
        maps = pyramid.s16 + self.prompts.dense(F.avg_pool2d(previous, 2))
        output = self.output.weight.expand(len(maps), 1, -1, -1)
        tokens = torch.cat([output, sparse], 2)
        real = F.pad(real, (output.shape[2], 0), value=True)
        positions = self.prompts.positions.grid(maps)
        keys, where = (each.flatten(2).transpose(1, 2)[:, None] for each in (maps, positions))
        queries = tokens
        for layer in self.transformer.layers:
            queries, keys = attend(layer, queries, keys, tokens, where, real)
        seen, _ = self.transformer.final_attn_token_to_image(
            query=queries + tokens, key=keys + where, value=keys
        )
        queries = self.transformer.layer_norm_final_attn(queries + seen)
        coarse = as_maps(keys[:, 0], maps)
        fine = F.gelu(self.up2(F.gelu(self.norm(self.up1(coarse)))))
        weights = self.filter(queries[:, 0, 1])
        proposal = torch.einsum("bc,bchw->bhw", weights, fine)[:, None]
        return Draft(double(proposal), double(fine), coarse)


class PaperDecoder(nn.Module):
    """The paper's (Kim et al. 2023): ``nets.refine`` at another width."""

    pyramidal = False

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        width = parts.widths[3]
        self.prompts = ClickTokens(width)
        self.refine = RefineDecoder(original(width))

    def forward(self, pyramid: Pyramid, clicks: Tensor, previous: Tensor) -> Draft:
        """As ``decoders.DenseDecoder``."""
        size = (pyramid.image.shape[2], pyramid.image.shape[3])
        sparse, real = self.prompts.clicks(clicks, size)
        maps = pyramid.s16 + self.prompts.dense(F.avg_pool2d(previous, 2))
        positions = self.prompts.positions.grid(maps)
        coarse, fine = self.refine.features(maps, positions, sparse, real)
        return Draft(double(self.refine.head(fine)), double(fine), coarse)
