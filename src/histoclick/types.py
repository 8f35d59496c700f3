"""The vocabulary: what a click, a prompt, a prediction and a segmenter are. Numpy only.

Frames. Every coordinate below lives in the *image frame* of the array it belongs to: ``x`` to the
right, ``y`` down, in pixels, and integer values name pixels by their centre, so ``Click(0, 0)`` is
the top left pixel and ``Click(w - 1, h - 1)`` the bottom right one. Rows and columns appear only
inside numpy indexing (``array[y, x]``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

RGB8 = NDArray[np.uint8]  # (H, W, 3), 0..255
Mask = NDArray[np.bool_]  # (H, W)
Labels = NDArray[np.uint16]  # (H, W), 0 is background, other values may tell objects apart
Logits = NDArray[np.float32]  # (H, W), > 0 is the object


@dataclass(frozen=True, slots=True)
class Click:
    """One click of a user: ``positive`` inside the object, else outside it."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle drawn around the object; the corner pixels belong to it."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not (self.x0 <= self.x1 and self.y0 <= self.y1):
            raise ValueError(f"box corners are swapped: {self}; give x0 <= x1 and y0 <= y1")


@dataclass(frozen=True, slots=True)
class Prompt:
    """Everything the user has said so far, oldest click first."""

    clicks: tuple[Click, ...] = ()
    box: Box | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "clicks", tuple(self.clicks))

    def add(self, click: Click) -> Prompt:
        """The same prompt with one more click."""
        return Prompt((*self.clicks, click), self.box)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A segmenter's answer.

    ``logits``: (H, W) float32 in the frame of the encoded image; ``logits > 0`` is the mask (a
    family whose published threshold is not 0.5 shifts its logits so that this holds).
    ``memory``: what this family wants back at the next click; nobody else looks inside.
    ``quality``: the model's own estimate of its IoU in [0, 1], if it makes one.
    """

    logits: Logits
    memory: Any = None
    quality: float | None = None

    @property
    def mask(self) -> Mask:
        """(H, W) bool."""
        return self.logits > 0

    @classmethod
    def of_mask(cls, mask: Mask, confidence: float = 16.0) -> Prediction:
        """A mask that no segmenter made, to start from: logits of plus or minus ``confidence``.

        ``mask``: (H, W) bool. Its ``memory`` is ``None``, which tells a family that what it keeps
        between clicks has to be made from the logits.
        """
        return cls(np.where(mask, np.float32(confidence), np.float32(-confidence)))


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with the object a simulated user wants.

    ``image``: (H, W, 3) uint8 RGB. ``mask``: (H, W) bool. ``slide`` groups samples that are not
    independent (same slide, patient or case); statistics resample slides, not patches.
    """

    id: str
    image: RGB8
    mask: Mask
    slide: str


class Encoded(Protocol):
    """What ``Segmenter.encode`` returns: immutable, shareable between sessions and threads."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the image it was made from."""
        ...


@runtime_checkable
class Segmenter(Protocol):
    """A click model. Stateless: undo is "drop the last prediction", sharing is free."""

    def encode(self, image: RGB8) -> Any:
        """The work that needs no click, once per image. ``image``: (H, W, 3) uint8 RGB."""
        ...

    def predict(
        self, encoded: Any, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        """The mask after ``prompt``; ``previous`` is the answer before its last click.

        ``previous=None`` means the first interaction; a ``previous`` without memory is a mask from
        elsewhere (``Prediction.of_mask``), from which this one goes on. Raises ``ValueError`` for a
        prompt without any click and box, or with a click outside the image.
        """
        ...


@runtime_checkable
class BatchSegmenter(Segmenter, Protocol):
    """A click model that answers many users at once: what accelerators are good at.

    Item i of every answer is what the call for one would have given, up to rounding.
    """

    def encode_batch(self, images: Sequence[RGB8]) -> list[Any]:
        """``encode`` of every image; sizes may differ."""
        ...

    def predict_batch(
        self,
        encoded: Sequence[Any],
        prompts: Sequence[Prompt],
        previous: Sequence[Prediction | None],
    ) -> list[Prediction]:
        """``predict`` of every user; numbers of clicks may differ."""
        ...


class HistoclickError(Exception):
    """Bad input, told in one sentence: what, where, how to mend. The CLI exits with 2 on it."""
