"""Programs that ask the facades, as they do it, and models that answer what a test wants."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from PIL import Image
from shapely import MultiPolygon, Polygon
from shapely.affinity import scale, translate
from shapely.geometry import shape

from histoclick.models.card import Card
from histoclick.server.engine import Engine
from histoclick.types import RGB8, HistoclickError, Mask, Prediction, Prompt

CARD = Card("fake", "baseline", "fake", "Answers what a test wants.", "Apache-2.0", "a test")


class Knowing:
    """A model that knows the answer: ``answer`` says the mask (H, W) bool for a picture.

    ``encoded``: pictures that it encoded. ``prompts``: what it was asked, with whether an answer
    came before. ``quality``: its estimate.
    """

    def __init__(
        self,
        answer: Callable[[RGB8], Mask],
        boxes: bool = False,
        quality: float | None = None,
        confidence: float = 16.0,
    ) -> None:
        self._answer = answer
        self.boxes = boxes
        self.quality = quality
        self.confidence = confidence
        self.encoded: list[RGB8] = []
        self.prompts: list[tuple[Prompt, bool]] = []
        self._lock = threading.Lock()

    def encode(self, image: RGB8) -> Any:
        with self._lock:
            self.encoded.append(image)
        return self._answer(image)

    def predict(
        self, encoded: Any, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        height, width = encoded.shape
        if prompt.box is not None and not self.boxes:
            raise ValueError("this model takes clicks only; leave the box out")
        for click in prompt.clicks:
            assert 0 <= click.x < width, f"{click} is outside of {width}x{height}"
            assert 0 <= click.y < height, f"{click} is outside of {width}x{height}"
        with self._lock:
            self.prompts.append((prompt, previous is not None))
        logits = np.where(encoded, self.confidence, -self.confidence).astype(np.float32)
        return Prediction(logits, quality=self.quality)


def engine_of(model: Any, window_px: int) -> Engine:
    engine = Engine(model, CARD)
    engine.window_px = window_px
    return engine


def client_of(routes: APIRouter, raises: bool = True) -> TestClient:
    """Of an application that answers bad input as the real one does."""
    app = FastAPI()
    app.include_router(routes)

    @app.exception_handler(HistoclickError)
    async def refused(_: Request, error: HistoclickError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 400)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, __: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": "invalid"}, 422)

    return TestClient(app, raise_server_exceptions=raises)


def png(picture: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", **options)
    return file.getvalue()


def base64_of(picture: np.ndarray) -> str:
    return base64.b64encode(png(picture)).decode()


class Viewport:
    """QuPath's SAM extension looking at a part of a slide: ``min_x``, ``min_y`` in full-resolution
    px, ``downsample`` of them per px of the view, which is ``picture``."""

    def __init__(self, picture: RGB8, min_x: int, min_y: int, downsample: float) -> None:
        self.picture = picture
        self.min_x, self.min_y, self.downsample = min_x, min_y, downsample

    def request(
        self,
        foreground: list[tuple[float, float]],
        background: list[tuple[float, float]] = (),
        bbox: tuple[float, float, float, float] | None = None,
    ) -> dict[str, Any]:
        """Points in full-resolution px. Background points go first, empty fields are left out,
        points outside the view are filtered, rectangles are not."""
        height, width = self.picture.shape[:2]
        body: dict[str, Any] = {"type": "vit_l"}
        if bbox is not None:
            corners = [self._placed(*bbox[:2]), self._placed(*bbox[2:])]
            body["bbox"] = [*corners[0], *corners[1]]
        coordinates, labels = [], []
        for points, label in ((background, 0), (foreground, 1)):
            for point in points:
                x, y = self._placed(*point)
                if 0 <= x < width and 0 <= y < height:
                    coordinates.append([x, y])
                    labels.append(label)
        if coordinates:
            body |= {"point_coords": coordinates, "point_labels": labels}
        return body | {
            "b64img": base64_of(self.picture),
            "multimask_output": True,
            "checkpoint_url": "histoclick://fake",
        }

    def placed(self, geometry: dict[str, Any]) -> Polygon | MultiPolygon:
        """What the extension makes of a reply: scaled, then moved, full-resolution px."""
        scaled = scale(shape(geometry), self.downsample, self.downsample, origin=(0, 0))
        return translate(scaled, self.min_x, self.min_y)

    def _placed(self, x: float, y: float) -> list[int]:
        return [
            int((x - self.min_x) // self.downsample),
            int((y - self.min_y) // self.downsample),
        ]


def comb(height: int, width: int) -> Mask:
    """A comb with many teeth whose back has a comb-shaped hole, and a part of its own.

    The hole has more corners than the outer ring.
    """
    mask = np.zeros((height, width), np.bool_)
    mask[10:60, 10 : width - 40] = True
    for x in range(14, width - 50, 24):
        mask[60:85, x : x + 9] = True
    hole = np.zeros_like(mask)
    hole[20:26, 20 : width - 60] = True
    for x in range(22, width - 66, 6):
        hole[26:50, x : x + 3] = True
    mask &= ~hole
    mask[20:31, width - 25 : width - 12] = True
    mask[31:35, width - 12 : width - 8] = True  # meets the part in a corner only
    return mask
