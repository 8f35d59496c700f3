"""The application: everything it needs is given to it, nothing is global."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

import histoclick
from histoclick.annotations import FORMATS
from histoclick.server import annotating, decoding, monai, samapi, viewing
from histoclick.server.decoding import Decoder
from histoclick.server.engine import Busy, Engine
from histoclick.server.library import Library, NoSlide
from histoclick.server.limits import LIMITS, Bounds, Limits
from histoclick.server.pages import add_page, add_sign
from histoclick.server.security import LOCAL, Door, Headed
from histoclick.server.sessions import Sessions
from histoclick.server.threads import Staff
from histoclick.server.views import Views
from histoclick.server.wire import FormatInfo, Info, ModelInfo
from histoclick.store import Unavailable
from histoclick.types import HistoclickError


def create_app(
    engine: Engine,
    library: Library,
    sessions: Sessions | None = None,
    *,
    user: str = "",
    hosts: frozenset[str] | None = LOCAL,
    token: str | None = None,
    limits: Limits = LIMITS,
    decoder: Decoder | None = None,
) -> ASGIApp:
    """The server's application, with everything around it that keeps it safe.

    ``sessions``: without them nothing can be annotated, but other programs can use the model.
    ``user``: who works here, for the log. ``hosts``, ``token``: see ``Door``.
    ``decoder``: of the engine's model, for browsers.
    """
    app = FastAPI(
        title="histoclick",
        version=histoclick.__version__,
        docs_url=None,  # their page comes from other people's servers
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    staff = Staff()

    @app.head("/api/info", include_in_schema=False)
    @app.get("/api/info", tags=["server"])
    async def info() -> Info:
        """The server, its model and what it can export."""
        return describe(engine, user, decoder)

    app.include_router(samapi.router(engine))
    app.include_router(monai.router(engine, library))
    if sessions is not None:
        app.include_router(viewing.router(library, sessions, staff), prefix="/api")
        app.include_router(
            annotating.router(sessions, Views(library, engine), staff, user), prefix="/api"
        )
        app.include_router(decoding.router(library, engine, staff, decoder), prefix="/api")
        add_page(app)
    else:
        add_sign(app)
    _add_refusals(app, library)
    return Headed(Bounds(Door(app, hosts, token), limits))


def _add_refusals(app: FastAPI, library: Library) -> None:
    """What went wrong, as one sentence each."""

    @app.exception_handler(HistoclickError)
    async def refused(_: Request, error: HistoclickError) -> JSONResponse:
        return JSONResponse({"detail": library.told(str(error))}, 400)

    @app.exception_handler(Unavailable)
    async def unavailable(_: Request, error: Unavailable) -> JSONResponse:
        return JSONResponse({"detail": library.told(error.sentence)}, 503, {"Retry-After": "5"})

    @app.exception_handler(NoSlide)
    async def unknown(_: Request, __: NoSlide) -> JSONResponse:
        return JSONResponse({"detail": "no such slide is served; see /api/slides"}, 404)

    @app.exception_handler(Busy)
    async def busy(_: Request, __: Busy) -> JSONResponse:
        sentence = "more clicks wait than can be answered soon; try again in a second"
        return JSONResponse({"detail": sentence}, 503, {"Retry-After": "1"})

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return JSONResponse({"detail": f"{where}: {first['msg']}"}, 422)

    @app.exception_handler(Exception)
    async def broken(_: Request, __: Exception) -> JSONResponse:
        sentence = "a fault of the server; what it was doing stands in its log"
        return JSONResponse({"detail": sentence}, 500)


def describe(engine: Engine, user: str, decoder: Decoder | None = None) -> Info:
    """What a client should know first."""
    card = engine.card
    model = ModelInfo(
        id=card.id,
        summary=card.summary,
        licence=card.licence,
        measured=list(card.measured),
        untrained=card.untrained,
        window_px=engine.window_px,
        boxes=engine.boxes,
        decoder=None if decoder is None else decoder.model,
    )
    formats = [
        FormatInfo(name=each.name, title=each.title, suffix=each.suffixes[0])
        for each in FORMATS.values()
        if each.write is not None
    ]
    return Info(version=histoclick.__version__, model=model, user=user, formats=formats)
