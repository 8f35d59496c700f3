"""What built-in models are trained on: crops, targets of many kinds, and how many clicks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histoclick.patches import open_patch_set, read_image, read_labels
from histoclick.train import augment, objects
from histoclick.types import RGB8, Labels

Pairs = list[tuple[RGB8, Labels]]

CROP = 256
IMAGES, USERS = 6, 2  # crops per step, simulated users per crop
LONG_SIDE = (256, 640)  # px an image's longer side may be scaled to before cropping
MAX_CLICKS = 20
STOP = 0.3  # chance that a click is the last one


@dataclass(frozen=True)
class Batch:
    """``images``: (IMAGES, 3, S, S) in [-1, 1]; ``targets``: (IMAGES * USERS, S, S) bool;
    ``start``: the same shape, the masks the users start from; ``clicks``: how many they make."""

    images: Tensor
    targets: NDArray[np.bool_]
    start: NDArray[np.bool_]
    clicks: int


def read_folders(folders: list[Path]) -> list[Pairs]:
    """All (image, label image) pairs, one list per patch-set folder."""
    return [
        [(read_image(patch.image), read_labels(patch.mask)) for patch in open_patch_set(folder)]
        for folder in folders
    ]


def draw(sets: list[Pairs], seed: int, step: int, stop: float = STOP) -> Batch:
    """The batch of this step: a pure function of the data, the seed and the step."""
    rng = np.random.default_rng([seed, step])
    share = np.array([len(pairs) for pairs in sets]) ** 0.3  # small sets count for more
    crops: Pairs = []
    for index in rng.choice(len(sets), IMAGES, p=share / share.sum()):
        image, labels = sets[index][int(rng.integers(len(sets[index])))]
        side = float(np.exp(rng.uniform(*np.log(LONG_SIDE))))
        crops.append(augment.view(image, labels, CROP, side / max(labels.shape), rng))
    images, targets, start = [], [], []
    for i, (crop, labels) in enumerate(crops):
        image, pasted = crop, None
        if rng.random() < 0.2:
            pasted = objects.blob(CROP, rng)
            image = objects.paste(crop, crops[(i + 1) % IMAGES][0], pasted)
        for user in range(USERS):
            if pasted is not None:
                target = pasted if user == 0 else objects.choose(image, 0 * labels, rng)
            else:
                target = objects.choose(image, labels, rng)
            targets.append(target)
            wrong = rng.random() < 0.12
            start.append(objects.corrupt(target, rng) if wrong else np.zeros_like(target))
        images.append(augment.appearance(image, rng))
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    clicks = min(int(rng.geometric(stop)), MAX_CLICKS)
    return Batch(to_input(stacked), np.stack(targets), np.stack(start), clicks)


def to_input(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 -> float32 in [-1, 1], channels last."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def batches(sets: list[Pairs], seed: int, first: int, stop: float = STOP) -> Iterator[Batch]:
    """Batches from step ``first`` on, the next one prepared while the last one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(draw, sets, seed, first, stop)
        while True:
            batch = coming.result()
            first += 1
            coming = pool.submit(draw, sets, seed, first, stop)
            yield batch
