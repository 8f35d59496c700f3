"""Asking the model: where it looks, what it is told, and what it said before.

The recurrence is that of the evaluation (see ``trajectory``): as long as the clicks on an object
stay in one window, its answers are those of a simulated user who clicks there.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from histoclick.session import boxes
from histoclick.session.actions import BoxAround, ClickOn, Stroke
from histoclick.session.events import Event
from histoclick.session.item import Item
from histoclick.session.layers import Answer
from histoclick.session.sight import Sight
from histoclick.session.windows import Grid, Window
from histoclick.slides import Slide
from histoclick.types import Box, HistoclickError, Prediction, Prompt

KEPT = 8  # predictions, each with what its family remembers
LONGEST = 40  # answers in a row that are made again after a restart; before, a mask has to do
ROOM = 0.8  # of a window that a box may take
THINNEST = 0.01  # px of level 0, radius of a brush
COARSEST = 4096.0  # px of level 0 per working px


@dataclass(frozen=True)
class Step:
    """What an event made of an object; ``item`` is ``None`` when it removed it."""

    event: Event
    item: Item | None


class Asking:
    """One slide's questions. Keeps the last predictions, because a family may want them back."""

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._predictions: OrderedDict[str, Prediction] = OrderedDict()

    def grid(self, mpp: float) -> tuple[Grid, float]:
        """The working px of a new object, and their um/px: never finer than the slide."""
        finest = self._slide.mpp or 1.0
        mpp = max(mpp, finest)
        grid = Grid.of(self._slide, mpp)
        if grid.scale_x > COARSEST:
            raise HistoclickError(f"{mpp:g} um/px is too coarse to work at; zoom in")
        return grid, mpp

    def answer(
        self, steps: Sequence[Step], item: Item, action: ClickOn | BoxAround, id_: str, sight: Sight
    ) -> tuple[Answer, dict[str, Any]]:
        """What the model says to a click or box, and facts for the log: ``whole`` is whether all of
        the answer became the object's mask.

        ``steps``: of the object so far. ``item``: ready to be worked on. ``id_``: of the event.
        Raises ``HistoclickError`` for what the model cannot do.
        """
        asked = item.clicked(action) if isinstance(action, ClickOn) else item.boxed(action)
        grid = _grid(asked)
        window = _window(asked, action, sight)
        begin = time.perf_counter()
        encoded = sight.encode(grid.rect0(window), window.width, window.height)
        encode_seconds = time.perf_counter() - begin
        previous = self._previous(steps, asked, window, sight, encoded)
        begin = time.perf_counter()
        prediction = _predict(sight, encoded, asked, window, previous)
        seconds = time.perf_counter() - begin
        self._keep(id_, prediction)
        rect0 = grid.rect0(window)
        facts = {
            "model": sight.model,
            "window": [rect0.x0, rect0.y0, rect0.width, rect0.height],
            "width": window.width,
            "height": window.height,
            "encode_seconds": encode_seconds,
            "seconds": seconds,
            "quality": prediction.quality,
        }
        answer = Answer.of(window, prediction.mask)
        answered = asked.answered(answer, prediction.quality)
        facts["whole"] = bool((answered.mask.crop(window) == prediction.mask).all())
        return answer, facts

    def _previous(
        self, steps: Sequence[Step], asked: Item, window: Window, sight: Sight, encoded: Any
    ) -> Prediction | None:
        """The prediction that the model goes on from."""
        run = _run(steps, asked, window, sight)
        if run:
            return self._made_again(steps, run, window, sight, encoded)
        return _from_mask(asked, window)

    def _made_again(
        self, steps: Sequence[Step], run: int, window: Window, sight: Sight, encoded: Any
    ) -> Prediction | None:
        """The last of ``run`` answers in one window, from memory or by asking once more."""
        known = 0
        while known < run and steps[-1 - known].event.id not in self._predictions:
            known += 1
        if known < run:
            prediction = self._predictions[steps[-1 - known].event.id]
        else:
            first = steps[-run].item
            assert first is not None
            before = steps[-run - 1].item if len(steps) > run else None
            base = None if before is None else _from_mask(before.at(*_at(first)), window)
            prediction = _predict(sight, encoded, first, window, base)
            self._keep(steps[-run].event.id, prediction)
            known = run - 1
        for step in steps[len(steps) - known :]:
            assert step.item is not None
            prediction = _predict(sight, encoded, step.item, window, prediction)
            self._keep(step.event.id, prediction)
        return prediction

    def _keep(self, id_: str, prediction: Prediction) -> None:
        self._predictions[id_] = prediction
        self._predictions.move_to_end(id_)
        while len(self._predictions) > KEPT:
            self._predictions.popitem(last=False)


def _grid(item: Item) -> Grid:
    assert item.grid is not None
    return item.grid


def _window(asked: Item, action: ClickOn | BoxAround, sight: Sight) -> Window:
    grid, side = _grid(asked), sight.window_px
    if isinstance(action, ClickOn):
        x, y = action.x / grid.scale_x, action.y / grid.scale_y
        return grid.choose(asked.windows, x, y, side)
    middle_x = (action.x0 + action.x1) / 2 / grid.scale_x
    middle_y = (action.y0 + action.y1) / 2 / grid.scale_y
    return grid.centred(middle_x, middle_y, side)


def _predict(
    sight: Sight, encoded: Any, item: Item, window: Window, previous: Prediction | None
) -> Prediction:
    """What the model says to all that was said about an object in a window."""
    prompt = _prompt(item, window)
    if prompt.box is None or sight.boxes:
        return sight.predict(encoded, prompt, previous)
    shape = window.height, window.width
    return boxes.answer(partial(sight.predict, encoded), prompt, previous, shape)


def _prompt(item: Item, window: Window) -> Prompt:
    """All that was said about an object in a window."""
    grid = _grid(item)
    clicks = [
        grid.click(window, mark.x, mark.y, mark.positive)
        for mark in item.clicks
        if window.holds(mark.x / grid.scale_x, mark.y / grid.scale_y)
    ]
    if item.box is None:
        return Prompt(tuple(clicks))
    x0, y0, x1, y1 = item.box
    first, last = grid.click(window, x0, y0, True), grid.click(window, x1, y1, True)
    if first.x >= last.x or first.y >= last.y:  # the box lies elsewhere
        return Prompt(tuple(clicks)) if clicks else Prompt((first,))
    return Prompt(tuple(clicks), Box(first.x, first.y, last.x, last.y))


def _run(steps: Sequence[Step], asked: Item, window: Window, sight: Sight) -> int:
    """How many of the last steps are answers in this window, one going on from the other.

    Strokes in the window end it, and answers that were taken in by parts: no prediction remembers
    what became of the mask.
    """
    grid, count = _grid(asked), 0
    strokes = [stroke.window(grid) for stroke in asked.strokes]
    if any(span and window.meet(span) for span in strokes):
        return 0
    for step in reversed(steps):
        item = step.item
        if item is None or not isinstance(step.event.action, ClickOn | BoxAround):
            break
        if item.window != window or step.event.facts.get("model") != sight.model:
            break
        if item.strokes != asked.strokes or not step.event.facts.get("whole", False):
            break
        count += 1
    return min(count, LONGEST)


def _from_mask(item: Item, window: Window) -> Prediction | None:
    """The mask so far as something to go on from; nothing where nobody looked."""
    return Prediction.of_mask(item.mask.crop(window)) if item.covers(window) else None


def _at(item: Item) -> tuple[Grid, float]:
    assert item.mpp is not None
    return _grid(item), item.mpp


def check_stroke(stroke: Stroke) -> None:
    """Raise ``HistoclickError`` for a stroke without a place or a width."""
    if not stroke.points or not stroke.radius >= THINNEST:
        raise HistoclickError(f"a stroke needs a point and a radius of {THINNEST} px or more")
