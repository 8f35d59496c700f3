"""A web server on this machine that stands in for the bucket, and for all that goes wrong."""

from __future__ import annotations

import hashlib
import re
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit


@dataclass
class Fault:
    """What one request meets. ``cut``: bytes of the body after which the connection breaks."""

    status: int = 0
    cut: int | None = None
    hang: bool = False  # before the answer
    stall: bool = False  # instead of the cut
    headers: dict[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()  # headers left out
    ignore_if_range: bool = False
    body: bytes | None = None


@dataclass
class Site:
    """``files``: path (with a slash at the front): content. ``faults``: one per request, in turn;
    ``always``: for each request of a path without a fault of its own."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    always: dict[str, Fault] = field(default_factory=dict)
    ranges: bool = True
    bucket: bool = True  # answers lists as S3 does
    per_page: int = 1000
    multipart: frozenset[str] = frozenset()  # keys whose ETag is no MD5
    log: list[tuple[str, str, str]] = field(default_factory=list)  # path, Range, If-Range
    url: str = ""
    let_go: threading.Event = field(default_factory=threading.Event)  # ends all hanging

    def asked(self, path: str) -> list[str]:
        return [wanted for asked, wanted, _ in self.log if asked == path]

    def list(self, query: dict[str, list[str]]) -> bytes:
        (prefix,) = query["prefix"]
        keys = sorted(path[1:] for path in self.files if path[1:].startswith(prefix))
        start = int(query.get("continuation-token", ["0"])[0].removeprefix("token +/="))
        page = keys[start : start + self.per_page]
        more = start + self.per_page < len(keys)
        after = f"token +/={start + self.per_page}"
        token = f"<NextContinuationToken>{after}</NextContinuationToken>" if more else ""
        contents = "".join(
            f"<Contents><Key>{escape(quote(key, safe='/'))}</Key><Size>"
            f"{len(self.files[chr(47) + key])}</Size><ETag>&quot;{self.etag(key)}&quot;</ETag>"
            "</Contents>"
            for key in page
        )
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{token}{contents}</ListBucketResult>"
        ).encode()

    def etag(self, key: str) -> str:
        md5 = hashlib.md5(self.files[f"/{key}"], usedforsecurity=False).hexdigest()
        return f"{md5}-7" if key in self.multipart else md5


def dated(content: bytes) -> str:
    """Another time for every content."""
    return f"Mon, 01 Jan 2018 00:00:{zlib.crc32(content) % 60:02} GMT"


class _Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path, site = unquote(parts.path), self.site
        wanted, condition = (self.headers.get(name, "") for name in ("Range", "If-Range"))
        site.log.append((path, wanted, condition))
        faults = site.faults[path]
        fault = faults.pop(0) if faults else site.always.get(path, Fault())
        if fault.hang:
            site.let_go.wait(20)
        if fault.status:
            return self._send(fault.status, fault.body or b"broken", fault, {})
        if path == "/" and site.bucket:
            return self._send(200, site.list(parse_qs(parts.query)), fault, {})
        content = site.files.get(path) if fault.body is None else fault.body
        if content is None:
            return self._send(404, b"nothing", fault, {})
        etag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
        headers = {"ETag": etag, "Last-Modified": dated(content)}
        match = re.fullmatch(r"bytes=(\d+)-", wanted)
        same = fault.ignore_if_range or condition in {"", etag, headers["Last-Modified"]}
        if not (match and site.ranges and same):
            return self._send(200, content, fault, headers)
        start = int(match[1])
        if start >= len(content):
            return self._send(416, b"", fault, {"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self._send(206, content[start:], fault, headers)

    def _send(self, status: int, body: bytes, fault: Fault, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers | fault.headers).items():
            if name not in fault.drop:
                self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # nobody listens any more
            self.wfile.write(body if fault.cut is None else body[: fault.cut])
        if fault.stall:
            self.site.let_go.wait(20)
        if fault.cut is not None:
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """Clients that go away in the middle are what the tests are about."""


@contextmanager
def website() -> Iterator[Site]:
    """A site at ``site.url`` as long as the context lasts."""
    site = Site()
    handler = type("Handler", (_Handler,), {"site": site})
    with _Server(("127.0.0.1", 0), handler) as server:
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield site
        finally:
            site.let_go.set()
            server.shutdown()
            thread.join()
