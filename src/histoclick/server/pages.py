"""The page of the annotator, as it was built, or how to build it."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
MISSING = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>histoclick</title></head><body>
<h1>The page of the annotator is not built</h1>
<p>The server works, but this installation lacks the files of its page. In a checkout, build them
with <code>make web</code>; else install the package again: <code>pip install .</code> builds
them.</p>
<p>QuPath and other programs can use the server as it is.</p>
</body></html>
"""


class _Files(StaticFiles):
    """Files under ``assets`` have their hash in their name and never change."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        immutable = path.startswith("assets") and response.status_code == 200
        response.headers["Cache-Control"] = (
            "private, max-age=31536000, immutable" if immutable else "no-cache"
        )
        return response


def add_page(app: FastAPI, folder: Path = STATIC) -> None:
    """Serve the files of the page at ``/``. To be called last: it answers all other paths."""
    if (folder / "index.html").is_file():
        app.mount("/", _Files(directory=folder, html=True), name="page")
        return

    @app.get("/", include_in_schema=False)
    async def missing() -> HTMLResponse:
        return HTMLResponse(MISSING, 503)
