"""SAM's network: the parts are transformers' ``SamModel``, numerically the official ones.

Built from numbers, never from the Hub. The parts (``vision_encoder``, ``prompt_encoder``,
``mask_decoder``) are attributes; the paper's decoder (``refine``) has the same signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from histoclick.models.nets.refine import RefineDecoder
from histoclick.models.sam.keys import to_native, to_official
from histoclick.models.sam.tinyvit import STAGES, Stage, TinyViT
from histoclick.models.sam.vit import Layer

INPUT_PX = 1024  # side of the square the published encoders see


class Encoder(NamedTuple):
    """What tells one image encoder (ViT) from another."""

    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]  # these attend everywhere, the others within 14x14 windows


VITS = {
    "vit_b": Encoder(768, 12, 12, (2, 5, 8, 11)),
    "vit_l": Encoder(1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": Encoder(1280, 32, 16, (7, 15, 23, 31)),
}
VARIANTS: dict[str, Encoder | tuple[Stage, ...]] = VITS | {"vit_t": STAGES}  # MobileSAM's
REFINE = "-refine"  # after the name of a variant: with the paper's decoder


def assemble(
    encoder: Encoder | tuple[Stage, ...],
    input_px: int = INPUT_PX,
    *,
    refine: bool = False,
    fast: bool = True,
) -> SamModel:
    """The whole network around ``encoder``, with random weights.

    ``refine``: with the paper's mask decoder. ``fast=False`` keeps transformers' own layers of a
    ViT, for comparing with them.
    """
    vit = encoder if isinstance(encoder, Encoder) else Encoder(encoder[-1].width, 0, 1, ())
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=vit.width,
            num_hidden_layers=vit.depth,
            num_attention_heads=vit.heads,
            global_attn_indexes=list(vit.global_blocks),
            image_size=input_px,
            initializer_range=0.02,  # transformers' default of 1e-10 is no start to learn from
        ),
        prompt_encoder_config=SamPromptEncoderConfig(image_size=input_px),
        # transformers' default of 1e-6 is not what the decoder was trained with
        mask_decoder_config=SamMaskDecoderConfig(layer_norm_eps=1e-5),
        attn_implementation="sdpa",
    )
    model = SamModel(config)
    if not isinstance(encoder, Encoder):
        model.vision_encoder = TinyViT(encoder, model.vision_encoder.neck)
    elif fast:
        model.vision_encoder.layers = nn.ModuleList(map(Layer, model.vision_encoder.layers))
    if refine:
        model.mask_decoder = RefineDecoder(model.mask_decoder)
    # a parameter here, a buffer in the reference: no scenario trains it
    model.shared_image_embedding.positional_embedding.requires_grad_(False)
    return model


def assemble_variant(variant: str, input_px: int = INPUT_PX) -> SamModel:
    """``assemble`` by name: of ``VARIANTS``, or with ``REFINE`` behind it."""
    encoder = VARIANTS[variant.removesuffix(REFINE)]
    return assemble(encoder, input_px, refine=variant.endswith(REFINE))


def build(
    variant: str, state: Mapping[str, Tensor] | None = None, input_px: int = INPUT_PX
) -> SamModel:
    """The network called ``variant``, float32 on the CPU.

    ``state``: official names; it is taken over without a copy, which saves the seconds that the
    random weights of a large encoder take. Raises ``RuntimeError`` where it does not fit
    (``expected_shapes`` tells beforehand). ``input_px``: side of the square that it sees; a ViT
    has as many positions as its published side, TinyViT works at any multiple of 16.
    """
    if state is None:
        return assemble_variant(variant, input_px)
    with torch.device("meta"):
        model = assemble_variant(variant, input_px)
    model.load_state_dict(to_native(state), strict=True, assign=True)
    model.tie_weights()
    return model.float()


def narrow(model: SamModel, dtype: torch.dtype) -> torch.dtype:
    """Make the weights of the image encoder's transformer layers ``dtype``; returns what they are.

    Sums and norms stay float32, and all of TinyViT: it loses too much by bfloat16 (of the
    reference's random network, every tenth pixel of a mask; of ViT-B, one in some hundreds).
    """
    if isinstance(model.vision_encoder, TinyViT):
        return torch.float32
    for layer in model.vision_encoder.layers:
        layer.attn.to(dtype)
        layer.mlp.to(dtype)
    return dtype


def expected_shapes(variant: str) -> dict[str, tuple[int, ...]]:
    """Official names and shapes of every weight of ``variant``."""
    with torch.device("meta"):
        model = assemble_variant(variant)
    return {name: tuple(w.shape) for name, w in to_official(model.state_dict()).items()}


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """The variant whose official weights ``state`` are, told by the encoder's first weights, and
    by the decoder's head."""
    decoder = REFINE if "mask_decoder.head.weight" in state else ""
    if "image_encoder.patch_embed.seq.0.c.weight" in state:
        return f"vit_t{decoder}"
    positions = state.get("image_encoder.pos_embed")
    if positions is None or "mask_decoder.mask_tokens.weight" not in state:
        return None
    widths = {encoder.width: variant for variant, encoder in VITS.items()}
    variant = widths.get(positions.shape[-1])
    return variant and f"{variant}{decoder}"


def embed_prompt(
    model: SamModel,
    points: Tensor | None,
    labels: Tensor | None,
    boxes: Tensor | None,
    masks: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Prompts as tokens and as a map.

    Coordinates are pixels of the encoder's square input. ``points``: (B, N, 2) of x, y, ``labels``:
    (B, N), 1 positive, 0 negative, -1 no point. ``boxes``: (B, 4) of x0, y0, x1, y1. ``masks``:
    (B, 1, 256, 256) logits. Without a box one more point labelled -1 is added. Returns sparse
    (B, tokens, 256), points before box corners, and dense (B, 256, 64, 64).
    """
    sparse, dense = model.prompt_encoder(
        input_points=None if points is None else points[:, None],
        input_labels=None if labels is None else labels[:, None],
        input_boxes=None if boxes is None else boxes[:, None],
        input_masks=masks,
    )
    if sparse is None:
        return dense.new_empty(len(dense), 0, dense.shape[1]), dense
    return sparse[:, 0], dense


def decode(
    model: SamModel,
    embedding: Tensor,
    points: Tensor | None = None,
    labels: Tensor | None = None,
    boxes: Tensor | None = None,
    masks: Tensor | None = None,
    *,
    multimask: bool,
) -> tuple[Tensor, Tensor]:
    """Masks for B prompts on one image, or on B images; prompts as in ``embed_prompt``.

    ``embedding``: (1 or B, 256, 64, 64). Returns logits (B, M, 256, 256) and the predicted IoU of
    each (B, M); M is 3 with ``multimask`` (whole, part, subpart), else 1.
    """
    sparse, dense = embed_prompt(model, points, labels, boxes, masks)
    logits, iou = model.mask_decoder(
        image_embeddings=embedding.expand(len(sparse), -1, -1, -1),
        image_positional_embeddings=model.get_image_wide_positional_embeddings(),
        sparse_prompt_embeddings=sparse[:, None],
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
    )
    return logits[:, 0], iou[:, 0]
