"""One thread that does one thing at a time, the most urgent first.

``_lock`` guards the queue alone. It is the innermost lock: nothing is called under it.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from histoclick.types import HistoclickError


class Urgency(IntEnum):
    """Of work: the first comes first."""

    CLICK = 0  # somebody waits
    AHEAD = 1  # somebody may wait for it soon
    SHELVE = 2  # nobody will ever wait


class Busy(Exception):
    """More clicks wait than can be answered soon; try again a little later."""


@dataclass(eq=False)
class Job:
    """``turn``: those of a higher one come first. ``waits``: in the queue, not begun."""

    work: Callable[[], Any]
    urgency: Urgency = Urgency.CLICK
    key: str = ""
    turn: int = 0
    waits: bool = False
    result: Future[Any] = field(default_factory=Future)


class Worker:
    """Thread-safe. ``most``: jobs of each urgency that may wait at a time."""

    def __init__(self, most: dict[Urgency, int]) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._something = threading.Condition(self._lock)
        self._queue: list[tuple[int, int, int, Job]] = []  # a heap: urgency, -turn, number
        self._numbers = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Job | None:
        """Let a job wait for its turn. Returns one that had to be given up instead, if any.

        Raises ``Busy``, and ``HistoclickError`` after ``close``.
        """
        with self._lock:
            if self._closed:
                raise _closing()
            waiting = [place for place in self._queue if place[0] == job.urgency]
            dropped = None
            if len(waiting) >= self._most[job.urgency]:
                if job.urgency == Urgency.CLICK:
                    raise Busy
                dropped = max(waiting)[-1] if job.urgency == Urgency.AHEAD else job
                self._take_out(dropped)
                dropped.result.cancel()
            if dropped is not job:
                self._put(job)
            return dropped

    def hurry(self, job: Job) -> None:
        """Somebody waits now for what was to be done ahead."""
        with self._lock:
            waits = job.waits
            self._take_out(job)
            job.urgency, job.turn = Urgency.CLICK, 0
            if waits:
                self._put(job)

    def give_up(self, turn: int) -> list[Job]:
        """Do nothing more of what was to be done ahead in a turn; what that was."""
        with self._lock:
            dropped = [
                place[-1]
                for place in self._queue
                if place[0] == Urgency.AHEAD and place[-1].turn == turn
            ]
            for job in dropped:
                self._take_out(job)
                job.result.cancel()
            return dropped

    def close(self) -> None:
        """Finish what is being done and let all others fail."""
        with self._lock:
            self._closed = True
            waiting = [place[-1] for place in self._queue]
            self._queue.clear()
            self._something.notify_all()
        for job in waiting:
            job.result.set_exception(_closing())
        self._thread.join()

    def _put(self, job: Job) -> None:
        job.waits = True
        heapq.heappush(self._queue, (job.urgency, -job.turn, next(self._numbers), job))
        self._something.notify()

    def _take_out(self, job: Job) -> None:
        if job.waits:
            job.waits = False
            self._queue = [place for place in self._queue if place[-1] is not job]
            heapq.heapify(self._queue)

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._queue and not self._closed:
                    self._something.wait()
                if self._closed:
                    return
                *_, job = heapq.heappop(self._queue)
                job.waits = False
            try:
                answer = job.work()
            except BaseException as error:  # noqa: BLE001  # it belongs to who asked
                job.result.set_exception(error)
            else:
                job.result.set_result(answer)
            del job  # and with it pictures and answers


def _closing() -> HistoclickError:
    return HistoclickError("the server is closing; nothing is computed any more")
