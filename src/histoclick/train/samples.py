"""Patches for training: read once, checked, and drawn as a function of seed and step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histoclick.patches import PatchSet, open_patch_set
from histoclick.train import augment
from histoclick.train.settings import Settings
from histoclick.types import RGB8, HistoclickError, Labels, Mask, Sample

LEAST = 0.005  # of a crop that has to be object, and has not to be, to be worth a click
TRIES = 8


@dataclass(frozen=True)
class Batch:
    """``images``: (B, 3, S, S) uint8 RGB; ``targets``: (B, S, S) bool; ``rngs``: for the clicks of
    each; ``clicks``: how many follow before the graded one. ``items``: which patches they are,
    ``views``: how each was turned (0 to 7), where nothing else was done to it."""

    images: NDArray[np.uint8]
    targets: NDArray[np.bool_]
    rngs: Sequence[np.random.Generator]
    clicks: int
    items: tuple[int, ...]
    views: tuple[int, ...]


@dataclass(frozen=True)
class Samples:
    """All patches of some sets, in memory as they were decoded.

    ``names``, ``slides``: for the card and for finding leaks. ``sha256``: of all sets.
    """

    samples: tuple[Sample, ...]
    names: tuple[str, ...]
    slides: frozenset[str]
    sha256: str

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
        return cls(tuple(samples), tuple(each.name for each in sets), slides, digest.hexdigest())

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
        views = tuple(int(rng.integers(8)) for rng in rngs)
        crops = [
            self._turned(item, view, settings.crop_px) if plain else self._crop(item, settings, rng)
            for item, view, rng in zip(items, views, rngs, strict=True)
        ]
        images = np.stack([image.transpose(2, 0, 1) for image, _ in crops])
        clicks = int(
            np.random.default_rng([settings.seed, 3, step]).integers(settings.next_clicks + 1)
        )
        return Batch(images, np.stack([mask for _, mask in crops]), rngs, clicks, items, views)

    def batches(self, settings: Settings, first: int, *, plain: bool = False) -> Iterator[Batch]:
        """Batches from step ``first`` on, the next one prepared while the last one is used."""
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self.batch, settings, first, plain=plain)
            while True:
                batch, first = coming.result(), first + 1
                coming = pool.submit(self.batch, settings, first, plain=plain)
                yield batch

    def plain(self, item: int, side_px: int) -> tuple[RGB8, Mask]:
        """The patch as it is. Raises ``HistoclickError`` for another size than ``side_px``."""
        sample = self.samples[item]
        if sample.mask.shape != (side_px, side_px):
            height, width = sample.mask.shape
            raise HistoclickError(
                f"patch {sample.id} has {width}x{height} px and not {side_px}x{side_px}: images "
                "that are encoded once have to be of one size; cut them alike, or set crop_px"
            )
        return sample.image, sample.mask

    def _turned(self, item: int, view: int, side_px: int) -> tuple[RGB8, Mask]:
        image, mask = self.plain(item, side_px)
        return turned(image, view).astype(np.uint8), turned(mask, view).astype(np.bool_)

    def _crop(self, item: int, settings: Settings, rng: np.random.Generator) -> tuple[RGB8, Mask]:
        """A crop with object and background in it, if a few tries find one."""
        sample = self.samples[item]
        labels = sample.mask.astype(np.uint16)
        for _ in range(TRIES):
            scale = float(np.exp(rng.uniform(*np.log((0.75, 1.4))))) if settings.augment else 1.0
            image, cut = augment.view(sample.image, labels, settings.crop_px, scale, rng)
            if LEAST <= (cut > 0).mean() <= 1 - LEAST:
                break
        else:
            image, cut = _whole(sample, settings.crop_px)
        if settings.augment:
            image = augment.appearance(image, rng)
        return image, cut > 0


def turned(array: NDArray[np.generic], view: int) -> NDArray[np.generic]:
    """(H, W, ...) turned by ``view % 4`` quarters, mirrored before that from 4 on."""
    mirrored = array[:, ::-1] if view >= 4 else array
    return np.ascontiguousarray(np.rot90(mirrored, view % 4))


def _whole(sample: Sample, side_px: int) -> tuple[RGB8, Labels]:
    """All of a patch, resized."""
    rng = np.random.default_rng(0)
    scale = side_px / max(sample.mask.shape)
    return augment.view(sample.image, sample.mask.astype(np.uint16), side_px, scale, rng)
