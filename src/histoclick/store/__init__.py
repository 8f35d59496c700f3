"""What users did, kept for good: an append-only log of events for every slide.

An event that ``append`` has taken is on disk, whole, and nothing takes it away again: not a killed
process, not a full disk, not another process that writes to the same slide. What the annotations
are is not stored: it is a fold over the events (``histoclick.session``).
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from histoclick.store import postgresql, sqlite
from histoclick.store.tables import EVENTS, SLIDES, Unavailable
from histoclick.types import HistoclickError

__all__ = ["Conflict", "Store", "Unavailable"]

PAGE = 64  # events read at once: their results may be large
_KINDS: dict[str, type | tuple[type, ...]] = {
    "seq": int, "id": str, "client": str, "user": str, "time": (int, float),
    "action": dict, "facts": dict, "result": (bytes, type(None)),
}  # fmt: skip


class Conflict(Exception):
    """Somebody else was faster: the number is taken, or this very event is stored already.

    Read the events that are new, and try again with the next number unless its id is among them.
    """


class Store:
    """A log in a SQLite file or on a PostgreSQL server. Safe to use from many threads.

    ``where``: the file or address, for messages; passwords are not in it.
    """

    def __init__(self, engine: sa.Engine, where: str) -> None:
        self.where = where
        self._why = sqlite.why if engine.dialect.name == "sqlite" else postgresql.why
        self._engine = engine
        self._writer = engine.execution_options(writing=True)
        # Threads wait here in turn, which is fairer and faster than trying again and again.
        self._writing = threading.Lock()

    @classmethod
    def open(cls, url_or_path: str, *, must_exist: bool = False) -> Store:
        """Open a store; one that is not there yet is made, unless it ``must_exist``.

        ``url_or_path``: a file, ``sqlite:///file``, or ``postgresql://user@host/database``. Raises
        ``HistoclickError`` for what is no store, is one of a newer histoclick, or cannot be opened.
        """
        if "://" not in url_or_path:
            where, path = url_or_path, Path(url_or_path)
            with _told(where, sqlite.why, "cannot be opened"):
                return cls(sqlite.engine(path, must_exist), where)
        try:
            url = sa.make_url(url_or_path)
        except sa.exc.ArgumentError:
            raise HistoclickError(
                "the address of the store cannot be read; give a file, or "
                "postgresql://user:password@host/database"
            ) from None
        where, kind = url.render_as_string(hide_password=True), url.get_backend_name()
        if kind == "sqlite" and url.database and url.database != ":memory:" and not url.query:
            return cls.open(url.database, must_exist=must_exist)
        if kind not in ("postgresql", "postgres"):
            raise HistoclickError(
                f"{where}: no store can be there; give a file, or "
                "postgresql://user:password@host/database"
            )
        with _told(where, postgresql.why, "cannot be opened"):
            return cls(postgresql.engine(url, where, must_exist), where)

    def slide(
        self, key: str, *, name: str, path: str, width: int, height: int, mpp: float | None
    ) -> None:
        """Remember a slide, or where it lies now.

        ``key``: fingerprint of its content. ``width``, ``height``: of level 0, px. ``mpp``: um per
        px of level 0, if known.
        """
        facts = {"name": name, "path": path, "width": width, "height": height, "mpp": mpp}
        this = SLIDES.c.key == key
        with self._told("the slide was not stored"):
            with self._engine.connect() as connection:
                known = connection.execute(sa.select(SLIDES).where(this)).mappings().one_or_none()
            if known is not None and dict(known) == facts | {"key": key}:
                return
            with self._writing:
                try:
                    with self._writer.begin() as connection:
                        if not connection.execute(SLIDES.update().where(this), facts).rowcount:
                            connection.execute(SLIDES.insert(), facts | {"key": key})
                except sa.exc.IntegrityError:  # another process remembered it just now
                    return

    def append(self, slide_key: str, row: Mapping[str, Any]) -> None:
        """Add the next event of a slide; when this returns, it is on disk.

        ``row``: ``seq`` (one more than the last), ``id``, ``client``, ``user``, ``time`` (s since
        the epoch), ``action`` and ``facts`` (as JSON), ``result`` (bytes or ``None``).

        Raises ``Conflict`` if ``seq`` or ``id`` is taken, and ``HistoclickError`` if it could not
        be stored; after that, the same event may be tried again.
        """
        values = {"slide": slide_key} | _checked(row)
        last = sa.select(sa.func.max(EVENTS.c.seq)).where(EVENTS.c.slide == slide_key)
        same = sa.select(sa.func.count()).where(
            EVENTS.c.slide == slide_key, EVENTS.c.id == values["id"]
        )
        known = sa.select(sa.func.count()).where(SLIDES.c.key == slide_key)
        asked = sa.select(*(question.scalar_subquery() for question in (last, same, known)))
        unsure = "it is not known whether the last action was stored"
        with self._told("the last action was not stored", unsure), self._writing:
            try:
                with self._writer.begin() as connection:
                    seq, stored, slides = connection.execute(asked).one()
                    if not slides:
                        raise ValueError(f"slide {slide_key!r} is not in the store; add it first")
                    if stored:
                        raise Conflict(f"event {values['id']} is stored already")
                    if values["seq"] <= (seq or 0):
                        raise Conflict(f"event number {values['seq']} is taken")
                    if values["seq"] != (seq or 0) + 1:
                        raise ValueError(f"event {values['seq']} cannot follow event {seq or 0}")
                    connection.execute(EVENTS.insert(), values)
            except sa.exc.IntegrityError:  # two servers at the same moment
                raise Conflict(f"event number {values['seq']} is taken") from None

    def events(self, slide_key: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """The events of a slide with a number above ``after``, in order, as ``append`` took them.

        Read in pages, each with what is stored by then; nobody who writes has to wait. Raises
        ``HistoclickError`` for a damaged store.
        """
        columns = [EVENTS.c[name] for name in _KINDS]
        while True:
            page = (
                sa.select(*columns)
                .where(EVENTS.c.slide == slide_key, EVENTS.c.seq > after)
                .order_by(EVENTS.c.seq)
                .limit(PAGE)
            )
            with self._told("events cannot be read"), self._engine.connect() as connection:
                try:
                    rows = [dict(row) for row in connection.execute(page).mappings()]
                except ValueError as error:  # of JSON
                    raise HistoclickError(
                        f"{self.where}: an event after number {after} is damaged ({error}); copy "
                        "the store away and bring back a backup"
                    ) from None
            for row in rows:
                if row["seq"] != after + 1:
                    raise HistoclickError(
                        f"{self.where}: event {after + 1} of slide {slide_key} is missing; copy "
                        "the store away and bring back a backup"
                    )
                after += 1
                yield row
            if len(rows) < PAGE:
                return

    def latest(self, kind: str) -> dict[str, Any] | None:
        """The latest action of a kind on any slide; ``None`` if there was none."""
        found = (
            sa.select(EVENTS.c.action)
            .where(EVENTS.c.action["kind"].as_string() == kind)
            .order_by(EVENTS.c.time.desc(), EVENTS.c.seq.desc())
            .limit(1)
        )
        with self._told("events cannot be read"), self._engine.connect() as connection:
            action: dict[str, Any] | None = connection.execute(found).scalar_one_or_none()
        return action

    def slides(self) -> list[dict[str, Any]]:
        """All slides as they were given to ``slide``, with ``key`` and the number of ``events``."""
        counted = (
            sa.select(SLIDES, sa.func.coalesce(sa.func.max(EVENTS.c.seq), 0).label("events"))
            .outerjoin(EVENTS)
            .group_by(SLIDES.c.key)
            .order_by(SLIDES.c.name, SLIDES.c.key)
        )
        with self._told("slides cannot be read"), self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(counted).mappings()]

    def close(self) -> None:
        """Close all connections; the last one to a file tidies its log up."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _told(self, what: str, unsure: str = "") -> Iterator[None]:
        with _told(self.where, self._why, what, unsure):
            yield


@contextmanager
def _told(where: str, why: Any, what: str, unsure: str = "") -> Iterator[None]:
    """Errors of the database as one sentence. ``unsure``: what to say of a lost connection."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        what = unsure if unsure and error.connection_invalidated else what
        raise Unavailable(where, f"{what}, {why(error.orig)}") from error
    except sa.exc.SQLAlchemyError as error:  # as when all connections are in use for long
        raise Unavailable(where, f"{what} ({error}); repeat it") from error


def _checked(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row if every database takes it and gives it back as it was, else ``ValueError``."""
    if row.keys() != _KINDS.keys():
        raise ValueError(f"an event has {', '.join(_KINDS)}, not {', '.join(row)}")
    for name, kind in _KINDS.items():
        value = row[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name} of an event cannot be {value!r}")
        if isinstance(value, str) and ("\0" in value or not _encodes(value)):
            raise ValueError(f"{name} of an event cannot be {value!r}")
    if row["seq"] < 1:
        raise ValueError(f"seq of an event cannot be {row['seq']}: the first is 1")
    if not math.isfinite(row["time"]):
        raise ValueError(f"time of an event cannot be {row['time']}")
    for name in ("action", "facts"):
        json.dumps(row[name], allow_nan=False)  # ValueError: JSON has no NaN
    return dict(row) | {"time": float(row["time"])}


def _encodes(text: str) -> bool:
    """Whether it is proper Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
