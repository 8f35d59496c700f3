"""A server for tests: made slides, a model that answers with discs, and a client."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from histoclick.models import registry
from histoclick.models.card import Card
from histoclick.server.app import create_app
from histoclick.server.engine import Engine
from histoclick.server.library import Library
from histoclick.server.sessions import Sessions
from histoclick.store import Store
from histoclick.types import RGB8, Prediction, Prompt, Segmenter
from madeslides import noise, write_pyramid

HOME = "http://localhost"


def made_slide(path: Path, height: int = 900, width: int = 1300, seed: int = 0) -> Path:
    """A pyramid with 0.5 um/px at level 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": 3}
    return write_pyramid(path, noise(height, width, seed), (2, 4), **options)


@dataclass
class Slow:
    """A model that works only while ``gate`` is open, and keeps what it was asked.

    Its embedding is the picture itself, and can be packed.
    """

    gate: threading.Event = field(default_factory=threading.Event)
    begun: list[str] = field(default_factory=list)

    def encode(self, image: RGB8) -> RGB8:
        self.begun.append(f"encode {image[0, 0, 0]}")
        assert self.gate.wait(20)
        return image

    def predict(
        self, encoded: RGB8, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        self.begun.append("predict")
        assert self.gate.wait(20)
        return Prediction(np.ones(encoded.shape[:2], np.float32))

    def pack(self, encoded: RGB8) -> dict[str, np.ndarray]:
        return {"image": encoded}

    def unpack(self, arrays: dict[str, np.ndarray]) -> RGB8:
        if arrays["image"].ndim != 3:
            raise ValueError("no picture")
        return arrays["image"]


def open_model() -> Slow:
    """The same, which never waits."""
    model = Slow()
    model.gate.set()
    return model


def card(id_: str = "slow", sha256: str = "ab" * 32) -> Card:
    return Card(id_, "baseline", "slow", "", "", "", sha256=sha256)


@dataclass
class Server:
    """``client``: talks to ``app`` as a browser tab called "tab"."""

    library: Library
    engine: Engine
    sessions: Sessions
    app: Any
    client: TestClient

    def id_of(self, name: str) -> str:
        return next(entry.id for entry in self.library.entries() if entry.name == name)

    def act(self, slide: str, tab: str = "tab", **action: Any) -> dict[str, Any]:
        reply = self.client.post(
            f"/api/slides/{slide}/events",
            json={"id": str(uuid.uuid4()), **action},
            headers={"X-Client": tab},
        )
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    def click(self, slide: str, x: float, y: float, **more: Any) -> dict[str, Any]:
        values = {"object": None, "positive": True, "mpp": 1.0, "label": "Tumor"} | more
        return self.act(slide, kind="click", x=x, y=y, **values)

    def annotations(self, slide: str, after: int = 0, tab: str = "tab") -> dict[str, Any]:
        reply = self.client.get(
            f"/api/slides/{slide}/annotations?after={after}", headers={"X-Client": tab}
        )
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer


@contextmanager
def serving(
    slides: Sequence[Path], store: Path, model: Segmenter | None = None, **options: Any
) -> Iterator[Server]:
    """A server with all its parts; ``model``: default is one that answers with discs; ``options``
    are those of ``create_app``."""
    library = Library(slides)
    engine = Engine(model or registry.load("discs"), registry.find("discs")[0])
    with Store.open(str(store)) as kept:
        sessions = Sessions(library, kept, engine)
        app = create_app(engine, library, sessions, **options)
        client = TestClient(app, base_url=HOME, raise_server_exceptions=False)
        try:
            yield Server(library, engine, sessions, app, client)
        finally:
            engine.close()
            library.close()
