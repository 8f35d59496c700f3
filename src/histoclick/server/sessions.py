"""The annotations of all slides while they are worked on: who may touch what, and in which order.

Shared by all requests: one ``Book`` for each slide that somebody looks at. What is acknowledged is
in the store; a book is only its fold, so it may be dropped at any time and made again.

Locks. In this order, and none is ever asked for while a later one is held:

1. ``_Desk.lock``, one for each slide. Held while its book is read or changed, and so while the
   model answers a click on it: clicks on one slide wait for each other, those on others do not.
2. ``Sessions._lock``: which desks there are and what each client looks at. Held for moments.
3. those inside ``Library``, ``Engine`` and ``Store``; none of these calls back.

One action, in this order, all of it under the desk's lock: take in what other processes stored;
if the action's id is known, it was done before and only its answer got lost; let the book propose
an event, which may ask the model; store it; if another process took its number meanwhile
(``Conflict``), begin again; apply it. Whatever fails before it is stored has changed nothing, and
whatever fails after it is shown to whoever asks next.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from histoclick.annotations import Canvas, Document
from histoclick.geometry import Rect
from histoclick.server.engine import Busy, Engine
from histoclick.server.library import Entry, Library, NoSlide
from histoclick.session import Action, Book, Event, Grid, Stroke, from_row, to_row
from histoclick.store import Conflict, Store
from histoclick.types import RGB8, HistoclickError, Prediction, Prompt

T = TypeVar("T")

MAX_BOOKS = 32  # kept while nobody uses them
TRIES = 20  # against other processes that write to the same slide
MAX_WINDOWS = 48  # of a view that are encoded ahead
MAX_STROKE_PX = 64_000_000  # working px that the surroundings of a stroke may have
MAX_CLIENTS = 1000  # whose views are remembered


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


@dataclass(frozen=True)
class Sight:
    """The model's view of one slide: see ``histoclick.session.Sight``."""

    engine: Engine
    library: Library
    entry: Entry

    @property
    def window_px(self) -> int:
        """Side of the model's window, working px."""
        return self.engine.window_px

    @property
    def model(self) -> str:
        """Id and hash."""
        return self.engine.model

    @property
    def boxes(self) -> bool:
        """Whether the model understands boxes."""
        return self.engine.boxes

    def encode(self, rect0: Rect, width: int, height: int) -> Any:
        """The embedding of ``rect0`` (px of level 0) at ``width`` x ``height`` px."""
        return self.engine.embedding(
            self.key(rect0, width, height), lambda: self.picture(rect0, width, height)
        )

    def predict(self, encoded: Any, prompt: Prompt, previous: Prediction | None) -> Prediction:
        """See ``Segmenter.predict``; raises ``HistoclickError`` for what this model cannot do."""
        try:
            return self.engine.predict(encoded, prompt, previous)
        except ValueError as error:
            raise HistoclickError(str(error)) from None

    def key(self, rect0: Rect, width: int, height: int) -> str:
        """The name of an embedding."""
        place = f"{rect0.x0!r},{rect0.y0!r},{rect0.width!r},{rect0.height!r}"
        return f"{self.entry.key}/{place}/{width}x{height}"

    def picture(self, rect0: Rect, width: int, height: int) -> RGB8:
        """(``height``, ``width``, 3) uint8 RGB of ``rect0``."""
        with self.library.open(self.entry.id) as slide:
            return slide.read(rect0, width, height)


class Sessions:
    """Thread-safe; calls return when it is done."""

    def __init__(
        self, library: Library, store: Store, engine: Engine, *, max_books: int = MAX_BOOKS
    ) -> None:
        self._library = library
        self._store = store
        self._engine = engine
        self._max_books = max_books
        self._lock = threading.Lock()
        self._desks: OrderedDict[str, _Desk] = OrderedDict()  # by key; least recently used first
        self._counts: dict[str, tuple[int, int]] = {}  # by key: seq, and objects then
        self._views: OrderedDict[str, tuple[int, tuple[str, ...]]] = OrderedDict()  # turn, windows
        self._turns = itertools.count(1)

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
                if isinstance(action, Stroke):
                    _check_extent(action, book)
                event = book.propose(
                    action, id_=id_, client=author.client, user=author.user, time=time.time(),
                    sight=sight,
                )  # fmt: skip
                try:
                    self._store.append(entry.key, to_row(event))
                except Conflict:
                    self._catch_up(entry, desk)
                    continue
                desk.apply(event)
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

    def look_ahead(self, slide_id: str, view: Rect, mpp: float, client: str) -> View:
        """What the model would need to answer clicks in a view.

        ``view``: px of level 0. ``mpp``: um/px at which the clicks will work. An earlier view of
        the same client is given up. Raises ``NoSlide`` and ``HistoclickError``.
        """
        entry = self._library.entry(slide_id)
        sight = Sight(self._engine, self._library, entry)
        with self._library.open(slide_id) as slide:
            grid = Grid.of(slide, max(mpp, slide.mpp or 1.0))
        windows = grid.ahead(_clipped(view, grid, sight.window_px), sight.window_px)
        places = tuple(
            (grid.rect0(each), each.width, each.height)
            for each in itertools.islice(windows, MAX_WINDOWS)
        )
        keys = tuple(sight.key(*place) for place in places)
        with self._lock:
            before, known = self._views.get(client, (0, ()))
            turn = before if known == keys else next(self._turns)
            self._views[client] = turn, keys
            self._views.move_to_end(client)
            while len(self._views) > MAX_CLIENTS:
                self._views.popitem(last=False)
        if turn != before:
            self._engine.give_up(before)
        return View(self, sight, client, turn, places, keys)

    def is_current(self, client: str, turn: int) -> bool:
        """Whether a client still looks at what it looked at in a turn."""
        with self._lock:
            return self._views.get(client, (0, ()))[0] == turn

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
            return Book(slide)

    def _catch_up(self, entry: Entry, desk: _Desk) -> None:
        """Take in what is stored and not yet in the book, by whichever process."""
        for row in self._store.events(entry.key, after=desk.book.seq):
            desk.apply(from_row(row))


@dataclass(frozen=True)
class View:
    """The windows of what one client looks at. ``places``: as (px of level 0, width, height)."""

    sessions: Sessions
    sight: Sight
    client: str
    turn: int
    places: tuple[tuple[Rect, int, int], ...]
    keys: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether all of it is encoded."""
        return all(map(self.sight.engine.has, self.keys))

    def encode(self) -> None:
        """Read the windows and have them encoded; ends early when the client looks elsewhere."""
        for rect0, width, height in self.places:
            if not self.sessions.is_current(self.client, self.turn):
                return
            key = self.sight.key(rect0, width, height)
            picture = partial(self.sight.picture, rect0, width, height)
            try:
                self.sight.engine.ahead(key, picture, self.turn)
            except (HistoclickError, Busy, NoSlide):  # damaged there, or closed: a click will tell
                return


def _clipped(view: Rect, grid: Grid, side: int) -> Rect:
    """The middle of a view that is larger than what is encoded ahead at all."""
    width = min(view.width, MAX_WINDOWS * side * grid.scale_x / 4)
    height = min(view.height, MAX_WINDOWS * side * grid.scale_y / 4)
    x0 = view.x0 + (view.width - width) / 2
    return Rect(x0, view.y0 + (view.height - height) / 2, width, height)


def _check_extent(stroke: Stroke, book: Book) -> None:
    """Raise ``HistoclickError`` for a stroke over more pixels than can be painted in a moment."""
    item = book.objects.get(stroke.object or 0)
    mpp = item.mpp if item is not None and item.mpp is not None else stroke.mpp
    grid = Grid.of(book.slide, max(mpp, book.slide.mpp or 1.0))
    area = 1.0
    for places, scale, most in (
        ([x for x, _ in stroke.points], grid.scale_x, grid.width),
        ([y for _, y in stroke.points], grid.scale_y, grid.height),
    ):
        area *= min((max(places) - min(places) + 2 * stroke.radius) / scale + 1, most)
    if area > MAX_STROKE_PX:
        raise HistoclickError("the stroke covers too much at this um/px; zoom out, or paint less")
