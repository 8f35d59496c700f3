from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from histoclick.server.engine import WAITING, Busy, Engine, nbytes_of
from histoclick.server.shelf import Shelf
from histoclick.server.worker import Urgency
from histoclick.types import RGB8, Click, HistoclickError, Prompt
from served import Slow, card, open_model

CLICK = Prompt((Click(1, 1),))


def picture(value: int, side: int = 8) -> Callable[[], RGB8]:
    return lambda: np.full((side, side, 3), value, np.uint8)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def slow() -> Iterator[tuple[Slow, Engine]]:
    model = Slow()
    engine = Engine(model, card())
    yield model, engine
    model.gate.set()
    engine.close()


def test_asked_twice_at_once_it_is_encoded_once(slow: tuple[Slow, Engine]) -> None:
    model, engine = slow
    answers: list[object] = []
    reads: list[int] = []

    def read() -> RGB8:
        reads.append(1)
        return picture(5)()

    threads = [in_thread(lambda: answers.append(engine.embedding("k", read))) for _ in range(8)]
    until(lambda: bool(model.begun))
    model.gate.set()
    for thread in threads:
        thread.join()
    assert model.begun == ["encode 5"]
    assert len(reads) == 1
    assert all(answer is answers[0] for answer in answers)
    assert engine.embedding("k", read) is answers[0]


def test_clicks_come_before_what_is_encoded_ahead(slow: tuple[Slow, Engine]) -> None:
    model, engine = slow
    blocker = in_thread(lambda: engine.embedding("first", picture(1)))
    until(lambda: model.begun == ["encode 1"])
    for value in (10, 11):
        assert not engine.ahead(f"old {value}", picture(value), turn=1)
    for value in (20, 21):
        assert not engine.ahead(f"new {value}", picture(value), turn=2)
    clicks = [in_thread(lambda: engine.predict(picture(0)(), CLICK, None))]
    hurried = in_thread(lambda: engine.embedding("old 11", picture(99)))
    until(lambda: engine._making["old 11"].urgency == Urgency.CLICK)
    model.gate.set()
    for thread in (blocker, hurried, *clicks):
        thread.join()
    until(lambda: engine.has("old 10"))
    assert model.begun[0] == "encode 1"
    assert set(model.begun[1:3]) == {"predict", "encode 11"}  # both were waited for
    assert model.begun[3:] == ["encode 20", "encode 21", "encode 10"]  # the newer view first


def test_a_view_that_was_left_is_given_up(slow: tuple[Slow, Engine]) -> None:
    model, engine = slow
    blocker = in_thread(lambda: engine.embedding("first", picture(1)))
    until(lambda: model.begun == ["encode 1"])
    engine.ahead("a", picture(2), turn=1)
    engine.ahead("b", picture(3), turn=2)
    engine.give_up(1)
    model.gate.set()
    blocker.join()
    until(lambda: engine.has("b"))
    assert not engine.has("a")
    assert engine.embedding("a", picture(4))[0, 0, 0] == 4  # and can be asked for again
    assert engine.ahead("a", picture(5))


def test_a_full_queue_refuses_clicks_and_drops_the_oldest_ahead() -> None:
    model = Slow()
    engine = Engine(model, card(), waiting=WAITING | {Urgency.CLICK: 2, Urgency.AHEAD: 2})
    blocker = in_thread(lambda: engine.embedding("first", picture(1)))
    until(lambda: model.begun == ["encode 1"])
    for turn, value in enumerate((2, 3, 4)):
        engine.ahead(str(value), picture(value), turn)
    clicks = [in_thread(lambda: engine.predict(picture(0)(), CLICK, None)) for _ in range(2)]
    until(lambda: len(engine._worker._queue) == 4)
    with pytest.raises(Busy):
        engine.predict(picture(0)(), CLICK, None)
    with pytest.raises(Busy):
        engine.embedding("other", picture(7))
    model.gate.set()
    for thread in (blocker, *clicks):
        thread.join()
    until(lambda: engine.has("3"))
    assert model.begun == ["encode 1", "predict", "predict", "encode 4", "encode 3"]
    assert engine.embedding("other", picture(7)) is not None  # a refusal is not for ever
    engine.close()


def test_memory_is_bounded_in_bytes() -> None:
    engine = Engine(open_model(), card(), memory_bytes=5 * 192)
    for key in range(20):
        engine.embedding(str(key), picture(key))
        engine.embedding("used all the time", picture(99))
        assert engine.nbytes <= 5 * 192
    assert [key for key in range(20) if engine.has(str(key))] == [16, 17, 18, 19]
    assert engine.has("used all the time")
    engine.embedding("large", picture(1, side=100))  # larger than all: kept alone
    assert engine.nbytes == 30_000
    engine.close()


def test_a_failure_is_told_to_all_and_not_kept() -> None:
    class Failing(Slow):
        def encode(self, image: RGB8) -> RGB8:
            super().encode(image)
            raise ValueError("cannot see")

    model = Failing()
    engine = Engine(model, card())
    errors: list[str] = []

    def ask() -> None:
        with pytest.raises(ValueError, match="cannot see") as told:
            engine.embedding("k", picture(1))
        errors.append(str(told.value))

    threads = [in_thread(ask) for _ in range(3)]
    until(lambda: bool(model.begun))
    model.gate.set()
    for thread in threads:
        thread.join()
    assert len(errors) == 3

    def unreadable() -> RGB8:
        raise HistoclickError("damaged there")

    for _ in range(2):
        with pytest.raises(HistoclickError, match="damaged"):
            engine.embedding("other", unreadable)
    assert not engine._making
    engine.close()


def test_after_closing_nothing_waits_for_ever() -> None:
    model = Slow()
    engine = Engine(model, card())
    outcome: list[str] = []

    def ask(value: int) -> None:
        try:
            engine.embedding(str(value), picture(value))
            outcome.append("done")
        except HistoclickError:
            outcome.append("closing")

    first = in_thread(lambda: ask(1))
    until(lambda: bool(model.begun))
    second = in_thread(lambda: ask(2))
    until(lambda: len(engine._worker._queue) == 1)
    closing = in_thread(engine.close)
    until(lambda: outcome == ["closing"])
    model.gate.set()
    for thread in (first, second, closing):
        thread.join()
    assert sorted(outcome) == ["closing", "done"]
    with pytest.raises(HistoclickError, match="closing"):
        engine.predict(picture(1)(), CLICK, None)


def test_what_was_encoded_before_comes_from_the_disk(tmp_path: Path) -> None:
    for run in range(2):
        model = open_model()
        engine = Engine(model, card(), shelf=Shelf(tmp_path, "owner"))
        encoded = engine.embedding("k", picture(7))
        assert np.array_equal(encoded, picture(7)())
        assert model.begun == (["encode 7"] if run == 0 else [])
        until(lambda: len(list(tmp_path.glob("*.safetensors"))) == 1)
        engine.close()
    model = open_model()
    engine = Engine(model, card(), shelf=Shelf(tmp_path, "another model"))
    engine.embedding("k", picture(7))
    assert model.begun == ["encode 7"]
    engine.close()


def test_only_what_was_needed_goes_to_the_disk(tmp_path: Path) -> None:
    engine = Engine(open_model(), card(), shelf=Shelf(tmp_path, "owner"))
    for number in range(5):
        engine.ahead(str(number), picture(number))
    until(lambda: engine.has("4"))
    for _ in range(3):
        engine.embedding("2", picture(2))
    engine.embedding("other", picture(9))
    until(lambda: len(list(tmp_path.glob("*.safetensors"))) == 2)
    engine.close()
    assert [k for k in "01234" if Shelf(tmp_path, "owner").get(k) is not None] == ["2"]


def test_arrays_of_something_else_are_encoded_again(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "owner")
    shelf.put("k", {"image": np.zeros(3)})
    shelf.put("l", {"other": np.zeros(3)})
    model = open_model()
    engine = Engine(model, card(), shelf=shelf)
    assert np.array_equal(engine.embedding("k", picture(7)), picture(7)())
    assert np.array_equal(engine.embedding("l", picture(8)), picture(8)())
    engine.close()


def test_bytes_are_counted_wherever_they_are() -> None:
    ten = np.zeros(10, np.uint8)
    assert nbytes_of(ten) == 10
    assert nbytes_of({"a": ten, "b": [ten, (ten, "text", None, 3)]}) == 30
    assert nbytes_of(card()) == 0


def test_the_card_says_how_large_windows_are() -> None:
    for size, expected in ((0, 448), (448, 448), (1024, 1024), (4096, 1024)):
        found = card()
        object.__setattr__(found, "input_size", size)
        engine = Engine(open_model(), found)
        assert engine.window_px == expected
        assert engine.model == "slow@abababababab"
        engine.close()
