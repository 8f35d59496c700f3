"""Blocking work of requests, in threads: each kind has its own, so that none waits for another."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import anyio

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
    """``tiles``: reading and compressing pictures. ``work``: clicks and what else changes or reads
    annotations; most of these wait for the model. ``files``: what is imported and exported, which
    may take minutes. ``ahead``: reading windows nobody asked for."""

    def __init__(self) -> None:
        self.tiles = Threads(max(2, min(8, os.cpu_count() or 2)))
        self.work = Threads(48)
        self.files = Threads(2)
        self.ahead = Threads(2)
