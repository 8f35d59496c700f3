"""Crops drawn once, with what a frozen trunk makes of them: then only a decoder has to learn.

A pool holds what ``crops.draw`` would draw (scale, D4 view, paste, stain), so that a training from
it differs from one without in how many different crops it sees, and in that the trunk stays as it
is. Files are memory-mapped: batches read a few crops of them at a time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histoclick.models.nets.mobilenet import CHANNELS, MobileNetV2
from histoclick.train import augment
from histoclick.train.crops import (
    Batch,
    Pairs,
    Recipe,
    View,
    clicks,
    cut,
    maybe_pasted,
    task,
    to_input,
)
from histoclick.types import HistoclickError

NOTE = "pool.json"
STRIDES = (2, 4, 8, 16, 32)
TOGETHER = 8  # crops drawn and encoded at once
RESERVE = 2 * 10**9  # bytes of the disk that stay free
DRAWN = 1  # keeps the random numbers of the pool apart from those of the steps


@dataclass(frozen=True)
class Pool:
    """N crops of side S. ``images``: (N, S, S, 3) uint8. ``labels``: (N, S, S) uint16. ``pasted``:
    (N, S, S) bool, empty where nothing was pasted. ``features``: (N, C, S / stride, S / stride)
    float16 of every output of the trunk."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint16]
    pasted: NDArray[np.bool_]
    features: tuple[NDArray[np.float16], ...]

    def draw(self, seed: int, step: int, recipe: Recipe) -> Batch:
        """The batch of this step, as ``crops.draw``; sides and scales are those of the pool."""
        rng = np.random.default_rng([seed, step])
        chosen = rng.choice(len(self.images), recipe.images)
        targets, start = [], []
        for i in chosen:
            pasted = np.array(self.pasted[i])
            labels = np.array(self.labels[i])
            view = View(np.array(self.images[i]), labels, pasted if pasted.any() else None)
            for user in range(recipe.users):
                target, begun = task(view, user, rng)
                targets.append(target)
                start.append(begun)
        images = torch.from_numpy(self.images[chosen]).permute(0, 3, 1, 2)
        features = tuple(
            torch.from_numpy(each[chosen]).float().contiguous(memory_format=torch.channels_last)
            for each in self.features
        )
        return Batch(
            to_input(images), np.stack(targets), np.stack(start), clicks(recipe, rng), features
        )


def make_pool(
    sets: list[Pairs],
    trunk: MobileNetV2,
    folder: Path,
    count: int,
    seed: int,
    recipe: Recipe,
    seen: Callable[[int], object] = lambda done: None,
) -> Pool:
    """``count`` crops in ``folder``: made, gone on with, or taken as they are there.

    ``trunk``: in evaluation mode. ``seen`` is called with the number of crops done. Raises
    ``HistoclickError`` where the disk has no room, or the folder holds a pool of something else.
    """
    if count < 1:
        raise HistoclickError(f"a pool of {count} crops; give at least 1")
    how = {"count": count, "seed": seed, "crop": recipe.crop, "long_side": list(recipe.long_side)}
    wanted = {"data": _digest(sets), "trunk": _digest_of(trunk), **how}
    note = folder / NOTE
    done = 0
    if note.exists():
        state = json.loads(note.read_text(encoding="utf-8"))
        if state["of"] != wanted:
            raise HistoclickError(
                f"{folder}: holds the crops of other data, another trunk or other settings; delete "
                "it, or choose another folder"
            )
        done = int(state["done"])
    arrays = _open(folder, count, recipe.crop, new=not note.exists())
    together = replace(recipe, images=TOGETHER)
    for first in range(done - done % TOGETHER, count, TOGETHER):
        rng = np.random.default_rng([seed, first, DRAWN])
        crops = cut(sets, together, rng)
        images = []
        for i in range(min(TOGETHER, count - first)):
            view = maybe_pasted(crops, i, rng)
            images.append(augment.appearance(view.image, rng))
            arrays["labels"][first + i] = view.labels
            arrays["pasted"][first + i] = False if view.pasted is None else view.pasted
        stacked = np.stack(images)
        place = slice(first, first + len(stacked))
        arrays["images"][place] = stacked
        with torch.no_grad():
            made = trunk(to_input(torch.from_numpy(stacked).permute(0, 3, 1, 2)))
        for stride, part in zip(STRIDES, made, strict=True):
            arrays[f"s{stride}"][place] = part.half().numpy()
        if (first // TOGETHER) % 25 == 0 or place.stop == count:
            for array in arrays.values():
                array.flush()
            _write(note, {"of": wanted, "done": place.stop})
        seen(place.stop)
    return read_pool(folder)


def read_pool(folder: Path) -> Pool:
    """A pool that is finished. Raises ``HistoclickError`` for one that is not there or not done."""
    try:
        state = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise HistoclickError(f"{folder}: no pool of crops; make one first") from None
    if state["done"] < state["of"]["count"]:
        raise HistoclickError(f"{folder}: the pool is not finished; make it again to go on")
    names = ("images", "labels", "pasted", *(f"s{stride}" for stride in STRIDES))
    held = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]
    return Pool(held[0], held[1], held[2], tuple(held[3:]))


def _open(folder: Path, count: int, side: int, new: bool) -> dict[str, Any]:
    """The files by name, new or as they are."""
    kinds: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
        "images": (np.uint8, (side, side, 3)),
        "labels": (np.uint16, (side, side)),
        "pasted": (np.bool_, (side, side)),
    }
    for stride, channels in zip(STRIDES, CHANNELS, strict=True):
        kinds[f"s{stride}"] = (np.float16, (channels, side // stride, side // stride))
    folder.mkdir(parents=True, exist_ok=True)
    need = sum(count * int(np.prod(s)) * np.dtype(kind).itemsize for kind, s in kinds.values())
    free = shutil.disk_usage(folder).free
    if new and need + RESERVE > free:
        raise HistoclickError(
            f"{folder}: {count} crops need {need / 1e9:.1f} GB and the disk has {free / 1e9:.1f}; "
            "make room, or ask for fewer crops"
        )
    return {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+" if new else "r+", kind, (count, *shape) if new else None
        )
        for name, (kind, shape) in kinds.items()
    }


def _digest(sets: list[Pairs]) -> str:
    digest = hashlib.sha256()
    for image, labels in (pair for pairs in sets for pair in pairs):
        digest.update(np.ascontiguousarray(image).data)
        digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def _digest_of(trunk: MobileNetV2) -> str:
    digest = hashlib.sha256()
    values: list[Tensor] = list(trunk.state_dict().values())
    for value in values:
        digest.update(np.ascontiguousarray(value.numpy()).data)
    return digest.hexdigest()


def _write(note: Path, state: dict[str, Any]) -> None:
    partial = note.with_name(f"{note.name}.partial")
    partial.write_text(json.dumps(state), encoding="utf-8")
    partial.replace(note)
