"""Accelerators return before they are done; whoever is timed must not."""

from __future__ import annotations

import torch


def finish(device: str | torch.device) -> None:
    """Wait until everything asked of ``device`` is done. Nothing to wait for on the CPU."""
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()
