"""Names of SAM's weights: official (segment-anything) and native (transformers). Pure, no torch.

One table, read forwards by ``native_name`` and backwards by ``official_name``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")
Renames = tuple[tuple[str, str], ...]  # (official, native)

_NORMS: Renames = ((".norm", ".layer_norm"), ("norm_final", "layer_norm_final"))
# Official numbers the three linear layers of a head; native gives the outer two their own names.
_LINEAR: Renames = (
    ("layers.0.", "proj_in."),
    ("layers.1.", "layers.0."),
    ("layers.2.", "proj_out."),
)

# (official prefix, native prefix, what else is renamed behind it). The first prefix that fits
# counts, and behind it the first rename; a name that fits nowhere is the same on both sides.
_TABLE: tuple[tuple[str, str, Renames], ...] = (
    ("image_encoder.patch_embed.proj.", "vision_encoder.patch_embed.projection.", ()),
    ("image_encoder.blocks.", "vision_encoder.layers.", _NORMS),
    ("image_encoder.layers.", "vision_encoder.stages.", ()),  # TinyViT
    ("image_encoder.neck.0.", "vision_encoder.neck.conv1.", ()),
    ("image_encoder.neck.1.", "vision_encoder.neck.layer_norm1.", ()),
    ("image_encoder.neck.2.", "vision_encoder.neck.conv2.", ()),
    ("image_encoder.neck.3.", "vision_encoder.neck.layer_norm2.", ()),
    ("image_encoder.", "vision_encoder.", ()),
    (
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "shared_image_embedding.positional_embedding",
        (),
    ),
    ("prompt_encoder.point_embeddings.", "prompt_encoder.point_embed.", ()),
    ("prompt_encoder.mask_downscaling.0.", "prompt_encoder.mask_embed.conv1.", ()),
    ("prompt_encoder.mask_downscaling.1.", "prompt_encoder.mask_embed.layer_norm1.", ()),
    ("prompt_encoder.mask_downscaling.3.", "prompt_encoder.mask_embed.conv2.", ()),
    ("prompt_encoder.mask_downscaling.4.", "prompt_encoder.mask_embed.layer_norm2.", ()),
    ("prompt_encoder.mask_downscaling.6.", "prompt_encoder.mask_embed.conv3.", ()),
    ("mask_decoder.transformer.", "mask_decoder.transformer.", _NORMS),
    ("mask_decoder.output_upscaling.0.", "mask_decoder.upscale_conv1.", ()),
    ("mask_decoder.output_upscaling.1.", "mask_decoder.upscale_layer_norm.", ()),
    ("mask_decoder.output_upscaling.3.", "mask_decoder.upscale_conv2.", ()),
    ("mask_decoder.output_hypernetworks_mlps.", "mask_decoder.output_hypernetworks_mlps.", _LINEAR),
    ("mask_decoder.iou_prediction_head.", "mask_decoder.iou_prediction_head.", _LINEAR),
)

# The Fourier matrix of the positions: official files hold it once, native models twice (tied).
_FOURIER = "shared_image_embedding.positional_embedding"
_FOURIER_AGAIN = "prompt_encoder.shared_embedding.positional_embedding"


def native_name(official: str) -> str:
    """``image_encoder.blocks.0.norm1.bias`` -> ``vision_encoder.layers.0.layer_norm1.bias``."""
    return _rename(official, _TABLE)


def official_name(native: str) -> str:
    """The inverse of ``native_name``."""
    return _rename(
        native, [(new, old, tuple((b, a) for a, b in parts)) for old, new, parts in _TABLE]
    )


def to_native(state: Mapping[str, T]) -> dict[str, T]:
    """``state`` under native names, complete: the Fourier matrix stands under both of its names."""
    native = {native_name(name): value for name, value in state.items()}
    if _FOURIER in native:
        native[_FOURIER_AGAIN] = native[_FOURIER]
    return native


def to_official(native: Mapping[str, T]) -> dict[str, T]:
    """The inverse of ``to_native``."""
    return {official_name(n): value for n, value in native.items() if n != _FOURIER_AGAIN}


def _rename(name: str, table: Iterable[tuple[str, str, Renames]]) -> str:
    for prefix, replacement, parts in table:
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            for old, new in parts:
                if old in rest:
                    rest = rest.replace(old, new)
                    break
            return replacement + rest
    return name
