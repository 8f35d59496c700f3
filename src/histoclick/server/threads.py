"""Blocking work of requests, in threads: each kind has its own, so that none waits for another."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import anyio

from histoclick.server.worker import Busy

OF_SLIDE = 16  # requests at a time that wait for one slide: work on it is done one by one

T = TypeVar("T")


class Threads:
    """At most ``count`` threads at a time; who finds none waits."""

    def __init__(self, count: int) -> None:
        self._limiter = anyio.CapacityLimiter(count)

    @property
    def all_busy(self) -> bool:
        """Whether the next one would have to wait."""
        return self._limiter.available_tokens < 1

    async def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises."""
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


class Staff:
    """``tiles``: reading and compressing pictures. ``looks``: what waits for no click, such as the
    list of slides. ``work``: clicks and what else changes or reads annotations; most of these wait
    for the model. ``files``: what is imported and exported, which
    may take minutes. ``ahead``: reading windows nobody asked for."""

    def __init__(self) -> None:
        self.tiles = Threads(max(2, min(8, os.cpu_count() or 2)))
        self.looks = Threads(8)
        self.work = Threads(48)
        self.files = Threads(2)
        self.ahead = Threads(2)
        self._at: Counter[str] = Counter()  # used from one event loop, so it needs no lock

    async def at(self, slide_id: str, work: Callable[[], T]) -> T:
        """``work`` on the annotations of a slide. Raises ``Busy`` when too many wait for it."""
        if self._at[slide_id] >= OF_SLIDE:
            raise Busy
        self._at[slide_id] += 1
        try:
            return await self.work.run(work)
        finally:
            self._at[slide_id] -= 1
            if not self._at[slide_id]:
                del self._at[slide_id]
