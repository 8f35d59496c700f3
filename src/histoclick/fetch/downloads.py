"""Many files at once: a few threads fetch, the caller's thread hears and keeps the record."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from histoclick.datasets.bucket import RemoteFile
from histoclick.fetch.onefile import Free, fetch_file
from histoclick.fetch.plan import (
    Item,
    Plan,
    Record,
    State,
    digest_of,
    free_bytes,
    in_words,
    make_plan,
)
from histoclick.fetch.web import Interrupted, Patience, Refused, Web
from histoclick.types import HistoclickError

LOCK = ".histoclick-fetch.lock"
RESERVE = 100 * 10**6  # bytes of the disk that stay free
TELL_EVERY_S = 0.1
GOODBYE_S = 2.0  # threads that wait for a silent server are left alone after it
Progress = Callable[[str, int, int], None]


class Result(StrEnum):
    """What became of a file."""

    FETCHED = "fetched"
    THERE = "there"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """``told``: one sentence, for ``FAILED`` why; else "" or what the user should know."""

    file: RemoteFile
    target: Path
    result: Result
    told: str = ""


def fetch(
    files: Sequence[RemoteFile],
    base: str,
    folder: Path,
    *,
    workers: int = 4,
    progress: Progress = lambda path, done, total: None,
    patience: Patience | None = None,
    free: Free = free_bytes,
) -> Iterator[Outcome]:
    """Fetch what is missing of ``files`` from below the URL ``base``, and verify it.

    Yields an outcome for each as soon as it is ready; what fails does not keep the others back.
    ``progress(path, done, total)`` in bytes: called in the caller's thread, some ten times a second
    for each file at work. Ctrl-C (and whatever ``progress`` raises) ends it; the next call goes on
    from there.

    Raises ``HistoclickError`` when the disk has too little room (``free``: of a folder, bytes), or
    another process fetches into ``folder``.
    """
    if workers < 1:
        raise HistoclickError(f"{workers} downloads at a time fetch nothing; give at least 1")
    _check_room(make_plan(files, folder), folder, free)
    with _alone_in(folder):
        plan, record = make_plan(files, folder), Record(folder)
        for outcome in _work(plan, base.rstrip("/"), workers, progress, patience, free):
            if outcome.result != Result.FAILED:
                record.add(outcome.file, outcome.target)
            yield outcome


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two at work on one partial file would spoil it."""
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise HistoclickError(
            f"{folder}: another fetch is at work here; wait for it, or take another folder"
        ) from None
    except OSError as error:
        raise HistoclickError(
            f"{folder}: cannot be written ({error.strerror}); take another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _check_room(plan: Plan, folder: Path, free: Free) -> None:
    room = free(folder) - RESERVE
    if plan.missing > room:
        raise HistoclickError(
            f"{folder}: {in_words(plan.missing)} are to be fetched and the disk has room for "
            f"{in_words(max(0, room))}; name fewer slides, or another folder"
        )


def _work(
    plan: Plan,
    base: str,
    workers: int,
    progress: Progress,
    patience: Patience | None,
    free: Free,
) -> Iterator[Outcome]:
    """Outcomes as they come. When it ends early, so do the threads."""
    todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in plan.items:
        todo.put(item)
    news: queue.SimpleQueue[Outcome | tuple[str, int, int] | BaseException] = queue.SimpleQueue()
    stop = threading.Event()

    def serve() -> None:
        try:
            while not stop.is_set():
                news.put(_bring(web, base, todo.get_nowait(), news.put, free))
        except (queue.Empty, Interrupted):
            pass
        except BaseException as error:  # noqa: BLE001  raised again where it is heard
            news.put(error)

    with Web(patience or Patience(), stop, workers) as web:
        # Daemons: one that waits for a silent server would keep the program for a minute.
        threads = [
            threading.Thread(target=serve, daemon=True)
            for _ in range(min(workers, len(plan.items)))
        ]
        try:
            for thread in threads:
                thread.start()
            waiting = len(plan.items)
            while waiting:
                try:
                    heard = news.get(timeout=0.5)  # without one, Ctrl-C is not heard on Windows
                except queue.Empty:
                    continue
                if isinstance(heard, BaseException):
                    raise heard
                if isinstance(heard, Outcome):
                    waiting -= 1
                    yield heard
                else:
                    progress(*heard)
        finally:
            stop.set()
            end = time.monotonic() + GOODBYE_S
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(0.0, end - time.monotonic()))


def _bring(
    web: Web, base: str, item: Item, tell: Callable[[tuple[str, int, int]], None], free: Free
) -> Outcome:
    """One file, whatever is there of it."""
    file, target = item.file, item.target
    last = float("-inf")

    def heard(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= TELL_EVERY_S:
            last = now
            tell((file.path, done, total))

    try:
        told = ""
        if item.state == State.THERE or (
            item.state == State.UNCHECKED
            and digest_of(target, file.algorithm, web.check) == file.checksum
        ):
            return Outcome(file, target, Result.THERE)
        if item.state in {State.UNCHECKED, State.WRONG}:
            told = _set_aside(item)
        fetch_file(web, f"{base}/{quote(file.path)}", file, target, heard, free)
        return Outcome(file, target, Result.FETCHED, told)
    except Refused as refused:
        return Outcome(file, target, Result.FAILED, f"{file.path}: {refused}")
    except OSError as error:
        return Outcome(
            file, target, Result.FAILED, f"{file.path}: cannot be written ({error.strerror})"
        )


def _set_aside(item: Item) -> str:
    """Keep what lies in the way: somebody may have changed it on purpose."""
    target = item.target
    aside = target.with_name(f"{target.name}.wrong")
    if aside.exists():
        raise Refused(
            f"it is not the file of the server, and neither is {aside.name} beside it; remove or "
            "rename one of them"
        )
    why = "another size" if item.state == State.WRONG else "another checksum"
    target.replace(aside)
    return f"{item.file.path}: what was there has {why} and is {aside.name} now."
