"""Who does the work of an evaluation: this process, several, or a Ray cluster.

A crew maps a task over items. The task gets the segmenter as its first argument; everybody has one.
Results come in the order in which they are ready. A task neither writes files nor keeps state, so
it does not matter who does it, and nothing is half-written when somebody falls.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import signal
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any, Self, TypeVar

from histoclick.types import HistoclickError, Segmenter

Item = TypeVar("Item")
Result = TypeVar("Result")
Load = Callable[[], Segmenter]
Answer = tuple[bool, Any]  # (True, a result) or (False, an exception)


class Crew(ABC):
    """At least one worker with a segmenter. As a context, sends everybody home at its end."""

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many there are at most."""

    @abstractmethod
    def map(
        self, task: Callable[[Segmenter, Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """``task(segmenter, item)`` of every item, as they get ready.

        What loading or a task raises is raised here; so is ``HistoclickError`` when a worker dies.
        """

    @abstractmethod
    def close(self) -> None:
        """Send everybody home; the next ``map`` calls new ones."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Alone(Crew):
    """This process."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    @property
    def workers(self) -> int:
        """One."""
        return 1

    def map(
        self, task: Callable[[Segmenter, Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """One after the other, in order."""
        for item in items:
            yield task(self._segmenter, item)

    def close(self) -> None:
        """Nobody to send home."""


class Desk:
    """Where a worker sits. ``load`` is called for the first task, ``segmenter`` stays."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._segmenter: Segmenter | None = None

    def work(self, task: Callable[[Segmenter, Any], Any], item: Any) -> Answer:
        """Never raises: whoever waits for the answer does that."""
        try:
            if self._segmenter is None:
                self._segmenter = self._load()
            return True, task(self._segmenter, item)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where it is awaited
            if not isinstance(error, HistoclickError):
                error.add_note(f"In a worker:\n{traceback.format_exc()}")
            return False, error


class Worker(ABC):
    """Somebody of a team."""

    @abstractmethod
    def begin(self, task: Callable[[Segmenter, Any], Any], item: Any) -> None:
        """Start on an item."""

    @abstractmethod
    def answer(self) -> Answer:
        """What became of it. Raises ``HistoclickError`` if the worker is dead."""

    @abstractmethod
    def end(self) -> None:
        """Stop at once, whatever is under way."""


class Team(Crew):
    """Workers who get an item each and the next one when they are ready with it."""

    def __init__(self) -> None:
        self._idle: list[Worker] = []

    @abstractmethod
    def hire(self) -> Worker:
        """One more worker."""

    @abstractmethod
    def ready(self, busy: list[Worker]) -> list[Worker]:
        """Wait until some have an answer, or are dead."""

    def map(
        self, task: Callable[[Segmenter, Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """Nobody is hired who is not needed. When it ends early, so do those at work."""
        todo, busy = iter(items), list[Worker]()
        try:
            while True:
                for item in islice(todo, self.workers - len(busy)):
                    busy.append(self._idle.pop() if self._idle else self.hire())
                    busy[-1].begin(task, item)
                if not busy:
                    return
                for worker in self.ready(busy):
                    done, result = worker.answer()
                    busy.remove(worker)
                    self._idle.append(worker)
                    if not done:
                        raise result
                    yield result
        finally:
            for worker in busy:
                worker.end()

    def close(self) -> None:
        """End all who wait for work."""
        while self._idle:
            self._idle.pop().end()


class Processes(Team):
    """``workers`` processes on this machine; each calls ``load``, which has to be picklable."""

    def __init__(self, load: Load, workers: int) -> None:
        super().__init__()
        if workers < 1:
            raise HistoclickError(f"{workers} workers can do nothing; give at least 1")
        self._load = load
        self._workers = workers

    @property
    def workers(self) -> int:
        """As many as asked for."""
        return self._workers

    def hire(self) -> Worker:
        """Start a process."""
        return _Process(self._load)

    def ready(self, busy: list[Worker]) -> list[Worker]:
        """A dead process has closed its connection, which is also an end of waiting."""
        at = {worker.connection: worker for worker in busy if isinstance(worker, _Process)}
        connections = multiprocessing.connection.wait(list(at))
        return [worker for connection, worker in at.items() if connection in connections]


class _Process(Worker):
    """Started afresh (spawn): forked copies of a process that has used torch may hang."""

    def __init__(self, load: Load) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, load), daemon=True)
        with _no_interrupts():
            self._process.start()
        theirs.close()

    def begin(self, task: Callable[[Segmenter, Any], Any], item: Any) -> None:
        try:
            self.connection.send((task, item))
        except OSError:
            raise self._death() from None

    def answer(self) -> Answer:
        try:
            answer: Answer = self.connection.recv()
        except (EOFError, OSError):
            raise self._death() from None
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _death(self) -> HistoclickError:
        self._process.join()
        return HistoclickError(
            f"a worker died (exit code {self._process.exitcode}), most likely for lack of memory; "
            "use fewer --workers or a smaller --batch and repeat the command: what was finished is "
            "kept"
        )


def _serve(connection: Connection, load: Load) -> None:
    """The life of a process: it ends with the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the one who waits ends us
    desk = Desk(load)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            connection.send(desk.work(*connection.recv()))


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Ctrl-C waits until the end, and never reaches processes that are started meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class RayCluster(Team):
    """A Ray cluster; ``address`` as Ray knows it (``auto``, ``ray://host:10001``, ``local``).

    Every worker is an actor with ``threads`` processors and, with ``gpu``, one accelerator; there
    are as many as the cluster has room for. Patch sets and models are read where the work is done,
    so they must lie under the same paths on all nodes. Needs the extra ``histoclick[ray]``.
    """

    def __init__(self, load: Load, address: str, *, threads: int = 1, gpu: bool = False) -> None:
        super().__init__()
        try:
            import ray
        except ImportError:
            raise HistoclickError(
                "Ray is not installed; install it with: pip install 'histoclick[ray]'"
            ) from None
        self._ray: Any = ray
        self._load = load
        self._needs = {"CPU": threads} | ({"GPU": 1} if gpu else {})
        self._started = not ray.is_initialized()
        try:
            ray.init(address=address, log_to_driver=False, ignore_reinit_error=True)
        except (ConnectionError, ValueError, RuntimeError) as error:
            first = str(error).strip().partition("\n")[0]
            raise HistoclickError(
                f"no Ray cluster at '{address}' ({first}); start one with 'ray start --head', or "
                "use --ray local"
            ) from None
        self._workers = sum(map(self._room, ray.nodes()))
        if not self._workers:
            self.close()
            needs = " and ".join(f"{count} {name}" for name, count in self._needs.items())
            raise HistoclickError(
                f"no node of the Ray cluster at '{address}' has room for a worker with {needs}; "
                "use fewer --threads or another --device"
            )

    @property
    def workers(self) -> int:
        """As many as fit on the nodes."""
        return self._workers

    def hire(self) -> Worker:
        """Start an actor."""
        needs = {"num_cpus": self._needs["CPU"], "num_gpus": self._needs.get("GPU", 0)}
        return _Actor(self._ray, self._ray.remote(**needs)(Desk).remote(self._load))

    def ready(self, busy: list[Worker]) -> list[Worker]:
        """A dead actor has an answer as well: its death."""
        at = {worker.pending: worker for worker in busy if isinstance(worker, _Actor)}
        return [at[pending] for pending in self._ray.wait(list(at))[0]]

    def close(self) -> None:
        """End the actors and leave the cluster."""
        super().close()
        if self._started:
            self._ray.shutdown()

    def _room(self, node: dict[str, Any]) -> int:
        there = node["Resources"] if node["Alive"] else {}
        return min(int(there.get(name, 0) // count) for name, count in self._needs.items())


class _Actor(Worker):
    """A desk on a node of a cluster."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor
        self.pending: Any = None

    def begin(self, task: Callable[[Segmenter, Any], Any], item: Any) -> None:
        self.pending = self._actor.work.remote(task, item)

    def answer(self) -> Answer:
        try:
            answer: Answer = self._ray.get(self.pending)
        except self._ray.exceptions.RayError as error:
            raise HistoclickError(
                f"a worker of the Ray cluster died ({type(error).__name__}); repeat the command: "
                "what was finished is kept"
            ) from None
        return answer

    def end(self) -> None:
        self._ray.kill(self._actor)
