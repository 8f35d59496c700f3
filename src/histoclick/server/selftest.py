"""The page behind QuPath's server address, for people: whether it works, and what to enter."""

from __future__ import annotations

import base64
import threading
import time
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape

import cv2
import numpy as np
from fastapi.responses import HTMLResponse

from histoclick.clicks import SimulatedUser
from histoclick.datasets.phantom import phantom_patch
from histoclick.geometry import Rect
from histoclick.masks import rasterise
from histoclick.metrics import iou
from histoclick.server.conversations import Conversations
from histoclick.server.engine import Busy, Engine
from histoclick.server.features import outlines
from histoclick.server.security import IN_PATH
from histoclick.server.uploads import Picture
from histoclick.types import RGB8, Click, HistoclickError, Mask, Sample

SECURITY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
OUTLINE = (0, 160, 60)  # RGB
KEPT_SECONDS = 10.0  # for which a trial counts, or visits would keep the model from its work
SEED, CLICKS = 3, 3  # of the generated picture, on it
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1b1f; background: #fff }
code { background: #eee; padding: .1em .3em; border-radius: .2em; overflow-wrap: anywhere }
.good { color: #00662a } .bad { color: #b00020 } img { max-width: 100%; border-radius: .4em }
@media (prefers-color-scheme: dark) { body { color: #e6e6ea; background: #16161a }
  code { background: #333 } .good { color: #5fd38d } .bad { color: #ff8a9a } }
"""


@dataclass(frozen=True)
class Trial:
    """``first``, ``next``: seconds of the first and the last click on a picture. ``iou``: with the
    truth at the end. ``drawn``: the answer on the picture, PNG."""

    first: float
    next: float
    iou: float
    drawn: bytes


def trial(engine: Engine) -> Trial:
    """Some clicks on a generated picture, each sent and answered as QuPath's requests are.

    Raises ``HistoclickError`` and ``Busy``, as they would.
    """
    talk = Conversations(engine)  # which remembers nothing of the last trial
    sample, png = _picture()
    height, width = sample.mask.shape
    mask = np.zeros_like(sample.mask)
    clicks: list[Click] = []
    seconds: list[float] = []
    for _ in range(CLICKS):
        clicks.append(SimulatedUser().click(sample.id, sample.mask, mask, tuple(clicks)))
        begin = time.perf_counter()
        answer = talk.answer(Picture.of_base64(png), clicks, None)
        polygons = [] if answer is None else outlines(answer.mask, answer.window)
        seconds.append(time.perf_counter() - begin)
        mask = np.zeros_like(mask)
        for polygon in polygons:
            mask |= rasterise(polygon, Rect(0, 0, width, height), width, height)
    drawn = _png(_drawn(sample.image, mask))
    return Trial(seconds[0], seconds[-1], iou(sample.mask, mask), drawn)


@dataclass
class Trials:
    """Trials of one engine, one at a time. Thread-safe."""

    engine: Engine
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _last: Trial | str = ""
    _until: float = 0.0  # monotonic s

    def last(self) -> Trial | str:
        """The last trial if it is fresh, else another; of one that failed, why."""
        with self._lock:
            if time.monotonic() >= self._until:
                try:
                    self._last = trial(self.engine)
                except (HistoclickError, Busy, ValueError, RuntimeError) as error:
                    self._last = str(error) or "more clicks wait than can be answered soon"
                self._until = time.monotonic() + KEPT_SECONDS
            return self._last


def page(trials: Trials, base_url: str) -> HTMLResponse:
    """The page; with status 503 if the trial failed. ``base_url``: of this server, with a slash."""
    engine, card = trials.engine, trials.engine.card
    result = trials.last()
    if isinstance(result, str):
        verdict = f'<p class="bad">The model did not answer: {escape(result)}.</p>'
        status = 503
    else:
        status = 200
        data = base64.b64encode(result.drawn).decode()
        verdict = (
            f'<p class="good">It works: of {CLICKS} clicks on a generated picture the first was '
            f"answered in {result.first * 1000:.0f} ms, the last in {result.next * 1000:.0f} ms, "
            f"and the outline has an IoU of {result.iou:.2f} with the truth.</p>"
            f'<img alt="A generated picture with the outline that the model drew" '
            f'src="data:image/png;base64,{data}">'
        )
    if card.untrained:
        verdict += '<p class="bad">This model has random weights; its masks mean nothing.</p>'
    address = f"<code>{escape(base_url)}sam/</code>"
    if IN_PATH not in base_url:
        address += (
            "<br>If the server was started with a token: "
            f"<code>{escape(base_url)}{IN_PATH.strip('/')}/TOKEN/sam/</code>, with that token."
        )
    html = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>histoclick for QuPath</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>
<h1>histoclick for QuPath</h1>
<p>Model: <code>{escape(engine.model)}</code>. {escape(card.summary)}</p>
{verdict}
<h2>In QuPath</h2>
<ol>
<li>Install the SAM extension (qupath-extension-sam 0.9 for QuPath 0.6).</li>
<li>Extensions &gt; SAM &gt; SAM, field <i>Server</i>: {address}</li>
<li>Leave the type as it is: all types are this model. Draw a rectangle or set points.</li>
</ol>
<p>Nothing is downloaded, and pictures go to this server and nowhere else.</p>
</body></html>
"""
    return HTMLResponse(html, status, {"Content-Security-Policy": SECURITY})


@lru_cache(maxsize=1)
def _picture() -> tuple[Sample, str]:
    """A sample and its picture as PNG in base64."""
    sample = phantom_patch(SEED)
    return sample, base64.b64encode(_png(sample.image)).decode()


def _png(picture: RGB8) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()


def _drawn(picture: RGB8, mask: Mask) -> RGB8:
    """With the outline of the mask."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    drawn = picture.copy()
    drawn[mask & ~inner] = OUTLINE
    return drawn
