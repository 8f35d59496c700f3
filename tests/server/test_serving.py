from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from histoclick.server import pages, serving
from histoclick.types import HistoclickError
from served import Server
from served import serving as parts


@contextlib.contextmanager
def listening(server: Server) -> Iterator[int]:
    """Really, on a port of its own."""
    listener = serving.listen("127.0.0.1", free_port())
    http = serving.server_of(server.app)
    thread = threading.Thread(target=http.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        http.should_exit = True
        thread.join()
        listener.close()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def closed_within(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def answer_on(connection: socket.socket) -> bytes:
    """One answer in JSON, with its head."""
    answer = b""
    while not answer.endswith(b"}"):
        part = connection.recv(65536)
        assert part, answer
        answer += part
    return answer


def test_answers_over_http(standing: Server) -> None:
    with listening(standing) as port, httpx2.Client(base_url=f"http://localhost:{port}") as client:
        assert client.get("/api/info").json()["model"]["id"] == "discs"
        reply = client.get(f"/api/slides/{standing.id_of('a.tif')}/thumbnail.jpeg")
        assert reply.headers["content-type"] == "image/jpeg"
        assert "server" not in reply.headers


def test_a_head_that_does_not_arrive_is_not_waited_for(
    standing: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEADER_SECONDS", 0.3)
    with listening(standing) as port:
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        slow = socket.create_connection(("127.0.0.1", port))
        slow.sendall(b"GET /api/info HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        again = socket.create_connection(("127.0.0.1", port))
        again.sendall(b"GET /api/info HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in again.recv(65536)
        again.sendall(b"GET / HT")
        for connection in (*idle, slow, again):
            with connection:
                assert closed_within(connection, 10)
        # and those who are not slow are served as long as they like
        with httpx2.Client(base_url=f"http://localhost:{port}") as client:
            for _ in range(3):
                assert client.get("/api/info").status_code == 200
                time.sleep(0.4)


def test_the_rest_of_a_body_that_nobody_reads_is_not_waited_for(
    standing: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "LINGER_SECONDS", 0.3)
    with listening(standing) as port:
        for head, status in (
            (b"POST / HTTP/1.1\r\nHost: evil", b"421"),
            (b"GET /api/info HTTP/1.1\r\nHost: localhost", b"200"),
        ):
            endless, late = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
            for each in (endless, late):
                each.sendall(head + b"\r\nContent-Length: 9\r\n\r\n")
                assert status in answer_on(each)
                each.sendall(b"x")
            late.sendall(b"12345678")
            time.sleep(0.4)
            late.sendall(b"GET /api/info HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in answer_on(late)
            with late, endless:
                assert closed_within(endless, 10)


def test_a_head_without_end_is_refused(standing: Server) -> None:
    with listening(standing) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /api/info HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000)
        assert closed_within(connection, 10)


def test_a_free_port_is_found_and_a_taken_one_told() -> None:
    first = serving.listen("127.0.0.1", None)
    second = serving.listen("127.0.0.1", None)
    ports = [each.getsockname()[1] for each in (first, second)]
    assert ports[0] < ports[1] < serving.FIRST_PORT + serving.PORTS_TRIED
    with pytest.raises(HistoclickError, match=rf"port {ports[0]} is in use already"):
        serving.listen("127.0.0.1", ports[0])
    assert serving.address("127.0.0.1", first) == f"http://127.0.0.1:{ports[0]}/"
    assert serving.address("::1", first) == f"http://[::1]:{ports[0]}/"
    assert serving.address("0.0.0.0", first) == f"http://localhost:{ports[0]}/"  # noqa: S104
    for each in (first, second):
        each.close()
    for host, port in (("192.0.2.1", 8000), ("no such host", 8000), ("127.0.0.1", 70_000)):
        with pytest.raises(HistoclickError, match="give others"):
            serving.listen(host, port)


def test_the_page(slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "static"
    monkeypatch.setattr(pages.add_page, "__defaults__", (folder,))
    with parts([slides], tmp_path / "store.sqlite") as server:
        missing = server.client.get("/")
        assert (missing.status_code, "make web" in missing.text) == (503, True)
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<p>page</p>")
    (folder / "secret.txt").write_text("")
    (folder / "assets" / "a-1234.js").write_text("let a;")
    (folder / "assets" / "decoding-1234.js").write_text("let b;")
    (folder / "assets" / "ort-1234.wasm").write_bytes(b"")
    with parts([slides], tmp_path / "store.sqlite") as server:
        page = server.client.get("/")
        assert (page.text, page.headers["cache-control"]) == ("<p>page</p>", "no-cache")
        script = server.client.get("/assets/a-1234.js")
        assert script.text == "let a;"
        assert "immutable" in script.headers["cache-control"]
        worker = server.client.get("/assets/decoding-1234.js")
        assert "'wasm-unsafe-eval'" in worker.headers["content-security-policy"]
        for other in (page, script):
            assert "unsafe" not in other.headers["content-security-policy"]
        wasm = server.client.get("/assets/ort-1234.wasm")
        assert wasm.headers["content-type"] == "application/wasm"
        assert server.client.get("/secret.txt").status_code == 404
        assert server.client.get("/assets/../secret.txt").status_code == 404


def start(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"HISTOCLICK_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1",
                                "XDG_CACHE_HOME": str(tmp_path / "cache")}  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "histoclick", *words], text=True, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def line_with(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line.strip()
    raise AssertionError(f"{words!r} was not said")


def test_the_command_serves_until_ctrl_c(slides: Path, tmp_path: Path) -> None:
    port = free_port()
    words = [str(slides), "--no-browser", "--threads", "1", "--port", str(port)]
    with start(tmp_path, "annotate", *words) as process:
        url = line_with(process, "histoclick is at").split()[-1]
        assert url == f"http://127.0.0.1:{port}/"
        with httpx2.Client(base_url=url) as client:
            (slide,) = (s["id"] for s in client.get("api/slides").json() if s["name"] == "a.tif")
            body = {"id": "x", "kind": "click", "object": None, "x": 300, "y": 300,
                    "positive": True, "mpp": 1}  # fmt: skip
            reply = client.post(f"api/slides/{slide}/events", json=body)
            assert reply.status_code == 200, reply.text
            assert reply.json()["objects"][0]["clicks"]
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert out.endswith("Ended.\n")
    assert (tmp_path / "home" / "annotations.sqlite").exists()
    assert list((tmp_path / "cache" / "histoclick" / "embeddings").glob("*.safetensors"))


def test_other_addresses_need_a_token(slides: Path, tmp_path: Path) -> None:
    words = ["--host", "0.0.0.0", "--port", str(free_port()), "--threads", "1"]  # noqa: S104
    with start(tmp_path, "serve", *words) as process:
        url = line_with(process, "histoclick is at").split()[-1]
        address, _, token = url.partition("?token=")
        assert len(token) > 20
        sam = line_with(process, "QuPath").split()[-1]
        assert sam == f"{address}t/{token}/sam/"
        assert "not encrypted" in line_with(process, "Everybody")
        with httpx2.Client() as client:
            assert client.get(f"{address}api/info").status_code == 401
            assert client.get(f"{sam}weights/").status_code == 200
            client.get(url, follow_redirects=False)  # and now there is a cookie
            assert client.get(f"{address}api/info").status_code == 200
            assert client.get(f"{address}api/slides").status_code == 404
            assert client.get(address).headers["location"] == "/sam/"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["annotate", "gone"], "no such file or folder"),
        (["serve", "--token", "short"], "at least 12"),
        (["serve", "--token", "with spaces in it"], "letters, digits"),
        (["serve", "--model", "nothing"], "unknown model"),
    ],
)
def test_bad_words_end_with_a_sentence(
    words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
) -> None:
    from histoclick import cli

    monkeypatch.setenv("HISTOCLICK_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["histoclick", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


def test_the_page_is_opened_unless_asked_not_to(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from histoclick import cli

    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(serving, "serve", lambda *_: None)
    for more, expected in (["--no-browser"], 0), ([], 1):
        store = ["--store", str(tmp_path / "s.sqlite"), "--port", str(free_port())]
        words = ["histoclick", "annotate", str(slides), "--model", "discs", *store, *more]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        until = time.monotonic() + 10
        while len(opened) < expected and time.monotonic() < until:
            time.sleep(0.01)
        assert len(opened) == expected
    assert opened[0].startswith("http://127.0.0.1:")
    said = capsys.readouterr().out
    assert "2 slides" in said
    assert "broken.svs" in said
