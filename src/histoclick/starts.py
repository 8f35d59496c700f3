"""Masks to start from: an evaluation of correcting instead of drawing from nothing."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from histoclick.metrics import iou
from histoclick.patches import read_mask
from histoclick.types import HistoclickError, Mask, Sample

LOW, HIGH = 0.5, 0.8  # IoU with the truth that corrupted masks have, if the object allows it
TRIES = 60


class Start(Protocol):
    """Where the first mask comes from."""

    @property
    def facts(self) -> dict[str, str]:
        """As the protocol card holds it: ``start`` in words, and ``start_sha256`` of masks that a
        rule does not give."""
        ...

    def check(self, ids: Iterable[str]) -> None:
        """Raise ``HistoclickError`` unless there is a mask for every patch."""
        ...

    def mask(self, sample: Sample) -> Mask:
        """The (H, W) bool mask that the user corrects."""
        ...


@dataclass(frozen=True, slots=True)
class Corrupted:
    """The truth, spoilt: grown or shrunk, moved, and with a piece lost or added.

    The IoU of the result lies between 0.5 and 0.8, as in the DAVIS-585 benchmark of FocalClick
    (Chen et al. 2022), or as near as a few tries come.
    """

    seed: int = 0

    @property
    def facts(self) -> dict[str, str]:
        """In words: the rule gives the masks."""
        return {"start": f"the annotation, spoilt to IoU {LOW:g} to {HIGH:g}; seed {self.seed}"}

    def check(self, ids: Iterable[str]) -> None:
        """There always is."""

    def mask(self, sample: Sample) -> Mask:
        """A function of the seed and the patch alone."""
        rng = np.random.default_rng([self.seed, zlib.crc32(sample.id.encode())])
        best, least = sample.mask, float("inf")
        for _ in range(TRIES):
            spoilt = _spoil(sample.mask, rng)
            quality = iou(sample.mask, spoilt)
            miss = max(LOW - quality, quality - HIGH, 0.0)
            if miss < least:
                best, least = spoilt, miss
            if not miss:
                break
        return best


@dataclass(frozen=True, slots=True)
class Folder:
    """Masks of somebody else, ``<patch>.png`` in ``path``: such as a run's ``predictions/``."""

    path: Path

    @property
    def facts(self) -> dict[str, str]:
        """With the SHA-256 of all masks, not their place: they may be moved."""
        if not self.path.is_dir():
            raise HistoclickError(
                f"{self.path}: no such folder; give one with <patch>.png inside, or 'corrupted'"
            )
        digest = hashlib.sha256()
        for file in sorted(self.path.glob("*.png")):
            digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
        return {"start": "masks from a folder", "start_sha256": digest.hexdigest()}

    def check(self, ids: Iterable[str]) -> None:
        """Raises ``HistoclickError`` for the first patch without a file."""
        for id_ in ids:
            if not self._file(id_).is_file():
                raise HistoclickError(
                    f"{self._file(id_)}: no mask to start patch '{id_}' from; add it"
                )

    def mask(self, sample: Sample) -> Mask:
        """Raises ``HistoclickError`` where the mask is missing or has another size."""
        self.check([sample.id])
        file = self._file(sample.id)
        mask = read_mask(file)
        if mask.shape != sample.mask.shape:
            raise HistoclickError(
                f"{file}: {mask.shape[1]}x{mask.shape[0]} px, but the patch has "
                f"{sample.mask.shape[1]}x{sample.mask.shape[0]}; export it at the patch's size"
            )
        return mask

    def _file(self, id_: str) -> Path:
        return self.path / f"{id_}.png"


def _spoil(truth: Mask, rng: np.random.Generator) -> Mask:
    """One try: how much is spoilt varies from a little to a lot."""
    height, width = truth.shape
    extent = float(np.sqrt(truth.sum()))  # px; of a square as large as the object
    side = 2 * int(rng.uniform(0, 0.12) * extent) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    change = cv2.dilate if rng.random() < 0.5 else cv2.erode
    spoilt = change(truth.astype(np.uint8), kernel)
    dx, dy = rng.uniform(-0.12, 0.12, 2) * extent
    moved = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    spoilt = cv2.warpAffine(spoilt, moved, (width, height), flags=cv2.INTER_NEAREST)
    noise = cv2.resize(
        rng.standard_normal((5, 5)).astype(np.float32), (width, height),
        interpolation=cv2.INTER_CUBIC,
    )  # fmt: skip
    piece = noise > np.quantile(noise, rng.uniform(0.7, 0.97))
    mask = spoilt > 0
    result: Mask = mask | piece if rng.random() < 0.5 else mask & ~piece
    return result
