from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from histoclick.server.engine import WAITING, Engine
from histoclick.server.limits import LARGE, SMALL, Bounds, Limits
from histoclick.server.worker import Urgency
from served import HOME, Server, serving

JSON = {"Content-Type": "application/json"}
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


def chunks(total: int, size: int = 65536) -> Iterator[bytes]:
    """A body that does not say its length."""
    for _ in range(total // size + 1):
        yield b" " * size


def test_large_requests_are_refused(standing: Server) -> None:
    path = f"/api/slides/{standing.id_of('a.tif')}/events"
    fits = standing.client.post(path, content=b" " * SMALL, headers=JSON)
    assert fits.status_code == 422
    for content in (b" " * (SMALL + 1), chunks(SMALL)):
        reply = standing.client.post(path, content=content, headers=JSON)
        assert reply.status_code == 413
        assert "1 MiB" in reply.json()["detail"]
    for length in (str(SMALL + 1), "9" * 30, "-1", "a", ""):
        reply = standing.client.post(
            path, content=b"{}", headers={**JSON, "Content-Length": length}
        )
        assert reply.status_code == 413


def test_files_may_be_larger_but_not_endless(standing: Server) -> None:
    path = f"/api/slides/{standing.id_of('a.tif')}/import"
    reply = standing.client.post(path, files={"file": ("a.geojson", b" " * (3 * SMALL))})
    assert reply.status_code == 400
    headers = {"Content-Type": "multipart/form-data; boundary=b"}

    def endless() -> Iterator[bytes]:
        yield HEAD
        yield from chunks(LARGE, 1 << 20)

    reply = standing.client.post(path, content=endless(), headers=headers)
    assert (reply.status_code, "64 MiB" in reply.json()["detail"]) == (413, True)


def test_a_body_that_does_not_arrive_is_not_waited_for(slides: Path, tmp_path: Path) -> None:
    limits = Limits(body_seconds=0.2, large_seconds=0.2)
    with serving([slides], tmp_path / "store.sqlite", limits=limits) as server:
        id_ = server.id_of("a.tif")

        async def trickle() -> AsyncIterator[bytes]:
            yield HEAD
            while True:
                await asyncio.sleep(0.05)
                yield b" "

        async def ask(path: str) -> httpx2.Response:
            transport = httpx2.ASGITransport(server.app)
            async with httpx2.AsyncClient(transport=transport, base_url=HOME) as client:
                headers = {"Content-Type": "multipart/form-data; boundary=b"}
                return await client.post(path, content=trickle(), headers=headers)

        for path in (f"/api/slides/{id_}/events", f"/api/slides/{id_}/import", "/sam/"):
            reply = asyncio.run(ask(path))
            assert reply.status_code == 408, path
            assert "did not arrive" in reply.json()["detail"]


def test_a_client_that_takes_no_answer_is_let_go() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def stuck(_: Any) -> None:
        await asyncio.sleep(60)

    async def receive() -> Any:
        return {"type": "http.request"}

    bounds = Bounds(app, Limits(answer_seconds=0.05))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("c", 1)}
    with pytest.raises(TimeoutError):
        asyncio.run(bounds(scope, receive, stuck))
    assert not bounds._clients


def test_floods_are_bounded_for_each_client_and_in_all() -> None:
    async def scenario() -> list[int]:
        release = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await release.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

        bounds = Bounds(app, Limits(in_flight=5, of_client=3, large=1))

        async def ask(client: str, method: str = "GET", path: str = "/") -> int:
            statuses = []

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])

            async def receive() -> Any:
                return {"type": "http.request"}

            scope = {"type": "http", "method": method, "path": path, "headers": []}
            await bounds({**scope, "client": (client, 1)}, receive, send)
            return statuses[0]

        async def ask_later() -> list[int]:
            await asyncio.sleep(0.01)
            refused = [await ask("b"), await ask("c", "POST", "/sam/"), await ask("d")]
            release.set()
            return refused

        first = [ask("a") for _ in range(2)] + [ask("b") for _ in range(2)]
        large = ask("b", "POST", "/x/import")
        *answered, refused = await asyncio.gather(*first, large, ask_later())
        assert await ask("b") == 200  # all is forgotten when it is over
        assert not bounds._clients
        assert bounds._large == 0
        return [*answered, *refused]

    assert asyncio.run(scenario()) == [200] * 5 + [503] * 3


def test_a_full_queue_asks_to_come_again(slides: Path, tmp_path: Path) -> None:
    with serving([slides], tmp_path / "store.sqlite") as server:
        slide = server.id_of("a.tif")
        gate = threading.Event()
        waiting = WAITING | {Urgency.CLICK: 0}
        busy = Engine(server.engine._segmenter, server.engine.card, waiting=waiting)
        server.sessions._engine = busy
        body = {"id": "x", "kind": "click", "object": None, "x": 9, "y": 9, "positive": True,
                "mpp": 1}  # fmt: skip
        reply = server.client.post(f"/api/slides/{slide}/events", json=body)
        assert reply.status_code == 503
        assert reply.headers["Retry-After"] == "1"
        assert "try again" in reply.json()["detail"]
        server.sessions._engine = server.engine
        assert server.client.post(f"/api/slides/{slide}/events", json=body).status_code == 200
        busy.close()
        gate.set()


@pytest.mark.parametrize("path", ["/sam/", "/sam/automask/", "/infer/wsi/discs"])
def test_values_are_counted_before_they_are_built(standing: Server, path: str) -> None:
    for filling in (b"[]" + b",[]" * 30_000, b"1" + b",1" * 200_000):
        body = b'{"type": "vit_b", "b64img": "", "z": [' + filling + b"]}"
        reply = standing.client.post(path, content=body)
        assert reply.status_code == 413
        assert "too many values" in reply.json()["detail"]
    reply = standing.client.post("/sam/", content=b'{"type": "vit_b", "b64img": 3}')
    assert (reply.status_code, "body.b64img" in reply.json()["detail"]) == (422, True)
    assert standing.client.post("/sam/", content=b"no").status_code == 422


def test_a_token_in_the_path_allows_no_larger_bodies(slides: Path, tmp_path: Path) -> None:
    token = "correct-horse-battery"  # noqa: S105
    with serving([slides], tmp_path / "store.sqlite", token=token) as server:
        for path, status in (("/api/slides", 413), ("/sam/", 422)):
            reply = server.client.post(f"/t/{token}{path}", content=b" " * (SMALL + 1))
            assert reply.status_code == status
