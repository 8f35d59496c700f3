from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from histoclick.server.security import HEADERS
from histoclick.server.serving import is_local, names
from served import HOME, Server, serving

TOKEN = "correct-horse-battery"  # noqa: S105
EVENT = {"id": "x", "kind": "classes", "classes": []}


@pytest.fixture(scope="module")
def guarded(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that listens everywhere."""
    store = tmp_path_factory.mktemp("store") / "store.sqlite"
    with serving([slides], store, hosts=None, token=TOKEN) as made:
        yield made


def fresh(server: Server, host: str = HOME) -> TestClient:
    """Another browser."""
    return TestClient(server.app, base_url=host, raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("localhost:8000", 200), ("127.0.0.1:9", 200), ("[::1]:8000", 200),
        ("LOCALHOST", 200), ("evil.example", 421), ("localhost.evil.example", 421), ("", 421),
        ("127.0.0.1.nip.io", 421), ("evil.example:8000", 421), ("localhost@evil.example", 421),
        ("evil.example@localhost", 421), ("localhost/evil", 421),
        ("localhost:1, evil.example", 421), ("192.168.1.5", 421), ("[", 421), ("[::1", 421),
    ],
)  # fmt: skip
def test_only_names_of_this_machine_are_answered_to(
    standing: Server, host: str, status: int
) -> None:
    reply = standing.client.get("/api/info", headers={"Host": host})
    assert reply.status_code == status
    if status == 421:
        assert "127.0.0.1" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "http://localhost:8000"}, 403),  # another port is another server
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 200),
    ],
)
def test_pages_of_others_change_nothing(
    server: Server, headers: dict[str, str], status: int
) -> None:
    path = f"/api/slides/{server.id_of('a.tif')}/events"
    reply = server.client.post(path, json=EVENT, headers=headers)
    assert reply.status_code == status
    assert server.annotations(server.id_of("a.tif"))["seq"] == (1 if status == 200 else 0)


def test_other_pages_may_not_read_answers(standing: Server) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for reply in (
        standing.client.get("/api/slides", headers=headers),
        standing.client.options("/api/slides", headers=headers),
    ):
        assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path", ["/", "/api/info", "/api/slides/x", "/nothing", "/api/openapi.json", "/sam/weights/"]
)
def test_every_answer_has_the_headers(standing: Server, path: str) -> None:
    reply = standing.client.get(path)
    for name, value in HEADERS.items():
        assert reply.headers[name] == value
    assert "cache-control" in reply.headers
    refused = standing.client.get(path, headers={"Host": "evil.example"})
    assert refused.headers["X-Content-Type-Options"] == "nosniff"


def test_a_fault_is_told_without_details(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("secret path /home/ada")

    monkeypatch.setattr(server.library, "entries", broken)
    reply = server.client.get("/api/slides")
    assert reply.status_code == 500
    assert reply.json() == {"detail": "a fault of the server; what it was doing stands in its log"}
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_without_the_token_nothing_is_answered(guarded: Server) -> None:
    client = fresh(guarded)
    id_ = guarded.library.entries()[0].id
    paths = ["/", "/api/info", "/api/slides", f"/api/slides/{id_}/thumbnail.jpeg", "/sam/",
             "/assets/x.js", "/api/openapi.json", "/t/", "/t/wrong/sam/", f"/t/{TOKEN}",
             "/?token=wrong", "/?token=", "/api/info?token=" + TOKEN]  # fmt: skip
    for path in paths:
        assert client.get(path, follow_redirects=False).status_code == 401, path
    assert client.post(f"/api/slides/{id_}/events", json=EVENT).status_code == 401
    for value in ("wrong", "", TOKEN[:-1], TOKEN + "x", "ü"):
        headers = {"Authorization": f"Bearer {value}".encode()}
        assert client.get("/api/info", headers=headers).status_code == 401
    for cookie in (TOKEN, "wrong", ""):
        headers = {"Cookie": f"histoclick={cookie}"}
        assert client.get("/api/info", headers=headers).status_code == 401
    page = client.get("/", headers={"Accept": "text/html"})
    assert "open the address that was printed" in page.text
    assert page.headers["content-type"].startswith("text/html")


def test_the_token_opens_by_header_cookie_and_path(guarded: Server) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert fresh(guarded).get("/api/info", headers=headers).status_code == 200

    browser = fresh(guarded, "http://scanner-pc:8000")
    reply = browser.get(f"/?token={TOKEN}", follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, "/")  # not in the history
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert browser.get("/api/info").status_code == 200
    id_ = guarded.id_of("b.tif")
    assert browser.post(f"/api/slides/{id_}/events", json=EVENT).status_code == 200
    evil = browser.post(f"/api/slides/{id_}/events", json=EVENT, headers={"Origin": "http://e.x"})
    assert evil.status_code == 403

    assert fresh(guarded).get(f"/t/{TOKEN}/sam/weights/").status_code == 200
    assert f"/t/{TOKEN}/sam/" in fresh(guarded).get(f"/t/{TOKEN}/sam/").text  # the address to enter


def test_websockets_are_not_answered(standing: Server) -> None:
    with pytest.raises(WebSocketDisconnect), standing.client.websocket_connect("/"):
        pass


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("localhost", True), ("::1", True),
     ("0.0.0.0", False), ("::", False), ("192.168.1.5", False), ("pc.example", False)],  # noqa: S104
)  # fmt: skip
def test_what_is_local(host: str, local: bool) -> None:
    assert is_local(host) is local
    assert (names(host) is not None) is local


@pytest.mark.parametrize("name", ["Host", "Origin"])
def test_two_names_are_one_too_many(standing: Server, name: str) -> None:
    headers = [("Host", "localhost"), ("Origin", "http://localhost"), (name, "http://localhost")]
    assert standing.client.get("/api/info", headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("site", "dest", "status"),
    [
        ("cross-site", "image", 403), ("same-site", "empty", 403), ("cross-site", "iframe", 403),
        ("cross-site", "document", 200), ("same-origin", "image", 200), ("none", "document", 200),
    ],
)  # fmt: skip
def test_other_pages_may_link_to_ours_and_build_nothing_of_it_in(
    standing: Server, site: str, dest: str, status: int
) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": dest}
    assert standing.client.get("/sam/version/", headers=headers).status_code == status


def test_answers_to_what_is_too_much_tell_browsers_the_same(standing: Server) -> None:
    reply = standing.client.post("/sam/", headers={"Content-Length": "9" * 12})
    assert reply.status_code == 413
    for name, value in HEADERS.items():
        assert reply.headers[name] == value
    assert reply.headers["Cache-Control"] == "no-store"
