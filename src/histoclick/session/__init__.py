"""Annotating a slide: objects made of clicks, boxes, strokes and outlines from files; undo and redo
without end. No server, no database, no network: those use this.

An action becomes an event (``Book.propose``, which asks the model), the event is stored, and then
applied (``Book.apply``). The annotations are a fold over the events, so what was stored is what is
there after any crash.
"""

from histoclick.session.actions import (
    KINDS,
    Action,
    BoxAround,
    Class,
    ClickOn,
    Delete,
    Import,
    Outline,
    Redo,
    Relabel,
    RelabelAll,
    Rename,
    SetClasses,
    Stroke,
    Tidy,
    Undo,
    from_plain,
    to_plain,
)
from histoclick.session.book import CLASSES, Book, Change
from histoclick.session.events import Event, from_row, to_row
from histoclick.session.item import Item, Mark
from histoclick.session.sight import Sight
from histoclick.session.windows import Grid, Window

__all__ = [
    "CLASSES",
    "KINDS",
    "Action",
    "Book",
    "BoxAround",
    "Change",
    "Class",
    "ClickOn",
    "Delete",
    "Event",
    "Grid",
    "Import",
    "Item",
    "Mark",
    "Outline",
    "Redo",
    "Relabel",
    "RelabelAll",
    "Rename",
    "SetClasses",
    "Sight",
    "Stroke",
    "Tidy",
    "Undo",
    "Window",
    "from_plain",
    "from_row",
    "to_plain",
    "to_row",
]
