"""What a device needs or likes."""

from __future__ import annotations

import torch


def finish(device: str | torch.device) -> None:
    """Wait until everything asked of ``device`` is done: accelerators return before, and whoever
    is timed must not. Nothing to wait for on the CPU.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()


def fast_dtype(device: str | torch.device) -> torch.dtype:
    """bfloat16 on processors that multiply it by themselves (AMX, AVX-512 BF16), else float32."""
    half = torch.device(device).type == "cpu" and (
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )
    return torch.bfloat16 if half else torch.float32
