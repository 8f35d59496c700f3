"""What was done to every object of a slide, told from its events: what stayed, what was undone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from histoclick.session import Book, BoxAround, ClickOn, Event, Import, Item, Redo, Stroke, Undo
from histoclick.slides import Facts, Slide
from histoclick.types import RGB8, HistoclickError

PAUSE_SECONDS = 60.0  # whoever does nothing for longer is not working on the object


@dataclass(frozen=True)
class Frame:
    """An event that stayed, and the object after it; ``None``: it was deleted."""

    event: Event
    item: Item | None


@dataclass
class History:
    """One object. ``frames``: what stayed, oldest first; none if its making was undone. ``events``:
    everything, also undone and undoing. ``label``: its last class."""

    slide: Mapping[str, Any]
    id: int
    frames: list[Frame] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    label: str = ""

    @property
    def item(self) -> Item | None:
        """What it is in the end; ``None`` if it is not there any more."""
        return self.frames[-1].item if self.frames else None

    @property
    def clicks(self) -> list[Frame]:
        """The clicks that stayed."""
        return [frame for frame in self.frames if isinstance(frame.event.action, ClickOn)]

    @property
    def undone(self) -> list[Event]:
        """Clicks that were taken back, and stayed so."""
        kept = {frame.event.id for frame in self.frames}
        clicks = (event for event in self.events if isinstance(event.action, ClickOn))
        return [event for event in clicks if event.id not in kept]

    def count(self, kind: type[BoxAround] | type[Stroke] | type[Import]) -> int:
        """How many actions of a kind stayed."""
        return sum(isinstance(frame.event.action, kind) for frame in self.frames)

    @property
    def users(self) -> tuple[str, ...]:
        """Who worked on it, in this order."""
        return tuple(dict.fromkeys(event.user for event in self.events))

    @property
    def models(self) -> tuple[str, ...]:
        """Which models answered the clicks that stayed."""
        return tuple(dict.fromkeys(str(frame.event.facts["model"]) for frame in self.clicks))

    @property
    def seconds(self) -> float:
        """From the first action to the last, without pauses over ``PAUSE_SECONDS``."""
        times = sorted(event.time for event in self.events)
        gaps = (later - time for time, later in pairwise(times))
        return sum(gap for gap in gaps if gap <= PAUSE_SECONDS)


def histories(slide: Mapping[str, Any], events: Iterable[Event]) -> list[History]:
    """The history of every object there ever was on a slide.

    ``slide``: as the store gives it. Its file is not needed. Raises ``HistoclickError``.
    """
    events = list(events)
    book = Book(as_it_was(slide, events))
    found: dict[int, History] = {}
    undone: dict[str, list[dict[int, Frame]]] = {}  # by client, as the book has it
    for event in events:
        change = book.apply(event)
        ids = (*change.objects, *change.removed)
        frames: dict[int, Frame] = {}
        if isinstance(event.action, Undo):
            undone.setdefault(event.client, []).append(
                {id_: found[id_].frames.pop() for id_ in ids}
            )
        elif isinstance(event.action, Redo):
            frames = undone[event.client].pop()
        elif ids:
            frames = {id_: Frame(event, book.objects.get(id_)) for id_ in ids}
            undone.pop(event.client, None)
        for id_ in ids:
            history = found.setdefault(id_, History(slide, id_))
            history.events.append(event)
            if id_ in frames:
                history.frames.append(frames[id_])
            if (item := book.objects.get(id_)) is not None:
                history.label = item.label
    return list(found.values())


def as_it_was(slide: Mapping[str, Any], events: Iterable[Event]) -> Slide:
    """A slide without pixels, of the size that it had when people clicked on it.

    The store knows one um/px; where a slide has two, the windows of the model tell them.
    """
    mpp_x = mpp_y = mpp = slide["mpp"]
    for event in events:
        action, window = event.action, event.facts.get("window")
        if mpp is not None and window and isinstance(action, ClickOn) and action.object is None:
            worked = max(action.mpp, mpp)
            mpp_x = worked * event.facts["width"] / window[2]
            mpp_y = worked * event.facts["height"] / window[3]
            break
    facts = Facts("recorded", mpp_x, mpp_y)
    source = _NoPixels(facts, ((slide["width"], slide["height"]),))
    path = Path(slide["path"])
    return Slide(path, source, lambda: Slide(path, source, lambda: as_it_was(slide, ())))


@dataclass(frozen=True)
class _NoPixels:
    """What is known of a slide whose file nobody opened."""

    facts: Facts
    sizes: tuple[tuple[int, int], ...]

    def read(self, level: int, x: int, y: int, width: int, height: int) -> RGB8:
        raise HistoclickError("a replay looks at no pixels")

    def close(self) -> None:
        pass
