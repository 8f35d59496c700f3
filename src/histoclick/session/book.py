"""All annotations of one slide: a fold over its events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import shapely

from histoclick.annotations import Annotation, Canvas, Document
from histoclick.session.actions import (
    Action,
    BoxAround,
    Class,
    ClickOn,
    Delete,
    Import,
    Redo,
    Relabel,
    RelabelAll,
    Rename,
    SetClasses,
    Stroke,
    Tidy,
    Undo,
)
from histoclick.session.asking import ROOM, Asking, Step, check_stroke
from histoclick.session.deeds import Deeds
from histoclick.session.events import Event
from histoclick.session.item import Item
from histoclick.session.layers import Answer
from histoclick.session.sight import Sight
from histoclick.slides import Slide
from histoclick.types import HistoclickError

EDGE = 1e-3  # px of level 0
CLASSES = (
    Class("Tumor", (200, 0, 0), "1"),
    Class("Stroma", (60, 140, 60), "2"),
    Class("Necrosis", (0, 140, 190), "3"),
    Class("Immune cells", (120, 80, 170), "4"),
    Class("Other", (230, 150, 0), "5"),
)


@dataclass(frozen=True)
class Change:
    """What an event did: ids of objects that are new or other, and of those that are gone."""

    objects: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()


class Book:
    """The annotations of one slide. Not thread-safe: who shares it holds a lock.

    ``seq``: of the last event. ``objects``: by id. ``versions``: the event that last changed each
    object there ever was.
    """

    def __init__(
        self,
        slide: Slide,
        events: Iterable[Event] = (),
        classes: tuple[Class, ...] = CLASSES,
    ) -> None:
        self.slide = slide
        self.seq = 0
        self.classes = classes  # until an event sets others
        self.objects: dict[int, Item] = {}
        self.versions: dict[int, int] = {}
        self._asking = Asking(slide)
        self._deeds = Deeds()
        self._classes_seq = 0
        self._ids: dict[str, int] = {}  # event id -> seq
        for event in events:
            self.apply(event)

    def knows(self, id_: str) -> bool:
        """Whether the event with this id was applied."""
        return id_ in self._ids

    def since(self, seq: int) -> Change:
        """All that changed after event ``seq``."""
        later = [id_ for id_, version in self.versions.items() if version > seq]
        return Change(
            tuple(id_ for id_ in later if id_ in self.objects),
            tuple(id_ for id_ in later if id_ not in self.objects),
        )

    def classes_since(self, seq: int) -> bool:
        """Whether the classes changed after event ``seq``."""
        return self._classes_seq > seq or seq == 0

    def can_undo(self, client: str, user: str) -> bool:
        """Whether there is something that ``Undo`` would take back."""
        return self._deeds.can_undo(client, user)

    def can_redo(self, client: str) -> bool:
        """Whether there is something that ``Redo`` would do again."""
        return self._deeds.can_redo(client)

    def document(self) -> Document:
        """What there is, for a file."""
        colours = {class_.name: class_.colour for class_ in self.classes}
        found = tuple(
            Annotation(item.shape, item.label, colours.get(item.label), item.name)
            for item in self.objects.values()
            if item.shape is not None and not item.shape.is_empty
        )
        empty = len(self.objects) - len(found)
        notes = (f"{empty} of the objects without area, left out",) if empty else ()
        return Document(found, notes=notes, canvas=Canvas.of(self.slide))

    def propose(
        self, action: Action, *, id_: str, client: str, user: str, time: float, sight: Sight
    ) -> Event:
        """The event that an action is; changes nothing but may ask the model.

        Raises ``HistoclickError`` for what cannot be done.
        """
        event = Event(self.seq + 1, id_, client, user, time, action)
        match action:
            case ClickOn() | BoxAround():
                return self._asked(event, action, sight)
            case Stroke():
                check_stroke(action)
                _ = self._ready(action).stroked(action, event.seq).mask  # before it is stored
            case Relabel() | Rename() | Delete():
                self._there(action.object)
            case Tidy():
                if len(self._there(action.object).parts) < 2:
                    raise HistoclickError("the object has one part; there is nothing to tidy")
            case Undo():
                self._deeds.undoable(client, user)
            case Redo():
                self._deeds.redoable(client)
            case Import():
                self._check_import(action)
        return event

    def apply(self, event: Event) -> Change:
        """Take an event in. Raises ``HistoclickError`` if it cannot be the next one."""
        if event.seq != self.seq + 1:
            raise HistoclickError(f"event {event.seq} cannot follow event {self.seq}")
        action = event.action
        steps: dict[int, Step] = {}
        match action:
            case ClickOn() | BoxAround():
                item = self._ready(action)
                asked = item.clicked(action) if isinstance(action, ClickOn) else item.boxed(action)
                answer = Answer.from_bytes(event.result or b"")
                steps[item.id] = Step(event, asked.answered(answer, event.facts.get("quality")))
            case Stroke():
                item = self._ready(action)
                steps[item.id] = Step(event, item.stroked(action, event.seq))
            case Relabel():
                item = self._there(action.object).renamed(label=action.label)
                steps[item.id] = Step(event, item)
            case RelabelAll():
                new = dict(action.labels)
                for item in self.objects.values():
                    if new.get(item.label, item.label) != item.label:
                        steps[item.id] = Step(event, item.renamed(label=new[item.label]))
            case Rename():
                item = self._there(action.object).renamed(name=action.name)
                steps[item.id] = Step(event, item)
            case Tidy():
                item = self._there(action.object).tidied(event.seq)
                steps[item.id] = Step(event, item)
            case Delete():
                steps[self._there(action.object).id] = Step(event, None)
            case Import():
                first = self._deeds.next_id
                for id_, outline in enumerate(action.outlines, first):
                    steps[id_] = Step(event, Item.of(id_, outline))
            case SetClasses():
                self.classes, self._classes_seq = action.classes, event.seq
            case Undo():
                return self._settle(event, self._deeds.undo(event.client, event.user))
            case Redo():
                return self._settle(event, self._deeds.redo(event.client))
        if steps:
            self._deeds.add(event.client, event.user, steps)
        return self._settle(event, steps)

    def _settle(self, event: Event, ids: Iterable[int]) -> Change:
        """Make the last step of each object what it is now."""
        self.seq = event.seq
        self._ids[event.id] = event.seq
        changed, removed = [], []
        for id_ in ids:
            top = self._deeds.top(id_)
            self.versions[id_] = event.seq
            if top is None or top.item is None:
                self.objects.pop(id_, None)
                removed.append(id_)
            else:
                self.objects[id_] = top.item
                changed.append(id_)
        return Change(tuple(changed), tuple(removed))

    def _asked(self, event: Event, action: ClickOn | BoxAround, sight: Sight) -> Event:
        action = self._placed(action, sight)
        item = self._ready(action)
        steps = self._deeds.steps.get(item.id, [])
        answer, facts = self._asking.answer(steps, item, action, event.id, sight)
        facts["object"] = item.id
        return replace(event, action=action, result=answer.to_bytes(), facts=facts)

    def _check_import(self, action: Import) -> None:
        if not action.outlines:
            raise HistoclickError("the file holds no object")
        slide = shapely.box(0, 0, self.slide.width, self.slide.height)
        if not any(slide.intersects(outline.shape) for outline in action.outlines):
            raise HistoclickError("nothing in the file lies on this slide; is it of another one?")

    def _placed(self, action: ClickOn | BoxAround, sight: Sight) -> ClickOn | BoxAround:
        """The action, inside of the slide and at a resolution at which its box fits a window."""
        width, height = self.slide.width, self.slide.height
        if isinstance(action, ClickOn):
            if not (0 <= action.x <= width and 0 <= action.y <= height):
                raise HistoclickError("the click lies outside of the slide")
            # on the far border it is meant for the last pixel
            x, y = min(action.x, width - EDGE), min(action.y, height - EDGE)
            return replace(action, x=x, y=y)
        x0, x1 = sorted(min(max(x, 0.0), width) for x in (action.x0, action.x1))
        y0, y1 = sorted(min(max(y, 0.0), height) for y in (action.y0, action.y1))
        if x0 >= x1 or y0 >= y1:
            raise HistoclickError("the box has no area on the slide")
        action = replace(action, x0=x0, y0=y0, x1=x1, y1=y1)
        while True:
            grid = self._ready(action).grid
            assert grid is not None
            if max((x1 - x0) / grid.scale_x, (y1 - y0) / grid.scale_y) <= ROOM * sight.window_px:
                return action
            if action.object is not None and self._there(action.object).grid is not None:
                raise HistoclickError(
                    "the box is larger than what the model sees at the object's um/px; draw it "
                    "for a new object, which is worked on at a coarser one"
                )
            action = replace(action, mpp=max(action.mpp, self.slide.mpp or 1.0) * 2)

    def _ready(self, action: ClickOn | BoxAround | Stroke) -> Item:
        """The object that is worked on, at its resolution."""
        grid, mpp = self._asking.grid(action.mpp)
        if action.object is None:
            return Item(self._deeds.next_id, action.label).at(grid, mpp)
        return self._there(action.object).at(grid, mpp)

    def _there(self, id_: int) -> Item:
        if id_ not in self.objects:
            raise HistoclickError(f"there is no object {id_} (any more)")
        return self.objects[id_]
