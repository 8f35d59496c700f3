"""The command is killed while people click: what it has acknowledged is there afterwards."""

from __future__ import annotations

import contextlib
import random
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from histoclick.store import Store
from live import Annotator
from served import made_slide

WIDTH, HEIGHT = 1300, 900
LONGEST = 1.2  # seconds until the kill


@dataclass
class Clicker:
    """Somebody who clicks on one slide, as fast as is answered.

    ``seq``, ``objects``: what was acknowledged last. ``sent``: the ids of all events, in order.
    ``open``: the event that was not answered, if any.
    """

    slide: str
    random: random.Random
    tab: str = field(default_factory=lambda: str(uuid.uuid4()))
    seq: int = 0
    objects: dict[int, dict[str, Any]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    open: dict[str, Any] | None = None

    def click_until_killed(self, url: str) -> None:
        with httpx2.Client(base_url=url, timeout=60) as client, contextlib.suppress(_GONE):
            while True:
                self.open = {"id": str(uuid.uuid4()), **self.next_action()}
                self.take(self.post(client, self.open))
                self.sent.append(self.open["id"])
                self.open = None

    def check(self, url: str) -> None:
        """All that was acknowledged is there, and what was not can be sent again."""
        with httpx2.Client(base_url=url, timeout=60) as client:
            now = self.get(client)
            if now["seq"] != self.seq:  # one was stored, and its answer got lost
                assert self.open is not None
                assert now["seq"] == self.seq + 1
            there = {each["id"]: each for each in now["objects"]}
            for id_, known in self.objects.items():
                if id_ in there and there[id_]["version"] <= self.seq:
                    assert there[id_] == known
            touched = [id_ for id_, each in there.items() if each["version"] > self.seq]
            changed = {*touched, *(self.objects.keys() - there.keys())}
            assert len(changed) == now["seq"] - self.seq
            if self.open is not None:
                answer = self.post(client, self.open)
                assert answer["seq"] == self.seq + 1
                self.sent.append(self.open["id"])
                self.open = None
            for repeated in self.sent[-2:]:
                again = self.post(client, {"id": repeated, **self.next_action()})
                assert again["seq"] == len(self.sent)
            now = self.get(client)
            self.seq = now["seq"]
            self.objects = {each["id"]: each for each in now["objects"]}

    def next_action(self) -> dict[str, Any]:
        what = self.random.random()
        if what < 0.1 and len(self.sent) % 2 and self.objects:
            return {"kind": "undo"}
        target = self.random.choice([None, None, *self.objects]) if self.objects else None
        place = {"x": self.random.uniform(0, WIDTH), "y": self.random.uniform(0, HEIGHT)}
        positive = target is None or self.random.random() < 0.6
        about = {"object": target, "positive": positive, "mpp": 1.0, "label": "Tumor"}
        return {"kind": "click", **place, **about}

    def take(self, answer: dict[str, Any]) -> None:
        assert answer["seq"] == self.seq + 1
        self.seq = answer["seq"]
        self.objects.update({each["id"]: each for each in answer["objects"]})
        for id_ in answer["removed"]:
            del self.objects[id_]

    def post(self, client: httpx2.Client, event: dict[str, Any]) -> dict[str, Any]:
        headers = {"X-Client": self.tab}
        return _ok(client.post(f"api/slides/{self.slide}/events", json=event, headers=headers))

    def get(self, client: httpx2.Client) -> dict[str, Any]:
        return _ok(client.get(f"api/slides/{self.slide}/annotations"))


_GONE = httpx2.TransportError


def _ok(reply: httpx2.Response) -> dict[str, Any]:
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def kill_and_start_again(folder: Path, times: int, *options: str) -> int:
    """Returns how many events were acknowledged in all."""
    chance = random.Random(7)
    for i in range(2):
        made_slide(folder / "slides" / f"{i}.tif", HEIGHT, WIDTH, seed=i)
    store = folder / "store.sqlite"
    clickers: list[Clicker] = []
    for kills in range(times + 1):
        server = Annotator([folder / "slides"], store, *options)
        threads = []
        try:
            server.wait()
            if not clickers:
                found = httpx2.get(f"{server.url}api/slides").json()
                clickers = [Clicker(each["id"], random.Random(each["id"])) for each in found]
                assert len(clickers) == 2
            for clicker in clickers:
                clicker.check(server.url)
            if kills < times:
                threads = [_Thread(clicker, server.url) for clicker in clickers]
                time.sleep(chance.uniform(0, LONGEST))
        finally:
            server.kill()
        for thread in threads:
            thread.result()
    with Store.open(str(store)) as kept:
        stored = [[row["id"] for row in kept.events(slide["key"])] for slide in kept.slides()]
    assert sorted(stored) == sorted(clicker.sent for clicker in clickers)  # each once, in order
    return sum(map(len, stored))


class _Thread(threading.Thread):
    """Tells whoever waits for it what went wrong."""

    def __init__(self, clicker: Clicker, url: str) -> None:
        super().__init__()
        self._clicker, self._url = clicker, url
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._clicker.click_until_killed(self._url)
        except BaseException as error:  # noqa: BLE001  # raised by result
            self._error = error

    def result(self) -> None:
        self.join()
        if self._error is not None:
            raise self._error


def test_kill_9_while_people_click(tmp_path: Path) -> None:
    assert kill_and_start_again(tmp_path, 3, "--model", "discs") > 20


@pytest.mark.slow
def test_kill_9_a_hundred_times(tmp_path: Path) -> None:
    assert kill_and_start_again(tmp_path, 100) > 500  # with the built-in model
