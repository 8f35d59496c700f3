"""HTTP: one request, what its failure means, and how long to be patient."""

from __future__ import annotations

import contextlib
import importlib.metadata
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import httpx2 as httpx

from histoclick.types import HistoclickError

MAX_REDIRECTS = 5
MAX_PAGE = 16 << 20  # bytes of a list
LONGEST_PAUSE_S = 120.0  # however long a server asks to wait
_ABSENT = {403, 404, 410}  # S3 answers 403 for what is not there and may not be listed
_BUSY = {408, 425, 429}
_MEANING = {
    401: "it asks for a password",
    403: "it refuses access, or the file is not there",
    404: "the file is not there",
    410: "the file is not there any more",
}


@dataclass(frozen=True)
class Patience:
    """How long to wait.

    ``connect_s``: for a connection. ``read_s``: for the next bytes; there is no limit for a whole
    file. ``pauses_s``: before the second, third, ... try, when a try brought nothing new.
    """

    connect_s: float = 30.0
    read_s: float = 60.0
    pauses_s: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 30.0)


class Hiccup(Exception):
    """A try failed and the next may not. ``pause_s``: what the server asks for, if it does."""

    def __init__(self, told: str, pause_s: float = 0.0) -> None:
        super().__init__(told)
        self.pause_s = pause_s


class Refused(Exception):
    """Trying again does not help. ``status``: HTTP's, 0 for other reasons."""

    def __init__(self, told: str, status: int = 0) -> None:
        super().__init__(told)
        self.status = status


class Interrupted(Exception):
    """The user has had enough."""


class Web:
    """A client for many threads. ``stop``: set by whoever wants them all to end."""

    def __init__(self, patience: Patience, stop: threading.Event, connections: int = 1) -> None:
        self.patience = patience
        self.stop = stop
        version = importlib.metadata.version("histoclick")
        self._client = httpx.Client(
            timeout=httpx.Timeout(patience.read_s, connect=patience.connect_s, pool=None),
            limits=httpx.Limits(max_connections=connections, keepalive_expiry=30.0),
            # Sizes and ranges are those of the file itself only where nothing is compressed.
            headers={"Accept-Encoding": "identity", "User-Agent": f"histoclick/{version}"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def check(self, _: int = 0) -> None:
        """Raises ``Interrupted`` once ``stop`` is set."""
        if self.stop.is_set():
            raise Interrupted

    @contextlib.contextmanager
    def answer(
        self, url: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """The answer to GET, its body not yet read: status 200, 206 or 416.

        Raises ``Hiccup`` or ``Refused`` for every other, also for what fails while the body is
        read inside the context. From https nobody is led to http.
        """
        try:
            response = self._follow(self._client.build_request("GET", url, headers=headers))
            try:
                _judge(response)
                yield response
            finally:
                response.close()
        except (httpx.TransportError, httpx.InvalidURL, httpx.StreamError) as error:
            raise _translated(error, self.patience) from error

    def _follow(self, request: httpx.Request) -> httpx.Response:
        secure = request.url.scheme == "https"
        for _ in range(MAX_REDIRECTS):
            response = self._client.send(request, stream=True)
            if response.next_request is None:
                return response
            response.close()
            request = response.next_request
            if secure and request.url.scheme != "https":
                raise Refused(f"it leads from https to {request.url.scheme}://{request.url.host}")
        raise Refused(f"it leads on to other addresses more than {MAX_REDIRECTS} times")


class Tries:
    """Counts tries that brought nothing new, and waits between them."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._count = 0

    def after(self, hiccup: Hiccup, *, progress: bool = False) -> None:
        """Waits for the next try; ``Refused`` when there have been enough without progress."""
        pauses = self._web.patience.pauses_s
        self._count = 0 if progress else self._count
        if self._count >= len(pauses):
            raise Refused(f"{hiccup}, {self._count + 1} times in a row") from hiccup
        pause_s = max(pauses[self._count], min(hiccup.pause_s, LONGEST_PAUSE_S))
        self._count += 1
        if self._web.stop.wait(pause_s):
            raise Interrupted


def get(url: str, patience: Patience | None = None) -> bytes | None:
    """A small file such as a list; ``None`` where the server has none.

    Raises ``HistoclickError`` when it cannot be had, or is longer than 16 MiB.
    """
    with Web(patience or Patience(), threading.Event()) as web:
        tries = Tries(web)
        while True:
            try:
                return _get(web, url)
            except Hiccup as hiccup:
                try:
                    tries.after(hiccup)
                except Refused as refused:
                    raise _unreachable(url, refused) from refused
            except Refused as refused:
                if refused.status in _ABSENT:
                    return None
                raise _unreachable(url, refused) from refused


def _get(web: Web, url: str) -> bytes:
    content = bytearray()
    with web.answer(url) as response:
        for chunk in response.iter_raw():
            content += chunk
            if len(content) > MAX_PAGE:
                raise Refused(f"the list is longer than {MAX_PAGE >> 20} MiB")
    return bytes(content)


def _unreachable(url: str, refused: Refused) -> HistoclickError:
    shown = httpx.URL(url).copy_with(userinfo=b"", query=None)
    return HistoclickError(
        f"{shown}: {refused}; check the network, or give another server with --mirror"
    )


def _judge(response: httpx.Response) -> None:
    status = response.status_code
    if status in {200, 206}:
        coding = response.headers.get("Content-Encoding", "identity").lower()
        if coding != "identity":
            raise Refused(f"the server compresses what it was asked to send as it is ({coding})")
    elif status in _BUSY or status >= 500:
        asked = response.headers.get("Retry-After", "")
        pause_s = float(asked) if asked.isascii() and asked.isdigit() else 0.0
        raise Hiccup(f"the server is not well (HTTP {status})", pause_s)
    elif status != 416:
        raise Refused(
            f"HTTP {status}, {_MEANING.get(status, 'which is no answer to go on with')}", status
        )


def _translated(error: Exception, patience: Patience) -> Hiccup | Refused:
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return Refused(f"the address is none ({error})")
    if isinstance(error, httpx.ConnectTimeout):
        return Hiccup(f"the server could not be reached in {patience.connect_s:g} s")
    if isinstance(error, httpx.TimeoutException):
        return Hiccup(f"the server sent nothing for {patience.read_s:g} s")
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Refused(
            "the server's certificate is not trusted here; behind a proxy that opens https, name "
            "its certificate in SSL_CERT_FILE"
        )
    if isinstance(error, httpx.ConnectError):
        return Hiccup(f"the server could not be reached ({error})")
    return Hiccup("the connection was cut")
