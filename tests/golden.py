"""The conformance fixtures, and the deterministic weights they were made with.

Every weight is drawn from a stream seeded by its own name, so any model with the official names
and shapes can be filled exactly as the reference was.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HALF = ("point_embeddings", "not_a_point_embed", "no_mask_embed", "iou_token", "mask_tokens")
SCALES = {  # by the last part of the name
    "running_mean": 0.1,
    "positional_encoding_gaussian_matrix": 1.0,
    "pos_embed": 0.2,
    "rel_pos_h": 0.2,
    "rel_pos_w": 0.2,
    "attention_biases": 0.2,
    "cls_token": 0.02,
}


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file, packed booleans unpacked."""
    with np.load(path) as file:
        found = dict(file)
    for packed in [name for name in found if name.endswith("__bits")]:
        name = packed.removesuffix("__bits")
        shape = found.pop(f"{name}__shape")
        found[name] = np.unpackbits(found.pop(packed), count=shape.prod()).reshape(shape) > 0
    return found


def stream(name: str) -> np.random.Generator:
    """The random stream that belongs to ``name``."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))


def weight(name: str, shape: tuple[int, ...], gain: float = 1.0) -> NDArray[np.float32]:
    """The float32 weight called ``name``."""
    random, last = stream(name), name.rpartition(".")[2]
    if last == "running_var":
        return np.float32(0.5) + random.random(shape, np.float32)
    normal = random.standard_normal(shape, np.float32)
    if last in SCALES:
        return np.float32(SCALES[last]) * normal
    if any(part in name for part in HALF):
        return np.float32(0.5) * normal
    if len(shape) < 2:
        if last in ("weight", "scale"):
            return np.float32(1) + np.float32(0.1) * normal
        return np.float32(0.02) * normal
    inputs = math.prod(shape[1:])
    if inputs > 1:
        mean = normal.mean(tuple(range(1, len(shape))), np.float64, keepdims=True)
        normal = (normal - mean).astype(np.float32)
    return np.float32(gain / np.sqrt(inputs)) * normal


def weights(
    shapes: Mapping[str, tuple[int, ...]],
    gain: float = 1.0,
    overrides: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Tensor]:
    """A whole state dict: float32 weights, and the counters of batch norms at zero."""
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros(shape, dtype=torch.int64)
            continue
        value = weight(name, shape, gain)
        change = (overrides or {}).get(name, {})
        if "mul" in change:
            value = value * np.float32(change["mul"])
        if "add" in change:
            value = value + np.float32(change["add"])
        state[name] = torch.from_numpy(value)
    return state


def official_shapes(family: Path, model: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official state dict. ``family``: its folder of fixtures."""
    listing = json.loads((family / f"keys_{model}.json").read_text())
    return {name: tuple(shape) for name, shape, _ in listing["state_dict"]}


def official_weights(family: Path, model: str, skip: str = "-") -> dict[str, Tensor]:
    """The weights the fixtures of ``model`` were made with, checked against their probe.

    Names that start with ``skip`` are left out.
    """
    shapes = official_shapes(family, model)
    settings = json.loads((family / "overrides.json").read_text())[model]
    wanted = {name: shape for name, shape in shapes.items() if not name.startswith(skip)}
    state = weights(wanted, settings["gain"], settings["overrides"])
    for name, values in settings["probe"].items():
        if name in state:
            first = state[name].flatten()[: len(values)].numpy()
            np.testing.assert_allclose(first, values, rtol=1e-6, atol=1e-7, err_msg=name)
    return state


def agrees(
    arrays: Mapping[str, NDArray[Any]],
    name: str,
    full: Tensor | NDArray[Any],
    stride: int,
    atol: float,
) -> None:
    """Asserts that ``full`` is what the fixture holds of it, and has its mean, std, min and max."""
    full = np.asarray(full)
    found = full[..., ::stride, ::stride]
    np.testing.assert_allclose(found, arrays[name], rtol=0, atol=atol, err_msg=name)
    stats = [full.mean(dtype=np.float64), full.std(dtype=np.float64), full.min(), full.max()]
    np.testing.assert_allclose(stats, arrays[f"{name}__stats"], rtol=0, atol=atol, err_msg=name)
