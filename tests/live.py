"""The real command ``histoclick annotate`` as a process, for tests that look at it from outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2

PATIENCE = 120.0  # seconds in which it must answer; other tests may have the processors


class Annotator:
    """A running server of the slides in ``folders``. ``url``: where, with a slash at the end."""

    def __init__(
        self,
        slides: Sequence[Path],
        store: Path | str,
        *options: str,
        port: int | None = None,
        start: Sequence[str] = ("-m", "histoclick"),
    ) -> None:
        self.folders = list(slides)
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._log = Path(f"{store}.log")
        command = [
            *(sys.executable, *start, "annotate", *map(str, slides)),
            *("--store", str(store), "--port", str(self.port), "--no-browser", "--threads", "1"),
            *options,
        ]
        environment = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": f"{store}.cache"}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | environment
            )

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                httpx2.get(f"{self.url}api/info", timeout=10).raise_for_status()
                return
            except httpx2.TransportError:
                said = self._log.read_text()
                assert self.process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.05)

    def kill(self) -> None:
        """As by ``kill -9``."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """As by Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=30)
        finally:
            self.kill()


@contextmanager
def annotating(
    slides: Sequence[Path],
    store: Path | str,
    *options: str,
    port: int | None = None,
    start: Sequence[str] = ("-m", "histoclick"),
) -> Iterator[Annotator]:
    """A server that answers, until the end of the block. ``start``: the command, for Python."""
    server = Annotator(slides, store, *options, port=port, start=start)
    try:
        server.wait()
        yield server
    finally:
        server.end()


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
