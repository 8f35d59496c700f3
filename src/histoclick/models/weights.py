"""Weight files: read safely, verified, written whole. Knows no model family.

Files come from strangers. Nothing in them is executed: pickles are read by torch's restricted
unpickler, which knows tensors and plain containers only, or by ``pickles``, which calls nothing.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from histoclick.models.pickles import read_tensors
from histoclick.types import HistoclickError

Shapes = Mapping[str, tuple[int, ...]]

_WRAPPERS = ("state_dict", "model")  # the usual names under which training code files the weights
_ZIP = b"PK\x03\x04"
_TORCH = (_ZIP, b"\x80")  # how torch's files begin: zip archive, or pickle before 1.6
_POINTERS = (b"version https://git-lfs.github.com", b"# xet version")


def read_state_dict(path: Path, *, skip_objects: bool = False) -> dict[str, Tensor]:
    """The named tensors of a ``.safetensors``, ``.pth`` or ``.pt`` file, on the CPU.

    A dictionary around them (``{"state_dict": ...}``, ``{"model": ...}``) is taken off.
    ``skip_objects``: for families whose official files hold Python objects beside the weights;
    those are passed over, neither made nor run. Raises ``HistoclickError`` for everything that is
    not a readable, harmless file of tensors.
    """
    if not path.is_file():
        raise HistoclickError(f"there is no weight file {path}; check the path")
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(_POINTERS):
        raise HistoclickError(
            f"{path} only points to weights kept elsewhere; fetch them, for instance with "
            "`git lfs pull`, or download the file itself"
        )
    if path.suffix == ".safetensors":
        content = _read_safetensors(path)
    elif path.suffix in {".pth", ".pt"} and not head.startswith(_TORCH):
        raise _damaged(path, "not written by torch")
    elif path.suffix in {".pth", ".pt"}:
        content = _read_pickle(path, skip_objects and head.startswith(_ZIP))
    else:
        raise HistoclickError(
            f"{path} is no weight file by its name; give a .safetensors, .pth or .pt file"
        )
    return _state_dict(content, path)


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def check_keys(found: Shapes, expected: Shapes, what: str) -> None:
    """Raises ``HistoclickError`` unless names and shapes agree; ``what`` says whose were found."""
    problems = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of the wrong shape": [
            f"{name} {found[name]} instead of {shape}"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ],
    }
    told = [f"{len(names)} {kind} ({_first(names)})" for kind, names in problems.items() if names]
    if told:
        raise HistoclickError(
            f"{what} does not hold the weights of this network: {'; '.join(told)}; "
            "give the file that belongs to the model"
        )


def write_safetensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Write ``state``, tensors that share memory as copies.

    When it fails, ``path`` holds what it held before.
    """
    tensors: dict[str, Tensor] = {}
    stored: set[int] = set()
    for name, tensor in state.items():
        plain = tensor.detach().contiguous()
        storage = plain.untyped_storage().data_ptr()
        tensors[name] = plain.clone() if storage in stored else plain
        stored.add(storage)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial)
        partial.chmod(0o644)  # else only the owner could use the model
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error)) from error


def _read_pickle(path: Path, skip_objects: bool) -> Any:
    try:
        if skip_objects:
            return read_tensors(path)
        with warnings.catch_warnings(action="ignore"):  # what is wrong is told in one sentence
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise HistoclickError(
            f"{path} holds Python objects besides tensors (or is damaged), and those could run "
            "code; save its state_dict alone, or convert it to .safetensors where you trust it"
        ) from error
    except Exception as error:  # an unpickler that is fed damage raises whatever it stumbles on
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> HistoclickError:
    first = next(iter(reason.splitlines()), "it ends too early").split(". ")[0]
    if "TorchScript" in reason:
        return HistoclickError(
            f"{path} is a TorchScript archive, which holds code; save its state_dict instead"
        )
    return HistoclickError(f"{path} is damaged or no weight file ({first}); fetch it again")


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise HistoclickError(f"{path} holds no named tensors; give a file with a state_dict")
    for name, tensor in content.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise HistoclickError(
                f"{path} holds {name!r}, a {type(tensor).__name__}, among its weights; "
                "save the model's state_dict alone"
            )
    return dict(content)


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
