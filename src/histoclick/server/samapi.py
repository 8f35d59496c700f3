"""QuPath's SAM extension talks to this: the protocol of samapi, answered by histoclick's model.

The extension sends the view as a PNG with all points of one object, and draws what comes back. Of
a view larger than the model's input the model looks at a window (see ``scenes``); the outline is
exactly that of the mask it computed, in px of the PNG, pixel-corner, with holes and all parts.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse

import histoclick
from histoclick.server import automask, selftest
from histoclick.server.bodies import body as body_of
from histoclick.server.bodies import described
from histoclick.server.conversations import Conversations
from histoclick.server.engine import Engine
from histoclick.server.features import feature, outlines
from histoclick.server.samwire import (
    TYPES,
    AutomaskBody,
    Body,
    ConceptBody,
    Feature,
    Progress,
    PromptBody,
    Weights,
)
from histoclick.server.uploads import Picture
from histoclick.types import Box, Click, HistoclickError

SPOKEN = "0.7.1"  # version of the protocol
NO_VIDEO = (
    "histoclick segments single pictures, not stacks or time series; use the points and rectangles "
    "of QuPath's SAM extension on one plane"
)
NO_TEXT = (
    "histoclick's models take points and rectangles, no text; leave the text empty and draw a "
    "rectangle around each object"
)


def router(engine: Engine) -> APIRouter:
    """The routes under ``/sam``; users edit the address, so the slash at its end may be missing."""
    routes = APIRouter(tags=["samapi"])
    talk, trials = Conversations(engine), selftest.Trials(engine)

    @routes.get("/sam", include_in_schema=False)
    @routes.get("/sam/", response_class=HTMLResponse)
    def page(request: Request) -> HTMLResponse:
        """For people: whether it works, and what to enter in QuPath."""
        return selftest.page(trials, str(request.base_url))

    @routes.post("/sam", include_in_schema=False)
    @routes.post("/sam/", response_model=list[Feature], openapi_extra=described(PromptBody))
    def prompt(body: Annotated[PromptBody, Depends(body_of(PromptBody))]) -> JSONResponse:
        """The object of these points and this rectangle; nothing without either."""
        picture = Picture.of_base64(body.b64img)
        clicks = clicks_of(body)
        box = None if body.bbox is None else box_of(*body.bbox)
        return JSONResponse(_answered(talk, picture, clicks, box, body, engine))

    @routes.post("/sam/automask", include_in_schema=False)
    @routes.post(
        "/sam/automask/", response_model=list[Feature], openapi_extra=described(AutomaskBody)
    )
    def automask_(body: Annotated[AutomaskBody, Depends(body_of(AutomaskBody))]) -> JSONResponse:
        """All objects. Ends after a minute; ``X-Notes`` says then what was left out."""
        names = {field.name for field in dataclasses.fields(automask.Wish)}
        wish = automask.Wish(**body.model_dump(include=names))
        found, left_out = automask.objects(engine, Picture.of_base64(body.b64img), wish)
        notes = []
        if left_out:
            notes.append(
                f"{left_out} points of the grid were left out after {automask.SECONDS:g} s; ask "
                "for fewer points"
            )
        features = [
            feature(
                outlines(each.mask, each.window), _properties(engine, body, each.quality, 1, *notes)
            )
            for each in found
        ]
        return JSONResponse(features, headers={"X-Notes": quote(json.dumps(notes))})

    @routes.post("/sam/sam3", include_in_schema=False)
    @routes.post("/sam/sam3/", response_model=list[Feature], openapi_extra=described(ConceptBody))
    def concept(body: Annotated[ConceptBody, Depends(body_of(ConceptBody))]) -> JSONResponse:
        """The object in each positive rectangle, away from the negative ones; no text."""
        if body.text_prompt and body.text_prompt.strip():
            raise HTTPException(501, NO_TEXT)
        picture = Picture.of_base64(body.b64img)
        avoided = [
            Click(math.floor(x + width / 2), math.floor(y + height / 2), False)
            for x, y, width, height in body.negative_bboxes or ()
        ]
        features: list[dict[str, Any]] = []
        for x, y, width, height in body.positive_bboxes or ():
            box = box_of(x, y, x + width, y + height)
            features += _answered(talk, picture, avoided, box, body, engine)
        sure = body.confidence_threshold
        return JSONResponse([each for each in features if each["properties"]["quality"] >= sure])

    @routes.get("/sam/version", include_in_schema=False, response_class=PlainTextResponse)
    @routes.get("/sam/version/", response_class=PlainTextResponse)
    def version() -> str:
        """Of the protocol, and of histoclick."""
        return f"{SPOKEN} (histoclick {histoclick.__version__})"

    @routes.get("/sam/weights", include_in_schema=False)
    @routes.get("/sam/weights/")
    def weights(type: str | None = None) -> list[Weights]:  # noqa: A002  # the name on the wire
        """The one model that is served, under every name that a client may choose."""
        types = TYPES if not type else (type[:64],)
        url = f"histoclick://{engine.model}"
        return [Weights(type=each, name=engine.card.id, url=url) for each in types]

    @routes.post("/sam/weights", include_in_schema=False, response_class=PlainTextResponse)
    @routes.post(
        "/sam/weights/", response_class=PlainTextResponse, openapi_extra=described(Weights)
    )
    def register(_: Annotated[Weights, Depends(body_of(Weights))]) -> str:
        """Nothing is ever downloaded; how to get another model."""
        return (
            f"histoclick serves its model {engine.model} and downloads nothing. For another one, "
            "start it with: histoclick serve --model ID (histoclick models list shows what is "
            "there, histoclick models import takes weight files)"
        )

    @routes.get("/sam/weights/cancel", include_in_schema=False, response_class=PlainTextResponse)
    @routes.get("/sam/weights/cancel/", response_class=PlainTextResponse)
    def cancel() -> str:
        """Nothing to cancel."""
        return "Nothing is being downloaded"

    @routes.get("/sam/progress", include_in_schema=False)
    @routes.get("/sam/progress/")
    def progress() -> Progress:
        """Nothing is ever under way."""
        return Progress(message="Nothing to download", percent=100)

    for path in ("/sam/upload/", "/sam/video/", "/sam/sam3video/"):
        routes.add_api_route(path, _no_video, methods=["POST"], status_code=501)

    return routes


def clicks_of(body: PromptBody) -> list[Click]:
    """Points in px of the PNG name pixels; the extension rounds them down."""
    points, labels = body.point_coords or [], body.point_labels or []
    if len(points) != len(labels):
        raise HistoclickError(
            f"{len(points)} points have {len(labels)} labels; give one label for each point"
        )
    return [
        Click(math.floor(x), math.floor(y), label == 1)
        for (x, y), label in zip(points, labels, strict=True)
    ]


def box_of(x0: float, y0: float, x1: float, y1: float) -> Box | None:
    """The pixels of a rectangle, which may be drawn from any corner; ``None`` without area."""
    left, top = math.floor(min(x0, x1)), math.floor(min(y0, y1))
    right, bottom = math.ceil(max(x0, x1)), math.ceil(max(y0, y1))
    return Box(left, top, right - 1, bottom - 1) if left < right and top < bottom else None


def _answered(
    talk: Conversations,
    picture: Picture,
    clicks: list[Click],
    box: Box | None,
    body: Body,
    engine: Engine,
) -> list[dict[str, Any]]:
    """One feature, or none where there is nothing to say."""
    answer = talk.answer(picture, clicks, box)
    polygons = outlines(answer.mask, answer.window) if answer else []
    if answer is None or not polygons:
        return []
    notes = []
    if answer.left_out:
        notes.append(f"{answer.left_out} background points far from the object were left out")
    return [feature(polygons, _properties(engine, body, answer.quality, answer.clicks, *notes))]


def _properties(
    engine: Engine, body: Body, quality: float, clicks: int, *notes: str
) -> dict[str, Any]:
    """No ``object_idx``: the extension would make a class of it."""
    metadata = {"model": engine.model}
    if notes:
        metadata["note"] = " ".join(notes)
    return {
        "quality": round(quality, 4),
        "label": "object",
        "sam_model": body.type,
        "measurements": {"SAM clicks": clicks},
        "metadata": metadata,
    }


def _no_video() -> JSONResponse:
    """Stacks and time series."""
    return JSONResponse({"detail": NO_VIDEO}, 501)
