"""The annotations of all slides while they are worked on: who may touch what, and in which order.

Shared by all requests: one ``Book`` for each slide that somebody looks at. What is acknowledged is
in the store; a book is only its fold, so it may be dropped at any time and made again.

Locks. In this order, and none is ever asked for while a later one is held:

1. ``_Desk.lock``, one for each slide. Held while its book is read or changed, and so while the
   model answers a click on it: clicks on one slide wait for each other, those on others do not.
2. ``Sessions._lock``: which desks there are, and counts. Held for moments.
3. those inside ``Library``, ``Engine``, ``Store`` and ``Views``; none of these calls back.

One action, in this order, all of it under the desk's lock: take in what other processes stored;
if the action's id is known, it was done before and only its answer got lost; let the book propose
an event, which may ask the model (before the first one of a slide comes one with the classes that
are usual here); store it; if another process took its number meanwhile
(``Conflict``), begin again; apply it. Whatever fails before it is stored has changed nothing, and
whatever fails after it is shown to whoever asks next.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from histoclick.annotations import Canvas, Document
from histoclick.server.engine import Engine
from histoclick.server.extents import check_extent
from histoclick.server.library import Entry, Library, NoSlide
from histoclick.server.sight import Sight
from histoclick.session import (
    CLASSES,
    Action,
    Book,
    BoxAround,
    Class,
    ClickOn,
    Event,
    SetClasses,
    Stroke,
    from_plain,
    from_row,
    to_row,
)
from histoclick.store import Conflict, Store
from histoclick.types import HistoclickError

T = TypeVar("T")

MAX_BOOKS = 32  # kept while nobody uses them
TRIES = 20  # against other processes that write to the same slide


@dataclass(frozen=True)
class Author:
    """Who asks. ``client``: the browser tab or program; ``user``: the person, "" if unknown."""

    client: str
    user: str


@dataclass
class _Desk:
    """Where the annotations of one slide lie. ``users``: requests that are at it, or wait."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    open_book: Book | None = None
    users: int = 0

    @property
    def book(self) -> Book:
        """What lies there; asked for under the lock, when it is there."""
        assert self.open_book is not None
        return self.open_book

    def apply(self, event: Event) -> None:
        """Take an event in; a book in which that failed is dropped, and made again later."""
        try:
            self.book.apply(event)
        except BaseException:
            self.open_book = None
            raise


class Sessions:
    """Thread-safe; calls return when it is done."""

    def __init__(
        self, library: Library, store: Store, engine: Engine, *, max_books: int = MAX_BOOKS
    ) -> None:
        self._library = library
        self._store = store
        self._engine = engine
        self._max_books = max_books
        latest = store.latest("classes")
        self._classes = CLASSES if latest is None else _classes(latest)
        self._lock = threading.Lock()
        self._desks: OrderedDict[str, _Desk] = OrderedDict()  # by key; least recently used first
        self._counts: dict[str, tuple[int, int]] = {}  # by key: seq, and objects then

    def read(self, slide_id: str, look: Callable[[Book], T]) -> T:
        """What ``look`` makes of a slide's book, which it must not change or keep.

        Raises ``NoSlide`` for an unknown slide, ``HistoclickError`` for one that does not open.
        """
        with self._desk(self._library.entry(slide_id)) as desk:
            return look(desk.book)

    def act(
        self,
        slide_id: str,
        action: Action,
        id_: str,
        author: Author,
        look: Callable[[Book, Event | None], T],
    ) -> T:
        """Do something to the annotations of a slide, for good.

        ``id_``: of the event; one that is known is not done again. Returns what ``look`` makes of
        the book afterwards and of the event, ``None`` if it was done before. Raises ``NoSlide``,
        ``HistoclickError`` and ``Busy``.
        """
        entry = self._library.entry(slide_id)
        sight = Sight(self._engine, self._library, entry)
        with self._desk(entry) as desk:
            book = desk.book
            for _ in range(TRIES):
                if book.knows(id_):
                    return look(book, None)
                if isinstance(action, ClickOn | BoxAround | Stroke):
                    check_extent(action, book)
                deeds = [(action, id_)]
                if book.seq == 0 and book.classes != CLASSES:  # those that are usual here
                    deeds.insert(0, (SetClasses(book.classes), str(uuid.uuid4())))
                try:
                    for deed, name in deeds:
                        event = book.propose(
                            deed, id_=name, client=author.client, user=author.user,
                            time=time.time(), sight=sight,
                        )  # fmt: skip
                        self._store.append(entry.key, to_row(event))
                        desk.apply(event)
                except Conflict:
                    self._catch_up(entry, desk)
                    continue
                if isinstance(action, SetClasses):
                    self._classes = action.classes
                return look(book, event)
        raise HistoclickError("too many others work on this slide at this moment; repeat it")

    def document(self, slide_id: str) -> tuple[Document, Canvas]:
        """The annotations for a file, and what is known of the slide."""
        return self.read(slide_id, lambda book: (book.document(), Canvas.of(book.slide)))

    def counts(self) -> dict[str, int | None]:
        """Objects on all slides with a history, by key; ``None`` where they are to be counted."""
        stored = {each["key"]: each["events"] for each in self._store.slides()}
        with self._lock:
            known = {key: self._counts.get(key, (0, 0)) for key in stored}
        return {
            key: known[key][1] if known[key][0] == events else None
            for key, events in stored.items()
        }

    def count(self) -> None:
        """Count what ``counts`` could not tell."""
        counts = self.counts()
        for entry in self._library.entries():
            if counts.get(entry.key, 0) is None:
                with contextlib.suppress(HistoclickError, NoSlide):
                    self.read(entry.id, lambda _: None)

    @contextmanager
    def _desk(self, entry: Entry) -> Iterator[_Desk]:
        """The desk of a slide with its book, up to date, for this thread alone."""
        if entry.problem is not None:
            raise HistoclickError(entry.problem)
        with self._lock:
            desk = self._desks.setdefault(entry.key, _Desk())
            self._desks.move_to_end(entry.key)
            desk.users += 1
        try:
            with desk.lock:
                if desk.open_book is None:
                    desk.open_book = self._opened(entry)
                self._catch_up(entry, desk)
                yield desk
                count = desk.book.seq, len(desk.book.objects)
            with self._lock:
                self._counts[entry.key] = count
        finally:
            with self._lock:
                desk.users -= 1
                idle = [key for key, each in self._desks.items() if not each.users]
                for key in idle[: max(0, len(self._desks) - self._max_books)]:
                    del self._desks[key]

    def _opened(self, entry: Entry) -> Book:
        """An empty book."""
        with self._library.open(entry.id) as slide:
            self._store.slide(
                entry.key, name=entry.name, path=str(entry.path), width=slide.width,
                height=slide.height, mpp=slide.mpp,
            )  # fmt: skip
            return Book(slide, classes=self._classes)

    def _catch_up(self, entry: Entry, desk: _Desk) -> None:
        """Take in what is stored and not yet in the book, by whichever process."""
        for row in self._store.events(entry.key, after=desk.book.seq):
            desk.apply(from_row(row))


def _classes(plain: Mapping[str, Any]) -> tuple[Class, ...]:
    """Those of an action that sets them, as stored."""
    action = from_plain(plain)
    assert isinstance(action, SetClasses)
    return action.classes
