"""Who may ask: names that are answered to, the token, requests that other pages make, and what
browsers are told.

A page of somebody else, open in the same browser, could ask a server on this machine for whatever
it likes. It cannot here: under a name of its own (DNS rebinding) it is refused by the ``Host``
header; what changes anything needs our own origin; no page may frame ours, show our pictures, or
read our answers.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from html import escape
from urllib.parse import parse_qs, unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = frozenset(("localhost", "127.0.0.1", "::1"))  # names of this machine for itself
COOKIE = "histoclick-"  # and the beginning of its value: another server may have another token
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
IN_PATH = "/t/"  # /t/TOKEN/sam/: for programs that can only be given an address
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?", re.IGNORECASE | re.ASCII)
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# Of the one script, a worker, that runs WebAssembly. What else evaluates text stays forbidden.
WASM_POLICY = f"{POLICY}; script-src 'self' 'wasm-unsafe-eval'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Door:
    """The outer ASGI application; ``app`` sees only requests that may come in.

    ``hosts``: names and addresses that it answers to, small letters, without port; ``None`` for
    any, which only a token makes safe. ``token``: what every request must know; ``None`` for none.
    """

    app: ASGIApp
    hosts: frozenset[str] | None
    token: str | None = None

    def __post_init__(self) -> None:
        if self.hosts is None and self.token is None:
            raise ValueError("a server that answers to every name needs a token")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            scope, refusal = self._checked(scope)
            await (refusal or self.app)(scope, receive, send)
        elif scope["type"] == "websocket":  # nothing here speaks it
            await send({"type": "websocket.close", "code": 1000})

    def _checked(self, scope: Scope) -> tuple[Scope, Response | None]:
        """The request as the application shall see it, or the answer instead."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if max(len(headers.getlist(name)) for name in ("host", "origin")) > 1:
            return scope, _refuse(scope, 400, "more than one Host or Origin; send one")
        if self.hosts is not None and _name(host) not in self.hosts:
            known = ", ".join(sorted(self.hosts))
            return scope, _refuse(scope, 421, f"not served under the name '{host}'; use {known}")
        if scope["method"] not in SAFE_METHODS and not _same_origin(headers, host):
            return scope, _refuse(scope, 403, "pages of other servers may not change anything here")
        if _built_in(headers):
            return scope, _refuse(scope, 403, "pages of other servers may only link to this one")
        if self.token is None:
            return scope, None
        return self._admitted(scope, headers)

    def _admitted(self, scope: Scope, headers: Headers) -> tuple[Scope, Response | None]:
        """Whoever knows the token; who brings it in the address of the page gets a cookie."""
        assert self.token is not None
        path: str = scope["path"]
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if path == "/" and scope["method"] == "GET" and "token" in query:
            if not _equal(query["token"][0], self.token):
                return scope, _refuse(
                    scope, 401, "that is not the token; look where it was printed"
                )
            return scope, self._welcome()
        if path.startswith(IN_PATH):
            given, slash, _ = path.removeprefix(IN_PATH).partition("/")
            if slash and _equal(given, self.token):
                return {**scope, "root_path": f"{IN_PATH}{given}"}, None
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        cookie = cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        by_header = scheme.lower() == "bearer" and _equal(credentials.strip(), self.token)
        if by_header or _equal(unquote(cookie), self._pass()):
            return scope, None
        sentence = "the token is missing; open the address that was printed when the server started"
        return scope, _refuse(scope, 401, sentence)

    def _welcome(self) -> Response:
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie, self._pass(), httponly=True, samesite="strict", path="/")
        answer.headers["Cache-Control"] = "no-store"
        return answer

    @property
    def _cookie(self) -> str:
        return COOKIE + self._pass()[:8]

    def _pass(self) -> str:
        """What the cookie says: browsers send it to other ports as well, so not the token."""
        assert self.token is not None
        return hmac.new(self.token.encode(), b"histoclick cookie", hashlib.sha256).hexdigest()


def _equal(given: str, right: str) -> bool:
    """In a time that tells nothing."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())


def _name(host: str) -> str:
    """The host of a ``Host`` header, without its port; "" for what is none."""
    found = HOST.fullmatch(host)
    return found[1].strip("[]").lower() if found else ""


def _same_origin(headers: Headers, host: str) -> bool:
    """Whether our own page asks, or a program that is no browser and sends no origin."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == host.lower() != ""


def _built_in(headers: Headers) -> bool:
    """Whether a page of somebody else wants this as a part of itself, such as a picture."""
    foreign = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
    return foreign and headers.get("sec-fetch-dest", "document") != "document"


def _refuse(scope: Scope, status: int, sentence: str) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if "text/html" in Headers(scope=scope).get("accept", ""):
        page = f"<!doctype html><title>histoclick</title><p>{escape(sentence.capitalize())}.</p>"
        return HTMLResponse(page, status, headers)
    return JSONResponse({"detail": sentence}, status, headers)


@dataclass(frozen=True)
class Headed:
    """The outermost ASGI application: all answers of ``app`` say what browsers may do with them."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        await self.app(scope, receive, _with_headers(send) if scope["type"] == "http" else send)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending
