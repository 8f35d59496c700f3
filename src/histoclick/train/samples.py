"""Patches for training: read once, checked, and drawn as a function of seed and step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histoclick.patches import PatchSet, open_patch_set
from histoclick.train.batchaugment import Augmentation, Change, draw_change, move, recolour
from histoclick.train.d4 import VIEWS, d4
from histoclick.train.settings import Settings
from histoclick.types import HistoclickError, Sample

PLAIN = Augmentation(scale=(1.0, 1.0), stained=0.0, blurred=0.0, compressed=0.0)
LEAST = 0.005  # of a crop that has to be object, and has not to be, to be worth a click
TRIES = 8


@dataclass(frozen=True)
class Batch:
    """``images``: (B, 3, S, S) float32 RGB in 0..1; ``targets``: (B, S, S) bool; ``rngs``: for the
    clicks of each; ``clicks``: how many follow before the graded one. ``items``: which patches they
    are, ``views``: how each was turned (see ``d4``), where nothing else was done to it."""

    images: Tensor
    targets: NDArray[np.bool_]
    rngs: Sequence[np.random.Generator]
    clicks: int
    items: tuple[int, ...]
    views: tuple[int, ...]


@dataclass(frozen=True)
class Samples:
    """All patches of some sets, in memory as they were decoded.

    ``names``, ``slides``: for the card and for finding leaks; without manifests (``has_slides`` is
    False) each patch counts as a slide. ``sha256``: of all sets.
    """

    samples: tuple[Sample, ...]
    names: tuple[str, ...]
    slides: frozenset[str]
    sha256: str
    has_slides: bool = True

    @classmethod
    def read(cls, folders: Sequence[Path]) -> Samples:
        """Read and check patch sets. Raises ``HistoclickError`` for a bad or useless patch."""
        samples: list[Sample] = []
        sets: list[PatchSet] = [open_patch_set(folder) for folder in folders]
        digest = hashlib.sha256()
        for patches in sets:
            digest.update(patches.check().encode())
            for patch in patches:
                sample = patch.read()
                if sample.mask.all():
                    raise HistoclickError(
                        f"{patch.mask}: everything is object, so there is nothing to tell it from; "
                        "remove this patch from the set"
                    )
                samples.append(sample)
        slides = frozenset(sample.slide for sample in samples)
        named = all(each.has_slides for each in sets)
        names = tuple(each.name for each in sets)
        return cls(tuple(samples), names, slides, digest.hexdigest(), named)

    def __len__(self) -> int:
        return len(self.samples)

    def steps(self, settings: Settings) -> int:
        """Of an epoch: every patch is drawn once, the last batch is filled up."""
        return -(-len(self) // settings.batch)

    def batch(self, settings: Settings, step: int, *, plain: bool = False) -> Batch:
        """What is trained on at this step: a pure function of the patches, the seed and the step.

        ``plain``: turns and mirrors only, for encoders whose answers are kept.
        """
        epoch, place = divmod(step, self.steps(settings))
        order = np.random.default_rng([settings.seed, 1, epoch]).permutation(len(self))
        wanted = np.arange(place * settings.batch, (place + 1) * settings.batch)
        items = tuple(int(order[i % len(self)]) for i in wanted)
        rngs = [np.random.default_rng([settings.seed, 2, step, i]) for i in range(settings.batch)]
        draw = self._turned if plain else self._cropped
        drawn = [draw(item, settings, rng) for item, rng in zip(items, rngs, strict=True)]
        clicks = np.random.default_rng([settings.seed, 3, step]).integers(settings.next_clicks + 1)
        return Batch(
            torch.cat([image for image, _, _ in drawn]),
            np.concatenate([target for _, target, _ in drawn]),
            rngs,
            int(clicks),
            items,
            tuple(view for _, _, view in drawn),
        )

    def batches(self, settings: Settings, first: int, *, plain: bool = False) -> Iterator[Batch]:
        """Batches from step ``first`` on, the next one prepared while the last one is used."""
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self.batch, settings, first, plain=plain)
            while True:
                batch, first = coming.result(), first + 1
                coming = pool.submit(self.batch, settings, first, plain=plain)
                yield batch

    def plain(self, item: int, side_px: int) -> tuple[Tensor, Tensor]:
        """The patch as it is: (1, 3, S, S) float32 in 0..1 and (1, 1, S, S) bool.

        Raises ``HistoclickError`` for another size than ``side_px``.
        """
        sample = self.samples[item]
        if sample.mask.shape != (side_px, side_px):
            height, width = sample.mask.shape
            raise HistoclickError(
                f"patch {sample.id} has {width}x{height} px and not {side_px}x{side_px}: images "
                "that are encoded once have to be of one size; cut them alike, set crop_px, or "
                "give --no-store"
            )
        return _tensors(sample)

    def _turned(self, item: int, settings: Settings, rng: np.random.Generator) -> Drawn:
        view = int(rng.integers(VIEWS))
        image, target = self.plain(item, settings.crop_px)
        return d4(image, view), d4(target, view)[:, 0].numpy(), view

    def _cropped(self, item: int, settings: Settings, rng: np.random.Generator) -> Drawn:
        """A crop with object and background in it, if a few tries find one; else all, resized."""
        image, target = _tensors(self.samples[item])
        rule = Augmentation() if settings.augment else PLAIN
        for _ in range(TRIES):
            change = draw_change(rule, rng)
            crop, cut = move(image, target, [change], settings.crop_px)
            if LEAST <= cut.float().mean() <= 1 - LEAST:
                break
        else:
            change = Change(scale=settings.crop_px / max(image.shape[2:]))
            crop, cut = move(image, target, [change], settings.crop_px)
        return recolour(crop, [change]), cut[:, 0].numpy(), change.view


Drawn = tuple[Tensor, NDArray[np.bool_], int]  # (1, 3, S, S), (1, S, S), how it was turned


def _tensors(sample: Sample) -> tuple[Tensor, Tensor]:
    image = torch.from_numpy(np.array(sample.image)).permute(2, 0, 1)[None].float() / 255
    return image, torch.from_numpy(np.array(sample.mask))[None, None]
