"""What this machine is, for protocol cards and ``histoclick doctor``."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from histoclick.types import HistoclickError

PACKAGES = (
    "histoclick", "torch", "transformers", "onnxruntime", "numpy", "opencv-python-headless",
    "pandas",
)  # fmt: skip


def describe(device: str = "cpu", threads: int = 0) -> dict[str, Any]:
    """Processor, cores, device, threads and the versions that decide about numbers.

    ``threads``: of a model that has its own; 0 asks PyTorch. It is imported only if that is needed.
    """
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "device": device,
        "device_name": _device_name(device),
        "threads": threads or _threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of those of ``PACKAGES`` that are installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def devices() -> list[str]:
    """Devices models can run on here, best first."""
    found = ["cpu"]
    try:
        import torch
    except ImportError:  # an installation for exported models
        return found
    if torch.backends.mps.is_available():
        found.insert(0, "mps")
    if torch.cuda.is_available():
        found.insert(0, "cuda")
    return found


def resolve(device: str) -> str:
    """``auto`` as the best device there is; any other name if it works here.

    Raises ``HistoclickError`` for a device that does not exist or is not usable.
    """
    if device == "cpu":
        return device  # without waiting for PyTorch
    usable = devices()
    if device == "auto":
        return usable[0]
    try:
        import torch

        if torch.device(device).type not in usable:
            raise RuntimeError
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError):
        raise HistoclickError(
            f"device '{device}' cannot be used here; usable: {', '.join(usable)}"
        ) from None
    return device


def limit_threads(threads: int) -> None:
    """How many processor threads PyTorch takes, for all models of this process."""
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(threads)


def _device_name(device: str) -> str:
    if not device.startswith("cuda"):
        return ""
    import torch

    return torch.cuda.get_device_name(device)


def _threads() -> int:
    try:
        import torch
    except ImportError:
        return os.cpu_count() or 1
    return torch.get_num_threads()


def _processor() -> str:
    """The name people know; ``platform`` only knows the architecture on Linux."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
