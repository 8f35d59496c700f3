"""Processes that write into a store, for tests that kill them."""

from __future__ import annotations

import hashlib
import os
import random
import resource
from pathlib import Path
from typing import Any

from histoclick.store import Conflict, Store
from histoclick.types import HistoclickError


def row(seq: int, id_: str = "", size: int = 2000, **changes: Any) -> dict[str, Any]:
    """An event that tells whether all of it is there: its facts hold the hash of its result."""
    id_ = id_ or f"event-{seq}"
    result = random.Random(id_).randbytes(size)
    facts = {"sha256": hashlib.sha256(result).hexdigest(), "quality": 0.1 + 0.2}
    action = {"kind": "click", "object": None, "x": seq / 3, "y": -1e-9, "label": "Tumör"}
    about = {"client": "tab", "user": "Ada", "time": 1.7e9 + seq / 7, "action": action}
    return {"seq": seq, "id": id_, "facts": facts, "result": result} | about | changes


def whole(event: dict[str, Any]) -> bool:
    return hashlib.sha256(event["result"]).hexdigest() == event["facts"]["sha256"]


def add_slide(store: Store, key: str = "slide") -> None:
    store.slide(key, name=f"{key}.svs", path=f"/slides/{key}.svs", width=9, height=8, mpp=0.25)


def write_until_killed(url: str, acknowledged: str) -> None:
    """Append events of random size; the number of each goes to a file when it is acknowledged."""
    acks = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with Store.open(url) as store:
        add_slide(store)
        seq = sum(1 for _ in store.events("slide"))
        sizes = random.Random()
        while True:
            seq += 1
            store.append("slide", row(seq, size=sizes.choice((0, 50, 3000, 20_000, 90_000))))
            os.write(acks, f"{seq}\n".encode())


def write_beside_others(url: str, name: str, count: int) -> None:
    """Append ``count`` events to the one slide, trying again when somebody else was faster."""
    with Store.open(url) as store:
        add_slide(store)
        seq = 1
        for i in range(count):
            while True:
                try:
                    store.append("slide", row(seq, f"{name}-{i}", client=name))
                    break
                except Conflict:
                    seq += sum(1 for _ in store.events("slide", seq - 1))
            seq += 1


def fill_disk(url: str, limit: int, told: str) -> None:
    """Append until files may not grow beyond ``limit`` bytes; tell what happened."""
    with Store.open(url) as store:
        add_slide(store)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        seq = 0
        try:
            while True:
                store.append("slide", row(seq + 1))
                seq += 1
        except HistoclickError as error:
            message = str(error)
        readable = sum(1 for _ in store.events("slide"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        store.append("slide", row(seq + 1))  # there is room again: the same store goes on
        Path(told).write_text(f"{seq} {readable} {message}")


def without_rights(url: str, told: str) -> None:
    """Open and append as a user without rights, and tell what happened."""
    if os.getuid() == 0:
        os.setuid(65534)
    try:
        with Store.open(url) as store:
            store.append("slide", row(2))
        message = "stored"
    except HistoclickError as error:
        message = str(error)
    Path(told).write_text(message)
