"""Simulated users at work: predict, click, predict, click ... on one image, or on many at once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from histoclick.clicks import SimulatedUser
from histoclick.metrics import FAR_PX, iou
from histoclick.types import BatchSegmenter, Click, Mask, Prediction, Prompt, Sample, Segmenter

DEEPEST = SimulatedUser()
_reach = np.arange(-FAR_PX, FAR_PX + 1)
NEAR = _reach[:, None] ** 2 + _reach**2 <= FAR_PX**2  # the disc around a click


@dataclass(frozen=True, slots=True)
class Step:
    """What one click did.

    ``iou``: after it; ``start_iou``: before the first one of this user. ``seconds``: of the predict
    call, NaN where many users were answered at once. ``flipped``: pixels whose side changed;
    ``far_flipped``: those of them farther than ``FAR_PX`` from the click.
    """

    click: Click
    prediction: Prediction
    iou: float
    start_iou: float
    seconds: float
    encode_seconds: float
    flipped: int
    far_flipped: int


class Walk:
    """One user on one sample. ``start``: (H, W) bool, a mask to correct; without one, nothing."""

    def __init__(self, sample: Sample, user: SimulatedUser, start: Mask | None = None) -> None:
        self.sample = sample
        self.previous = None if start is None else Prediction.of_mask(start)
        self.prompt = Prompt()
        self._user = user
        self._mask = np.zeros(sample.mask.shape, bool) if start is None else start
        self._start_iou = iou(sample.mask, self._mask)

    @property
    def done(self) -> bool:
        """Whether the mask is exactly right: then there is nothing left to click on."""
        return bool((self._mask == self.sample.mask).all())

    def click(self) -> Prompt:
        """The prompt with the click that answers the current mask.

        Who starts from a mask that is exactly right confirms it with a click into the object.
        """
        truth, clicks = self.sample.mask, self.prompt.clicks
        seen = np.zeros_like(truth) if self.done else self._mask
        click = self._user.click(self.sample.id, truth, seen, clicks)
        self.prompt = self.prompt.add(click)
        return self.prompt

    def answer(self, prediction: Prediction, seconds: float, encode_seconds: float) -> Step:
        """Take the segmenter's answer to the last click."""
        click, mask = self.prompt.clicks[-1], prediction.mask
        flipped = mask != self._mask
        self.previous, self._mask = prediction, mask
        total = int(np.count_nonzero(flipped))
        far = total - _near(flipped, click)
        quality = iou(self.sample.mask, mask)
        return Step(
            click, prediction, quality, self._start_iou, seconds, encode_seconds, total, far
        )


def trajectory(
    segmenter: Segmenter,
    sample: Sample,
    max_clicks: int,
    user: SimulatedUser = DEEPEST,
    start: Mask | None = None,
) -> Iterator[Step]:
    """Click on ``sample`` until ``max_clicks``, or until the mask is exactly right.

    The recurrence of the field: prediction t is made from the image, all clicks so far, and
    prediction t - 1; click t + 1 answers prediction t. ``start`` stands for prediction 0; it gets
    one click even if it is right, so that there is a prediction.
    """
    walk = Walk(sample, user, start)
    begin = time.perf_counter()
    encoded = segmenter.encode(sample.image)
    encode_seconds = time.perf_counter() - begin
    for _ in range(max_clicks):
        prompt = walk.click()
        begin = time.perf_counter()
        prediction = segmenter.predict(encoded, prompt, walk.previous)
        yield walk.answer(prediction, time.perf_counter() - begin, encode_seconds)
        if walk.done:
            return


def lockstep(
    segmenter: BatchSegmenter,
    samples: Sequence[Sample],
    max_clicks: int,
    user: SimulatedUser = DEEPEST,
    starts: Sequence[Mask | None] | None = None,
) -> Iterator[tuple[int, Step]]:
    """``trajectory`` of every sample, click t of all of them in one call. Yields (index, step).

    Nobody's click can be timed that way: ``seconds`` are NaN.
    """
    begins = starts or [None] * len(samples)
    walks = [Walk(sample, user, start) for sample, start in zip(samples, begins, strict=True)]
    encoded = segmenter.encode_batch([sample.image for sample in samples])
    active = list(range(len(samples)))
    for _ in range(max_clicks):
        prompts = [walks[i].click() for i in active]
        predictions = segmenter.predict_batch(
            [encoded[i] for i in active], prompts, [walks[i].previous for i in active]
        )
        for i, prediction in zip(active, predictions, strict=True):
            yield i, walks[i].answer(prediction, math.nan, math.nan)
        active = [i for i in active if not walks[i].done]
        if not active:
            return


def _near(flipped: Mask, click: Click) -> int:
    """How many of the flipped pixels lie within ``FAR_PX`` of the click."""
    top, left = round(click.y) - FAR_PX, round(click.x) - FAR_PX
    around = flipped[max(top, 0) : top + len(NEAR), max(left, 0) : left + len(NEAR)]
    disc = NEAR[max(-top, 0) :, max(-left, 0) :][: around.shape[0], : around.shape[1]]
    return int(np.count_nonzero(around & disc))
