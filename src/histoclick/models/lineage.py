"""What a weight file of the RITM lineage says of its network beside the weights.

RITM and FocalClick file ``{"state_dict": ..., "config": ...}``; the config names a Python class of
theirs, which nobody here looks up, and the arguments it was made with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def read_params(file: Path) -> dict[str, Any]:
    """The arguments by name; empty where the file has no config. A readable weight file."""
    if file.suffix == ".safetensors":
        return {}
    content = torch.load(file, map_location="cpu", weights_only=True)
    params: Any = content
    for key in ("config", "params"):
        params = params.get(key) if isinstance(params, dict) else None
    if not isinstance(params, dict):
        return {}
    entries = ((name, entry) for name, entry in params.items() if isinstance(entry, dict))
    return {str(name): entry.get("value") for name, entry in entries}
