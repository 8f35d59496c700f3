"""MONAI Label's clients talk to this: QuPath's MONAI Label plugin, the Digital Slide Archive's.

Clicks on a region of a slide that is served, or on a patch that is sent, give outlines. What MONAI
Label does besides (training, active learning, a store of labels) is answered with a sentence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from fastapi import APIRouter, Depends, File, Form, HTTPException, Response, UploadFile
from fastapi.responses import JSONResponse
from shapely.affinity import affine_transform

import histoclick
from histoclick.server import monaireplies
from histoclick.server.bodies import body, described
from histoclick.server.conversations import Answer, Conversations
from histoclick.server.engine import Engine
from histoclick.server.features import outlines
from histoclick.server.library import Library
from histoclick.server.monaireplies import LABEL, Reply
from histoclick.server.monaiwire import (
    NO_POINTS,
    NOT_HERE,
    Clicks,
    ImageName,
    Output,
    Wsi,
    parsed,
)
from histoclick.server.regions import Region
from histoclick.server.scenes import Scene
from histoclick.server.uploads import Picture
from histoclick.types import Click, HistoclickError


def router(engine: Engine, library: Library) -> APIRouter:
    """The routes. QuPath's client sends JSON that does not say that it is JSON."""
    routes = APIRouter(tags=["MONAI Label"], strict_content_type=False)
    talk = Conversations(engine)

    @routes.get("/info/")
    def info() -> dict[str, Any]:
        """The model, as the clients want it described."""
        return describe(engine)

    @routes.get("/auth/")
    def login() -> dict[str, bool]:
        """There is none; a token is part of the server's address."""
        return {"enabled": False}

    @routes.post("/infer/wsi/{model}", response_model=None, openapi_extra=described(Wsi))
    def infer_slide(
        model: str,
        wsi: Annotated[Wsi, Depends(body(Wsi))],
        image: ImageName = "",
        output: Output | None = None,
    ) -> Response:
        """The object of the points in a region of a slide that is served."""
        _check_model(engine, model)
        return _slide_reply(engine, library, talk, wsi, image, output or wsi.output or "json")

    @routes.post("/infer/wsi_v2/{model}", response_model=None)
    def infer_patch(
        model: str,
        wsi: Annotated[str, Form()] = "{}",
        file: Annotated[UploadFile | None, File()] = None,
        image: ImageName = "",
        output: Output | None = None,
    ) -> Response:
        """The same in a patch that is sent, whose top left corner counts as 0, 0."""
        _check_model(engine, model)
        wish = parsed(Wsi, wsi, "wsi")
        kind = output or wish.output or "json"
        if file is None:
            return _slide_reply(engine, library, talk, wish, image, kind)
        picture = Picture.of_bytes(file.file.read())
        begin = time.perf_counter()
        answer = _asked(talk, picture, wish.params or Clicks(), lambda x, y: (x, y))
        polygons = [p for p in outlines(answer.mask, answer.window) if wish.wants(p.area)]
        size = picture.width, picture.height
        reply = Reply(engine.model, polygons, (0, 0), size, time.perf_counter() - begin)
        return _written(reply, kind)

    @routes.post("/infer/{model}", response_model=None)
    def infer(
        model: str,
        params: Annotated[str, Form()] = "{}",
        file: Annotated[UploadFile | None, File()] = None,
        image: ImageName = "",
        output: Literal["image", "json", "all", "dicom_seg"] = "image",
    ) -> Response:
        """The mask of a picture that is sent, or of a small slide that is served."""
        _check_model(engine, model)
        if output == "dicom_seg":
            raise HTTPException(501, NOT_HERE["volume"])
        clicks = parsed(Clicks, params, "params")
        if file is not None:
            return _masked(engine, talk, Picture.of_bytes(file.file.read()), clicks, output)
        with library.open(_found(library, image)) as slide:
            return _masked(engine, talk, Region.of(slide, None, engine.window_px), clicks, output)

    @routes.head("/datastore/image", include_in_schema=False)
    @routes.head("/datastore/image/", include_in_schema=False)
    def is_served(image: ImageName) -> Response:
        """Whether a slide of this name is served."""
        _found(library, image)
        return Response()

    @routes.get("/datastore/image/info")
    def image_info(image: ImageName) -> dict[str, Any]:
        """What is known of a slide."""
        entry = library.entry(_found(library, image))
        return {"image": image, "name": entry.name, "width": entry.width, "height": entry.height}

    @routes.get("/datastore/")
    def datastore() -> dict[str, Any]:
        """The slides that are served."""
        names = [entry.path.stem for entry in library.entries() if entry.problem is None]
        return {"name": "histoclick", "objects": {name: {"image": {}} for name in names}}

    for methods, path, why in (
        (["GET", "PUT", "DELETE"], "/datastore/image", "store"),
        (["GET", "PUT", "DELETE"], "/datastore/label", "store"),
        (["PUT"], "/datastore/", "store"),
        (["PUT"], "/session/", "session"),
        (["POST"], "/activelearning/{strategy}", "learn"),
        (["POST", "DELETE"], "/train/", "train"),
        (["POST"], "/train/{model}", "train"),
    ):
        routes.add_api_route(
            path, _refusal(why), methods=methods, status_code=501, include_in_schema=False
        )

    @routes.get("/train/", status_code=404, response_model=None)
    def training() -> Response:
        """Nothing is ever trained here."""
        raise HTTPException(404, NOT_HERE["train"])

    return routes


def describe(engine: Engine) -> dict[str, Any]:
    """The reply to ``/info/``; its clients read fields that they do not check for."""
    card = engine.card
    model = {
        "type": "deepgrow",
        "labels": [LABEL],
        "dimension": 2,
        "description": card.summary,
        "config": {},
        "pathology": True,
        "nuclick": False,  # which would send points of all classes as foreground
    }
    return {
        "name": "histoclick",
        "description": f"Clicks to masks with {engine.model}",
        "version": histoclick.__version__,
        "labels": [LABEL],
        "models": {card.id: model},
        "strategies": {},
        "trainers": {},
        "scoring": {},
        "train_stats": {},
        "datastore": {},
    }


def _slide_reply(
    engine: Engine, library: Library, talk: Conversations, wsi: Wsi, image: str, output: str
) -> Response:
    """The object of the points, in a region of a slide."""
    begin = time.perf_counter()
    with library.open(_found(library, image)) as slide:
        # QuPath counts from the corner of the slide's bounds; the archive from that of level 0.
        bounds = slide.bounds
        left, top = (round(bounds.x0), round(bounds.y0)) if output == "asap" else (0, 0)
        region = Region.of(slide, wsi.rect0(left, top), engine.window_px)
        scale, x0, y0 = region.scale, region.x0 - left, region.y0 - top
        answer = _asked(
            talk,
            region,
            wsi.params or Clicks(),
            lambda x, y: ((x - x0) / scale, (y - y0) / scale),
        )
    polygons = [
        affine_transform(polygon, (scale, 0, 0, scale, x0, y0))
        for polygon in outlines(answer.mask, answer.window)
    ]
    polygons = [polygon for polygon in polygons if wsi.wants(polygon.area)]
    size = region.width * scale, region.height * scale
    return _written(
        Reply(engine.model, polygons, (x0, y0), size, time.perf_counter() - begin), output
    )


def _asked(
    talk: Conversations,
    scene: Scene,
    clicks: Clicks,
    place: Callable[[float, float], tuple[float, float]],
) -> Answer:
    """The answer to points; ``place``: where (x, y) of a request lies in the scene."""
    told = []
    for points, positive in ((clicks.foreground, True), (clicks.background, False)):
        for point in points:
            x, y = place(point[0], point[1])
            told.append(Click(math.floor(x), math.floor(y), positive))
    answer = talk.answer(scene, told, None)
    if answer is None:
        raise HistoclickError(NO_POINTS)
    return answer


def _masked(
    engine: Engine, talk: Conversations, scene: Scene, clicks: Clicks, output: str
) -> Response:
    """The mask as PNG (0 background, 1 object), what is known of it as JSON, or both."""
    begin = time.perf_counter()
    answer = _asked(talk, scene, clicks, lambda x, y: (x, y))
    facts = {
        "label_names": {LABEL: 1},
        "quality": round(answer.quality, 4),
        "model": engine.model,
        "latencies": {"total": round(time.perf_counter() - begin, 3)},
    }
    if output == "json":
        return JSONResponse(facts)
    mask = np.zeros((scene.height, scene.width), np.uint8)
    window = answer.window
    mask[window.y : window.y1, window.x : window.x1] = answer.mask
    png = cv2.imencode(".png", mask)[1].tobytes()
    if output == "image":
        return Response(png, media_type="image/png")
    body, kind = monaireplies.both(facts, png)
    return Response(body, media_type=kind)


def _written(reply: Reply, output: str) -> Response:
    if output == "asap":
        return Response(monaireplies.asap(reply), media_type="application/xml")
    if output == "dsa":
        return Response(monaireplies.dsa(reply), media_type="application/json")
    return JSONResponse(monaireplies.plain(reply))


def _check_model(engine: Engine, name: str) -> None:
    if name not in (engine.card.id, engine.model):
        raise HTTPException(404, f"no model of this name is served; there is {engine.card.id}")


def _found(library: Library, name: str) -> str:
    """The id of a slide. Raises a 404 if none of this name is served."""
    entry = library.find(name) if name else None
    if entry is None:
        raise HTTPException(
            404, "no slide of this name is served; put it into a folder that is, or send the pixels"
        )
    return entry.id


def _refusal(why: str) -> Callable[[], None]:
    def refuse() -> None:
        raise HTTPException(501, NOT_HERE[why])

    return refuse
