"""What built-in models are trained on: crops, targets of many kinds, and how many clicks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histoclick.patches import open_patch_set, read_image, read_labels
from histoclick.train import augment, objects
from histoclick.types import RGB8, HistoclickError, Labels, Mask

Pairs = list[tuple[RGB8, Labels]]


@dataclass(frozen=True)
class Recipe:
    """How batches are drawn.

    ``crop``: side of the crops, px. ``images``, ``users``: crops per step, simulated users per
    crop. ``long_side``: px an image's longer side may be scaled to before cropping. ``stop``:
    chance that a click is the last one; ``most_clicks``: that a user makes at most. Raises
    ``HistoclickError`` for values that make no batch.
    """

    crop: int = 256
    images: int = 6
    users: int = 2
    long_side: tuple[int, int] = (256, 640)
    stop: float = 0.3
    most_clicks: int = 20

    def __post_init__(self) -> None:
        least = min(self.images, self.users, self.most_clicks)
        wrong = {
            "crop must be a multiple of 32, and at least 32": self.crop < 32 or self.crop % 32 > 0,
            "images, users and most_clicks must be 1 or more": least < 1,
            "long_side must be two rising sizes": not 0 < self.long_side[0] <= self.long_side[1],
            "stop must be above 0 and up to 1": not 0 < self.stop <= 1,
        }
        for sentence, is_wrong in wrong.items():
            if is_wrong:
                raise HistoclickError(f"recipe of a training: {sentence}")


RECIPE = Recipe()


@dataclass(frozen=True)
class Batch:
    """``images``: (I, 3, S, S) in [-1, 1]; ``targets``: (I * U, S, S) bool, U users for each image;
    ``start``: the same shape, the masks the users start from; ``clicks``: how many they make.
    ``features``: what a frozen trunk made of the images, if that is known."""

    images: Tensor
    targets: NDArray[np.bool_]
    start: NDArray[np.bool_]
    clicks: int
    features: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class View:
    """A crop, (S, S, 3) and (S, S); ``pasted``: where a piece of another one was put into it, if it
    was."""

    image: RGB8
    labels: Labels
    pasted: Mask | None


def read_folders(folders: list[Path]) -> list[Pairs]:
    """All (image, label image) pairs, one list per patch-set folder."""
    return [
        [(read_image(patch.image), read_labels(patch.mask)) for patch in open_patch_set(folder)]
        for folder in folders
    ]


def draw(sets: list[Pairs], seed: int, step: int, recipe: Recipe = RECIPE) -> Batch:
    """The batch of this step: a pure function of the data, the seed and the step."""
    rng = np.random.default_rng([seed, step])
    crops = cut(sets, recipe, rng)
    images, targets, start = [], [], []
    for i in range(len(crops)):
        view = maybe_pasted(crops, i, rng)
        for user in range(recipe.users):
            target, begun = task(view, user, rng)
            targets.append(target)
            start.append(begun)
        images.append(augment.appearance(view.image, rng))
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return Batch(to_input(stacked), np.stack(targets), np.stack(start), clicks(recipe, rng))


def cut(sets: list[Pairs], recipe: Recipe, rng: np.random.Generator) -> Pairs:
    """``recipe.images`` crops at random scales, turned and mirrored."""
    share = np.array([len(pairs) for pairs in sets]) ** 0.3  # small sets count for more
    crops: Pairs = []
    for index in rng.choice(len(sets), recipe.images, p=share / share.sum()):
        image, labels = sets[index][int(rng.integers(len(sets[index])))]
        side = float(np.exp(rng.uniform(*np.log(recipe.long_side))))
        crops.append(augment.view(image, labels, recipe.crop, side / max(labels.shape), rng))
    return crops


def maybe_pasted(crops: Pairs, i: int, rng: np.random.Generator) -> View:
    """Crop ``i``; every fifth time with a piece of the next one in it."""
    image, labels = crops[i]
    if rng.random() >= 0.2:
        return View(image, labels, None)
    region = objects.blob(len(image), rng)
    other = crops[(i + 1) % len(crops)][0]
    return View(objects.paste(image, other, region), labels, region)


def task(view: View, user: int, rng: np.random.Generator) -> tuple[Mask, Mask]:
    """What a user wants, and the mask to start from, usually empty."""
    if view.pasted is None:
        target = objects.choose(view.image, view.labels, rng)
    elif user == 0:
        target = view.pasted
    else:
        target = objects.choose(view.image, 0 * view.labels, rng)
    wrong = rng.random() < 0.12
    return target, objects.corrupt(target, rng) if wrong else np.zeros_like(target)


def clicks(recipe: Recipe, rng: np.random.Generator) -> int:
    """How many the users of a batch make."""
    return min(int(rng.geometric(recipe.stop)), recipe.most_clicks)


def to_input(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 -> float32 in [-1, 1], channels last."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def batches(drawn: Callable[[int], Batch], first: int) -> Iterator[Batch]:
    """The batches ``drawn`` of step ``first`` and those after it, the next one prepared while the
    last one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(drawn, first)
        while True:
            batch = coming.result()
            first += 1
            coming = pool.submit(drawn, first)
            yield batch
