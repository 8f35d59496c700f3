"""What a frozen encoder makes of every patch and of its eight turned and mirrored views, once.

A memory-mapped file of half-precision floats: the decoder trains from there, and pages of it come
from the disk as they are needed. It is made again when patches, weights or size change.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histoclick.train.d4 import VIEWS, d4
from histoclick.train.samples import Batch, Samples
from histoclick.train.trainee import Trainee
from histoclick.types import HistoclickError

DATA, NOTE = "embeddings.npy", "embeddings.json"
RESERVE = 200 * 10**6  # bytes of the disk that stay free
SAVE_EVERY_S = 30.0  # at most this much is encoded again after an interruption


class Embeddings:
    """``stored``: (patches, ``VIEWS``, C, h, w) float16."""

    def __init__(self, stored: NDArray[np.float16], device: torch.device | str) -> None:
        self._stored = stored
        self._device = device

    def __call__(self, batch: Batch, part: slice) -> Tensor:
        """(B, C, h, w) float32 of a part of a batch."""
        chosen = [
            self._stored[item, view]
            for item, view in zip(batch.items[part], batch.views[part], strict=True)
        ]
        return torch.from_numpy(np.stack(chosen)).to(self._device).float()


def embed(
    trainee: Trainee,
    samples: Samples,
    folder: Path,
    *,
    side_px: int,
    weights: str,
    seen: Callable[[int], object] = lambda done: None,
) -> Embeddings:
    """Make the embeddings of all patches in ``folder``, or go on making them, or take those there.

    ``weights``: what tells the encoder from another, such as the checksum of its file. The trainee
    gives a single tensor per image. ``seen`` is called with the number of patches that are done.
    Raises ``HistoclickError`` when the disk has no room, or patches are not ``side_px`` px square.
    """
    device = next(trainee.net.parameters()).device
    wanted = {"patches": samples.sha256, "weights": weights, "side_px": side_px}
    for item in range(len(samples)):
        samples.plain(item, side_px)  # a bad one is told before hours are spent
    path, note = folder / DATA, folder / NOTE
    state = _read(note)
    if state.get("of") != wanted or not path.exists():
        shape = (len(samples), VIEWS, *_encoded(trainee, samples, 0, 0, side_px, device).shape)
        folder.mkdir(parents=True, exist_ok=True)
        _check_room(folder, shape)
        np.lib.format.open_memmap(path, "w+", np.float16, shape).flush()
        state = {"of": wanted, "done": 0}
    stored = np.lib.format.open_memmap(path, "r+")
    saved, total = time.monotonic(), len(samples) * VIEWS
    for place in range(int(state["done"]), total):
        item, view = divmod(place, VIEWS)
        stored[item, view] = _encoded(trainee, samples, item, view, side_px, device)
        if place == total - 1 or time.monotonic() - saved >= SAVE_EVERY_S:
            stored.flush()
            _write(note, {"of": wanted, "done": place + 1})
            saved = time.monotonic()
        if view == VIEWS - 1:
            seen(item + 1)
    return Embeddings(np.load(path, mmap_mode="r"), device)


def _encoded(
    trainee: Trainee, samples: Samples, item: int, view: int, side_px: int, device: torch.device
) -> NDArray[np.float16]:
    """(C, h, w): one view of one patch."""
    image, _ = samples.plain(item, side_px)
    trainee.net.eval()
    with torch.no_grad():
        part = trainee.encode(d4(image.to(device), view))
    if not isinstance(part, Tensor):
        raise TypeError("only encoders that give a single tensor can be stored")
    made: NDArray[np.float16] = part[0].half().cpu().numpy()
    return made


def _check_room(folder: Path, shape: tuple[int, ...]) -> None:
    need = 2 * int(np.prod(shape)) + RESERVE
    free = shutil.disk_usage(folder).free
    if need > free:
        raise HistoclickError(
            f"{folder}: the embeddings need {need / 1e9:.1f} GB and the disk has {free / 1e9:.1f}; "
            "make room, or encode again each time with --no-store"
        )


def _read(note: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state


def _write(note: Path, state: dict[str, Any]) -> None:
    partial = note.with_name(f"{note.name}.partial")
    partial.write_text(json.dumps(state), encoding="utf-8")
    partial.replace(note)
