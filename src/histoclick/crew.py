"""Who does the work of an evaluation: this process, several, or a Ray cluster.

A crew maps a task over items. The task gets the segmenter as its first argument; everybody has one.
Results come in the order in which they are ready. A task neither writes files nor keeps state, so
that it does not matter who does it and nothing is half-written when somebody falls.
"""

from __future__ import annotations

import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from histoclick.types import HistoclickError, Segmenter

Item = TypeVar("Item")
Result = TypeVar("Result")
Load = Callable[[], Segmenter]


class Crew(ABC):
    """At least one worker with a segmenter."""

    @abstractmethod
    def map(
        self, task: Callable[[Segmenter, Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """``task(segmenter, item)`` of every item, as they get ready.

        What a task raises is raised here; so is ``HistoclickError`` when a worker dies.
        """


class Alone(Crew):
    """This process."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    def map(
        self, task: Callable[[Segmenter, Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """One after the other, in order."""
        for item in items:
            yield task(self._segmenter, item)


class Processes(Crew):
    """``workers`` processes on this machine; each calls ``load``, which has to be picklable."""

    def __init__(self, load: Load, workers: int) -> None:
        self._load = load
        self._workers = workers

    def map(
        self, task: Callable[[Segmenter, Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """Started afresh (spawn): forked copies of a process that has used torch may hang."""
        pool = ProcessPoolExecutor(
            self._workers, multiprocessing.get_context("spawn"), _begin, (self._load,)
        )
        try:
            for future in as_completed([pool.submit(_work, task, item) for item in items]):
                yield future.result()
        except BrokenProcessPool:
            raise HistoclickError(
                "a worker died, most likely for lack of memory; use fewer --workers and repeat the "
                "command: what was finished is kept"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class RayCluster(Crew):
    """A Ray cluster; ``address`` as Ray knows it (``auto``, ``ray://host:10001``, ``local``).

    Patch sets and models are read where the work is done, so they must lie under the same paths
    on all nodes. Needs the extra ``histoclick[ray]``.
    """

    def __init__(self, load: Load, address: str) -> None:
        try:
            import ray
        except ImportError:
            raise HistoclickError(
                "Ray is not installed; install it with: pip install 'histoclick[ray]'"
            ) from None
        self._ray: Any = ray
        if not ray.is_initialized():
            try:
                ray.init(address=address, include_dashboard=False, log_to_driver=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                first = str(error).splitlines()[0]
                raise HistoclickError(
                    f"no Ray cluster at '{address}' ({first}); start one with 'ray start --head', "
                    "or use --ray local"
                ) from None
        self._load = load

    def map(
        self, task: Callable[[Segmenter, Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """One actor per processor of the cluster, each with a segmenter."""
        from ray.util.actor_pool import ActorPool

        actor = self._ray.remote(num_cpus=1)(_Actor)
        todo = list(items)
        count = max(1, min(int(self._ray.cluster_resources().get("CPU", 1)), len(todo)))
        pool = ActorPool([actor.remote(self._load) for _ in range(count)])
        yield from pool.map_unordered(lambda worker, item: worker.work.remote(task, item), todo)


class _Actor:
    """What lives on the nodes of a cluster."""

    def __init__(self, load: Load) -> None:
        self._segmenter = load()

    def work(self, task: Callable[[Segmenter, Any], Any], item: Any) -> Any:
        return task(self._segmenter, item)


_segmenter: Segmenter | None = None  # of a worker process: a pool has no other place for it


def _begin(load: Load) -> None:
    global _segmenter
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent ends the pool
    _segmenter = load()


def _work(task: Callable[[Segmenter, Item], Result], item: Item) -> Result:
    assert _segmenter is not None, "the pool starts its workers with _begin"
    return task(_segmenter, item)
