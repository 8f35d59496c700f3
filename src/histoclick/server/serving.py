"""From an application to an address that answers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from histoclick.server.security import LOCAL
from histoclick.types import HistoclickError

FIRST_PORT = 8000  # what the extensions of QuPath ask without being told
PORTS_TRIED = 20
HEADER_SECONDS = 20.0  # in which the head of a request must arrive
LINGER_SECONDS = 2.0  # for the rest of a body that nobody reads, until the connection is closed


class PatientProtocol(H11Protocol):
    """HTTP by h11, and connections are closed on which no whole request head arrives, or whose
    request was answered and still goes on."""

    _head: asyncio.TimerHandle | None = None
    _rest: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See ``asyncio.Protocol``."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._head is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self._stop()
        self._rest_came()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """See ``H11Protocol``. Who reads the answer at once may still lose it if the connection
        is closed at once, so what goes on is waited for."""
        self._rest_came()
        if self.conn.their_state is h11.SEND_BODY:
            self._rest = self.loop.call_later(LINGER_SECONDS, self._end_body)
        super().on_response_complete()

    def _rest_came(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def _end_body(self) -> None:
        self._rest = None
        if self.conn.their_state is h11.SEND_BODY and self.cycle.response_complete:
            self.transport.abort()

    def _wait(self) -> None:
        self._head = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _stop(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _give_up(self) -> None:
        self._head = None
        if self.conn.their_state is h11.IDLE and (
            self.cycle is None or self.cycle.response_complete
        ):
            self.transport.abort()


def is_local(host: str) -> bool:
    """Whether only programs on this machine can reach a server that listens there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names(host: str) -> frozenset[str] | None:
    """What the ``Host`` header may say; ``None``: anything, which then takes a token."""
    return LOCAL | {host.lower()} if is_local(host) else None


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket; without ``port`` the first free one from 8000 up.

    Raises ``HistoclickError`` with the mend.
    """
    ports = [port] if port is not None else range(FIRST_PORT, FIRST_PORT + PORTS_TRIED)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for each in ports:
        listener = socket.socket(family)
        try:
            if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where reuse would mean sharing
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, each))
            listener.listen(128)
        except (OSError, OverflowError) as error:
            listener.close()
            if getattr(error, "errno", None) != errno.EADDRINUSE:
                raise HistoclickError(
                    f"--host {host} --port {each}: {error}; give others"
                ) from None
            continue
        return listener
    last = f"{FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1} are" if port is None else f"{port} is"
    raise HistoclickError(f"port {last} in use already; close what uses it, or give another --port")


def address(host: str, listener: socket.socket) -> str:
    """The URL to open, on this machine at least."""
    port = listener.getsockname()[1]
    if host in ("0.0.0.0", "::"):  # noqa: S104  # everywhere, so here as well
        host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def server_of(app: ASGIApp) -> uvicorn.Server:
    """The HTTP server of an application, with its time limits."""
    settings: dict[str, Any] = {
        "http": PatientProtocol,
        "ws": "none",
        "lifespan": "off",
        "limit_concurrency": 512,
        "timeout_keep_alive": 30,
        "timeout_graceful_shutdown": 5,
        "h11_max_incomplete_event_size": 64 << 10,
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,
        "log_level": "warning",
    }
    return uvicorn.Server(uvicorn.Config(app, **settings))


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Answer until Ctrl-C or SIGTERM."""
    with contextlib.suppress(KeyboardInterrupt):  # it has answered all that it had begun
        server_of(app).run(sockets=[listener])
