"""The page of the annotator, as it was built, or how to build it."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from histoclick.server.security import WASM_POLICY

STATIC = Path(__file__).parent / "static"
ASSETS = "assets"  # files with their hash in their name, which never change
DECODING = "decoding-"  # so begins the name of the worker that answers clicks in the browser
MISSING = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>histoclick</title></head><body>
<h1>The page of the annotator is not built</h1>
<p>The server works, but this installation lacks the files of its page. In a checkout, build them
with <code>make web</code>; else install the package again: <code>pip install .</code> builds
them.</p>
<p>QuPath and other programs can use the server as it is.</p>
</body></html>
"""


class _Assets(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if response.status_code == 200:
            response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
            if path.startswith(DECODING):
                response.headers["Content-Security-Policy"] = WASM_POLICY
        return response


def add_page(app: FastAPI, folder: Path = STATIC) -> None:
    """Serve the page at ``/`` with the pictures and scripts that belong to it."""
    index = folder / "index.html"
    if not index.is_file():

        @app.get("/", include_in_schema=False)
        async def missing() -> HTMLResponse:
            return HTMLResponse(MISSING, 503)

        return

    for file in sorted(folder.iterdir()):
        if file.suffix in (".html", ".svg", ".png", ".ico", ".md"):
            _add_file(app, file, "/" if file == index else f"/{file.name}")
    if (folder / ASSETS).is_dir():
        app.mount(f"/{ASSETS}", _Assets(directory=folder / ASSETS), name=ASSETS)


def add_sign(app: FastAPI) -> None:
    """At ``/`` of a server without slides: where to go."""

    @app.get("/", include_in_schema=False)
    async def sign(request: Request) -> RedirectResponse:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/sam/", 303)


def _add_file(app: FastAPI, file: Path, path: str) -> None:
    @app.get(path, include_in_schema=False)
    async def content() -> FileResponse:
        return FileResponse(file, headers={"Cache-Control": "no-cache"})
