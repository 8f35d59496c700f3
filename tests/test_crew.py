"""Who does the work: processes for real, Ray by a stand-in and, where it is installed, for real."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fakes import (
    FakeSegmenter,
    die_at_three,
    large_answer,
    no_segmenter,
    process_of,
    refuse_three,
    slow_process_of,
)
from histoclick.crew import Alone, Crew, Processes, RayCluster
from histoclick.types import HistoclickError


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes(FakeSegmenter, 2) as crew:
        yield crew


def children() -> set[int | None]:
    return {process.pid for process in multiprocessing.active_children()}


def test_alone_is_this_process_in_order() -> None:
    with Alone(FakeSegmenter()) as crew:
        assert crew.workers == 1
        assert list(crew.map(process_of, range(4))) == [(i, os.getpid()) for i in range(4)]


def test_processes_share_the_work_and_stay(processes: Processes) -> None:
    found = list(processes.map(slow_process_of, range(20)))
    assert sorted(item for item, _ in found) == list(range(20))
    pids = {pid for _, pid in found}
    assert len(pids) == processes.workers == 2
    assert os.getpid() not in pids
    assert {pid for _, pid in processes.map(process_of, range(20))} <= pids


def test_nobody_is_started_for_nothing() -> None:
    before = children()
    with Processes(FakeSegmenter, 2) as crew:
        assert list(crew.map(process_of, [])) == []
        assert children() == before
        assert next(crew.map(process_of, [1]))[1] in children()
        assert len(children()) == len(before) + 1
    assert children() == before


def test_a_dead_worker_is_one_sentence_and_the_next_map_has_new_ones() -> None:
    before = children()
    with Processes(FakeSegmenter, 2) as crew:
        seen = []
        with pytest.raises(HistoclickError, match=r"died \(exit code 7\).*--workers") as caught:
            seen.extend(crew.map(die_at_three, range(4)))
        assert "\n" not in str(caught.value)
        assert sorted(crew.map(die_at_three, range(3))) == [0, 1, 2]
    assert children() == before


def test_what_a_task_raises_is_raised_here_and_says_where(processes: Processes) -> None:
    with pytest.raises(ValueError, match="no threes") as caught:
        list(processes.map(refuse_three, range(8)))
    assert "refuse_three" in "".join(caught.value.__notes__)
    assert sorted(processes.map(refuse_three, range(3))) == [0, 1, 2]


def test_a_model_that_does_not_load_is_its_own_sentence() -> None:
    with (
        Processes(no_segmenter, 2) as crew,
        pytest.raises(HistoclickError, match=r"^model.safetensors: damaged; import it again$"),
    ):
        list(crew.map(process_of, range(3)))


@pytest.mark.parametrize("seen", [0, 1, 2, 5])
def test_work_left_in_the_middle_of_an_answer_ends_at_once(processes: Processes, seen: int) -> None:
    for _ in range(2):
        work = processes.map(large_answer, range(50))
        for _ in range(seen):
            next(work)
        work.close()
    assert len(list(processes.map(process_of, range(5)))) == 5


def test_no_workers_at_all_are_refused() -> None:
    with pytest.raises(HistoclickError, match="at least 1"):
        Processes(FakeSegmenter, 0)


# --- Ray -----------------------------------------------------------------------------------------


def _task_error(base: type[Exception]) -> type[Exception]:
    def init(self: Any, cause: Exception) -> None:
        self.cause = cause

    return type("RayTaskError", (base,), {"__init__": init})


class FakeRay(ModuleType):
    """As much of Ray as a crew uses, in this process. ``nodes_``: their resources."""

    def __init__(self, nodes: list[dict[str, float]]) -> None:
        super().__init__("ray")
        self.nodes_ = nodes
        self.killed = 0
        self.running = False
        error = type("RayError", (Exception,), {})
        self.exceptions = SimpleNamespace(RayError=error, RayTaskError=_task_error(error))

    def is_initialized(self) -> bool:
        return self.running

    def init(self, address: str, **_: Any) -> None:
        if address == "nowhere":
            raise ConnectionError("Could not find any running Ray instance.\nMore about it.")
        self.running = True

    def shutdown(self) -> None:
        self.running = False

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": each} for each in self.nodes_] + [
            {"Alive": False, "Resources": {"CPU": 64.0}}
        ]

    def remote(self, **needs: float) -> Any:
        self.needs = needs

        def hire(desk: type) -> Any:
            def make(*arguments: Any) -> Any:
                seat = desk(*arguments)
                work = SimpleNamespace(remote=lambda *given: _Pending(seat, given))
                return SimpleNamespace(work=work)

            return SimpleNamespace(remote=make)

        return hire

    def get(self, pending: _Pending) -> Any:
        if pending.given == (die_at_three, 3):
            raise self.exceptions.RayError
        try:
            return pending.seat.work(*pending.given)
        except Exception as error:  # noqa: BLE001 - as Ray does
            raise self.exceptions.RayTaskError(error) from None

    def kill(self, actor: Any) -> None:
        self.killed += 1

    def modules(self) -> dict[str, ModuleType]:
        """As they are imported; the pool answers the last item first."""

        class ActorPool:
            def __init__(self, actors: list[Any]) -> None:
                self.actors = actors

            def map_unordered(self, call: Any, items: list[Any]) -> Iterator[Any]:
                pending = [call(self.actors[i % len(self.actors)], x) for i, x in enumerate(items)]
                yield from (ray.get(each) for each in reversed(pending))

        ray, util = self, ModuleType("ray.util")
        util.ActorPool = ActorPool  # type: ignore[attr-defined]
        return {"ray": self, "ray.util": util}


class _Pending:
    def __init__(self, seat: Any, given: tuple[Any, ...]) -> None:
        self.seat, self.given = seat, given


def test_a_cluster_has_as_many_workers_as_its_nodes_have_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = FakeRay([{"CPU": 7.0, "GPU": 2.0, "memory": 1e9}, {"CPU": 3.0}])
    for name, module in ray.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    for needs, workers in (({}, 10), ({"threads": 2}, 4), ({"threads": 2, "gpu": True}, 2)):
        with RayCluster(FakeSegmenter, "auto", **needs) as crew:
            assert crew.workers == workers
            found = [item for item, _ in crew.map(process_of, range(9))]
            assert sorted(found) == list(range(9))
        assert ray.needs == {
            "num_cpus": needs.get("threads", 1), "num_gpus": int(needs.get("gpu", False))
        }  # fmt: skip
        assert not ray.running
    with pytest.raises(HistoclickError, match="has room for a worker with 8 CPU and 1 GPU"):
        RayCluster(FakeSegmenter, "auto", threads=8, gpu=True)
    assert not ray.running


def test_what_goes_wrong_on_a_cluster_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay([{"CPU": 2.0}])
    for name, module in ray.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(HistoclickError, match="no Ray cluster at 'nowhere'") as caught:
        RayCluster(FakeSegmenter, "nowhere")
    assert "\n" not in str(caught.value)
    with RayCluster(FakeSegmenter, "auto") as crew:
        with pytest.raises(HistoclickError, match="a worker of the Ray cluster died"):
            list(crew.map(die_at_three, range(6)))
        assert ray.killed == 2
        with pytest.raises(ValueError, match="no threes"):
            list(crew.map(refuse_three, range(6)))
        assert sorted(crew.map(refuse_three, range(3))) == [0, 1, 2]
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HistoclickError, match=r"pip install 'histoclick\[ray\]'"):
        RayCluster(FakeSegmenter, "auto")


def test_somebody_else_s_cluster_is_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay([{"CPU": 1.0}])
    for name, module in ray.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    ray.running = True
    with RayCluster(FakeSegmenter, "auto"):
        pass
    assert ray.running


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_ray_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra histoclick[ray] is not installed")
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))  # its workers need the fakes too
    crew: Crew[Any]
    with RayCluster(FakeSegmenter, "local") as crew:
        found = list(crew.map(process_of, range(20)))
        assert sorted(item for item, _ in found) == list(range(20))
        assert os.getpid() not in {pid for _, pid in found}
        with pytest.raises(HistoclickError, match="a worker of the Ray cluster died"):
            list(crew.map(die_at_three, range(6)))
        with pytest.raises(ValueError, match="no threes"):
            list(crew.map(refuse_three, range(6)))
        assert sorted(crew.map(refuse_three, range(3))) == [0, 1, 2]
