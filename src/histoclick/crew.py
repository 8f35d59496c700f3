"""Who does the work: this process, several, or a Ray cluster.

A crew maps a task over items. The task gets a tool as its first argument, such as the segmenter of
an evaluation; everybody has one, made once. Results come in the order in which they are ready. A
task neither writes files nor keeps state, so it does not matter who does it, and nothing is
half-written when somebody falls.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any, Generic, Self, TypeVar

from histoclick.types import HistoclickError

Item = TypeVar("Item")
Result = TypeVar("Result")
Tool = TypeVar("Tool")


class Crew(ABC, Generic[Tool]):
    """At least one worker with a tool. As a context, sends everybody home at its end."""

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many there are at most."""

    @abstractmethod
    def map(self, task: Callable[[Tool, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """``task(tool, item)`` of every item, as they get ready.

        What loading or a task raises is raised here; so is ``HistoclickError`` when a worker dies.
        """

    @abstractmethod
    def close(self) -> None:
        """Send everybody home at once; the next ``map`` calls new ones."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Alone(Crew[Tool]):
    """This process."""

    def __init__(self, tool: Tool) -> None:
        self._tool = tool

    @property
    def workers(self) -> int:
        """One."""
        return 1

    def map(self, task: Callable[[Tool, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """One after the other, in order."""
        for item in items:
            yield task(self._tool, item)

    def close(self) -> None:
        """Nobody to send home."""


class Desk(Generic[Tool]):
    """Where a worker of another process sits: ``load`` is called for the first task, and its tool
    stays."""

    def __init__(self, load: Callable[[], Tool]) -> None:
        self._load = load
        self._tools: list[Tool] = []

    def work(self, task: Callable[[Tool, Any], Any], item: Any) -> Any:
        """What the task says; an unexpected exception carries its place here as a note."""
        try:
            if not self._tools:
                self._tools.append(self._load())
            return task(self._tools[0], item)
        except Exception as error:
            if not isinstance(error, HistoclickError):
                error.add_note(f"In a worker:\n{traceback.format_exc()}")
            raise


class Processes(Crew[Tool]):
    """``workers`` processes on this machine; each calls ``load``, which has to be picklable.

    Each has a pipe of its own, so that any of them can be killed at any time. The pools of the
    standard library share one: killed in the middle of an answer they wait for its end for ever,
    and left to finish they take as long as a patch after Ctrl-C.
    """

    def __init__(
        self, load: Callable[[], Tool], workers: int, context: BaseContext | None = None
    ) -> None:
        if workers < 1:
            raise HistoclickError(f"{workers} workers can do nothing; give at least 1")
        self._load = load
        # Afresh unless asked otherwise: copies of a process that has used torch may hang.
        self._context: Any = context or multiprocessing.get_context("spawn")
        self._workers = workers
        self._idle: list[_Process] = []

    @property
    def workers(self) -> int:
        """As many as asked for."""
        return self._workers

    def map(self, task: Callable[[Tool, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """No process is started that is not needed. When it ends early, so do all at work."""
        todo, busy = iter(items), dict[Any, _Process]()
        try:
            while True:
                for item in islice(todo, self._workers - len(busy)):
                    worker = self._idle.pop() if self._idle else _Process(self._load, self._context)
                    busy[worker.pipe] = worker
                    worker.ask(task, item)
                if not busy:
                    return
                for pipe in wait(list(busy)):  # also for the end of one whose process is dead
                    done, result = busy[pipe].answer()
                    self._idle.append(busy.pop(pipe))
                    if not done:
                        raise result
                    yield result
        finally:
            for worker in busy.values():
                worker.kill()

    def close(self) -> None:
        """They have nothing to finish."""
        while self._idle:
            self._idle.pop().kill()


def preloaded(*modules: str) -> BaseContext:
    """How to start processes that have ``modules`` already: as copies of one that imports them.

    That one is started at once; call this before your own imports, and they are made side by side.
    Not for modules that load torch. Where processes cannot be copied (Windows), all start afresh.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload(list(modules))
    with _no_interrupts():
        forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")


class _Process:
    def __init__(self, load: Callable[[], Any], context: Any) -> None:
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, load), daemon=True)
        with _no_interrupts():  # a process that is starting would die of Ctrl-C with a traceback
            self._process.start()
        theirs.close()

    def ask(self, task: Callable[[Any, Any], Any], item: Any) -> None:
        try:
            self.pipe.send((task, item))
        except OSError:
            raise self._death() from None

    def answer(self) -> tuple[bool, Any]:
        """(True, the result) or (False, an exception)."""
        try:
            answer: tuple[bool, Any] = self.pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        return answer

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def _death(self) -> HistoclickError:
        self._process.join()
        return HistoclickError(
            f"a worker died (exit code {self._process.exitcode}), most likely for lack of memory; "
            "use fewer --workers or a smaller --batch and repeat the command: what was finished is "
            "kept"
        )


def _serve(pipe: Connection, load: Callable[[], Any]) -> None:
    """The life of a process: it ends with the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the one who waits ends us
    desk = Desk(load)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            task, item = pipe.recv()
            try:
                answer = True, desk.work(task, item)
            except Exception as error:  # noqa: BLE001 - whatever it is, who waits raises it
                answer = False, error
            pipe.send(answer)


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


class RayCluster(Crew[Tool]):
    """A Ray cluster; ``address`` as Ray knows it (``auto``, ``ray://host:10001``, ``local``).

    Every worker is an actor with ``threads`` processors and, with ``gpu``, one accelerator; there
    are as many as the cluster has room for. Patch sets and models are read where the work is done,
    so they must lie under the same paths on all nodes. Needs the extra ``histoclick[ray]``.
    """

    def __init__(
        self, load: Callable[[], Tool], address: str, *, threads: int = 1, gpu: bool = False
    ) -> None:
        try:
            import ray
            from ray.util import ActorPool
        except ImportError:
            raise HistoclickError(
                "Ray is not installed; install it with: pip install 'histoclick[ray]'"
            ) from None
        self._ray: Any = ray
        self._pool_of: Any = ActorPool
        self._load = load
        self._needs = {"CPU": threads} | ({"GPU": 1} if gpu else {})
        self._actors: list[Any] = []
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

    def map(self, task: Callable[[Tool, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Nobody is hired who is not needed. When it ends early, so do all at work."""
        todo = list(items)
        left = len(todo)
        needs = {"num_cpus": self._needs["CPU"], "num_gpus": self._needs.get("GPU", 0)}
        while len(self._actors) < min(self._workers, len(todo)):
            self._actors.append(self._ray.remote(**needs)(Desk).remote(self._load))
        try:
            if todo:
                pool = self._pool_of(self._actors)
                for result in pool.map_unordered(lambda a, item: a.work.remote(task, item), todo):
                    left -= 1
                    yield result
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise HistoclickError(
                f"a worker of the Ray cluster died ({type(error).__name__}); repeat the command: "
                "what was finished is kept"
            ) from None
        finally:
            if left:
                self._dismiss()

    def close(self) -> None:
        """End the actors and leave the cluster, if this crew joined it."""
        self._dismiss()
        if self._started:
            self._ray.shutdown()

    def _dismiss(self) -> None:
        while self._actors:
            self._ray.kill(self._actors.pop())

    def _room(self, node: dict[str, Any]) -> int:
        there = node["Resources"] if node["Alive"] else {}
        return min(int(there.get(name, 0) // count) for name, count in self._needs.items())
