"""What this machine is, for protocol cards and ``histoclick doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from histoclick.types import HistoclickError

PACKAGES = ("histoclick", "torch", "transformers", "numpy", "opencv-python-headless", "pandas")


def describe(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, device, threads and the versions that decide about numbers."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else "",
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def devices() -> list[str]:
    """Devices models can run on here, best first."""
    import torch

    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.insert(0, "mps")
    if torch.cuda.is_available():
        found.insert(0, "cuda")
    return found


def resolve(device: str) -> str:
    """``auto`` as the best device there is; any other name if it works here.

    Raises ``HistoclickError`` for a device that does not exist or is not usable.
    """
    import torch

    usable = devices()
    if device == "auto":
        return usable[0]
    try:
        if torch.device(device).type not in usable:
            raise RuntimeError
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise HistoclickError(
            f"device '{device}' cannot be used here; usable: {', '.join(usable)}"
        ) from None
    return device


def _processor() -> str:
    """The name people know; ``platform`` only knows the architecture on Linux."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
