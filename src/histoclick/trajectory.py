"""One simulated user on one image: predict, click, predict, click ..."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from histoclick.clicks import next_click
from histoclick.metrics import iou
from histoclick.types import Click, Prediction, Prompt, Sample, Segmenter


@dataclass(frozen=True, slots=True)
class Step:
    """What one click did. ``seconds``: of the predict call. ``iou``: after it."""

    click: Click
    prediction: Prediction
    iou: float
    seconds: float
    encode_seconds: float


def trajectory(segmenter: Segmenter, sample: Sample, max_clicks: int) -> Iterator[Step]:
    """Click on ``sample`` until ``max_clicks``, or until the mask is exactly right: then there is
    nothing left to click on. Every step sees the prediction before it.

    The recurrence of the field: prediction t is made from the image, all clicks so far, and
    prediction t - 1; click t + 1 answers prediction t.
    """
    start = time.perf_counter()
    encoded = segmenter.encode(sample.image)
    encode_seconds = time.perf_counter() - start
    prompt = Prompt()
    previous: Prediction | None = None
    mask = np.zeros(sample.mask.shape, bool)
    for _ in range(max_clicks):
        click = next_click(sample.mask, mask, prompt.clicks)
        prompt = prompt.add(click)
        start = time.perf_counter()
        previous = segmenter.predict(encoded, prompt, previous)
        seconds = time.perf_counter() - start
        mask = previous.mask
        yield Step(click, previous, iou(sample.mask, mask), seconds, encode_seconds)
        if (mask == sample.mask).all():
            return
