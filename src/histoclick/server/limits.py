"""How much one request, one client and all together may take of this machine.

Bodies are bounded in size and time, also those that do not say their length; answers in the time
that a client takes to accept them; requests in number, in all and for each address.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from histoclick.server.security import IN_PATH

SMALL = 1 << 20  # bytes of a body
LARGE = 64 << 20  # of a body that holds a file or a picture
LARGE_PATHS = ("/sam", "/infer", "/datastore")


@dataclass(frozen=True)
class Limits:
    """``in_flight``: requests at a time; ``of_client``: of those, from one address; ``large``: of
    those, with a large body. ``body_seconds``, ``large_seconds``: in which a body must arrive;
    ``answer_seconds``: in which a part of an answer must be taken."""

    in_flight: int = 256
    of_client: int = 96
    large: int = 4
    body_seconds: float = 15.0
    large_seconds: float = 120.0
    answer_seconds: float = 60.0


LIMITS = Limits()


@dataclass
class Bounds:
    """An ASGI application around ``app``. Used from one event loop, so its counts need no lock."""

    app: ASGIApp
    limits: Limits = LIMITS
    _clients: Counter[str] = field(default_factory=Counter)
    _large: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        client = (scope.get("client") or ("", 0))[0]
        large = scope["method"] in ("POST", "PUT") and _may_be_large(scope["path"])
        refusal = self._refusal(scope, client, large)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        self._clients[client] += 1
        self._large += large
        try:
            await self.app(scope, _Body(receive, self.limits, large).receive, self._patient(send))
        finally:
            self._large -= large
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    def _refusal(self, scope: Scope, client: str, large: bool) -> Response | None:
        """The answer to a request that is one too many, or says that it is too large."""
        limits = self.limits
        if (
            self._clients.total() >= limits.in_flight
            or self._clients[client] >= limits.of_client
            or (large and self._large >= limits.large)
        ):
            sentence = "too many requests at a time; try again in a second"
            return JSONResponse({"detail": sentence}, 503, {"Retry-After": "1"})
        length = Headers(scope=scope).get("content-length", "0")
        most = LARGE if large else SMALL
        if not length.isdecimal() or len(length) > 18 or int(length) > most:
            return JSONResponse({"detail": _too_large(most)}, 413)
        return None

    def _patient(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            async with asyncio.timeout(self.limits.answer_seconds):
                await send(message)

        return sending


@dataclass
class _Body:
    """The body of one request, while it arrives."""

    source: Receive
    limits: Limits
    large: bool
    bytes: int = 0
    complete: bool = False
    deadline: float | None = None

    async def receive(self) -> Message:
        """See ASGI. Raises ``HTTPException``, which becomes the answer."""
        if self.complete:  # what comes now is only that the client has gone
            return await self.source()
        now = asyncio.get_running_loop().time()
        seconds = self.limits.large_seconds if self.large else self.limits.body_seconds
        self.deadline = self.deadline or now + seconds
        try:
            async with asyncio.timeout_at(self.deadline):
                message = await self.source()
        except TimeoutError:
            sentence = f"the request did not arrive within {seconds:g} s; try a better connection"
            raise HTTPException(408, sentence, {"Connection": "close"}) from None
        self.bytes += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        most = LARGE if self.large else SMALL
        if self.bytes > most:
            raise HTTPException(413, _too_large(most), {"Connection": "close"})
        return message


def _may_be_large(path: str) -> bool:
    if path.startswith(IN_PATH):
        path = "/" + path.removeprefix(IN_PATH).partition("/")[2]
    return path.startswith(LARGE_PATHS) or path.endswith("/import")


def _too_large(most: int) -> str:
    return f"the request is larger than {most >> 20} MiB; send less"
