"""Qualitative strips (Fig. 4): what a model made of a patch, click by click."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from histoclick.report.figures import LIGHT, STYLE
from histoclick.report.records import Run
from histoclick.types import RGB8, HistoclickError, Mask

MOST = 12  # strips in one figure
SIDE = 400  # longest side of a painted picture, in pixels
PANEL, GAP, HEAD, FOOT = 1.55, 0.05, 0.27, 0.25  # of the figure, in inches
MASK, TRUTH = (0, 114, 255), (255, 225, 25)
POSITIVE, NEGATIVE, EDGE, SHADE = (18, 179, 71), (227, 23, 43), (255, 255, 255), (20, 20, 30)
OPACITY = 0.28
BEYOND = 5  # pixels; more than half the widest line
SUBPIXEL = 4  # bits of a pixel's fraction in OpenCV's coordinates


@dataclass(frozen=True)
class Strip:
    """One patch of a run in pictures.

    ``image``: (H, W, 3) uint8. ``truth``: (H, W) bool. ``masks``: (K, H, W) bool, after the clicks
    numbered in ``shown``; 0 is the mask that the user started from. ``clicks``: the rows of this
    patch, in pixels of the image.
    """

    run: Run
    patch: str
    image: RGB8
    truth: Mask
    masks: NDArray[np.bool_]
    shown: tuple[int, ...]
    clicks: pd.DataFrame

    def iou(self, click: int) -> float:
        """IoU after ``click``."""
        if click == 0:
            return float(self.clicks["start_iou"].iloc[0])
        return float(self.clicks["iou"].to_numpy()[self.clicks["click"] == click][0])


def read_strips(run: Run) -> list[Strip]:
    """The pictures a run kept, in the order of its patches; none is no error."""
    strips = []
    for patch, clicks in run.records.groupby("patch", sort=False):
        path = run.folder / "strips" / f"{patch}.npz"
        if path.exists():
            strips.append(_read(run, str(patch), path, clicks))
    return strips


def selected(strips: Sequence[Strip]) -> list[Strip]:
    """At most ``MOST`` strips, from all datasets in turn; models on one patch stay together."""
    datasets: dict[str, dict[str, list[Strip]]] = {}
    for strip in strips:
        datasets.setdefault(strip.run.card.dataset, {}).setdefault(strip.patch, []).append(strip)
    chosen: list[Strip] = []
    for turn in zip_longest(*(patches.values() for patches in datasets.values()), fillvalue=[]):
        for models in turn:
            if len(chosen) + len(models) <= MOST or not chosen:
                chosen += models[:MOST]
    order = list(datasets)
    return sorted(chosen, key=lambda strip: order.index(strip.run.card.dataset))


def pictures(strip: Strip) -> list[tuple[str, RGB8]]:
    """Caption and picture, (h, w, 3) uint8, of the patch, of its annotation, of every mask."""
    plain, annotated = _canvas(strip), _canvas(strip)
    _outline(annotated, strip.truth, TRUTH, 2)
    painted = [("image", plain), ("annotation", annotated)]
    for number, mask in zip(strip.shown, strip.masks, strict=True):
        canvas = _canvas(strip)
        inside = _fitted(mask, canvas)
        canvas[inside] = (1 - OPACITY) * canvas[inside] + OPACITY * np.array(MASK)
        _outline(canvas, mask, MASK, 2)
        cv2.drawContours(canvas, _borders(strip.truth, canvas), -1, TRUTH, 1, cv2.LINE_AA)
        _clicks(canvas, strip, number)
        when = f"click {number}" if number else "start"
        painted.append((f"IoU {strip.iou(number):.2f} · {when}", canvas))
    return painted


@matplotlib.rc_context(STYLE)
def figure(strips: Sequence[Strip]) -> Figure:
    """Image, annotation and masks after some clicks, a row per strip."""
    shown = sorted({number for strip in strips for number in strip.shown})
    columns, row_height = 2 + len(shown), PANEL + HEAD + FOOT
    width, height = columns * (PANEL + GAP) - GAP, len(strips) * row_height
    drawing = Figure(figsize=(width, height))
    for row, strip in enumerate(strips):
        bottom = 1 - ((row + 1) * row_height - FOOT) / height
        places = [0, 1, *(2 + shown.index(number) for number in strip.shown)]
        for place, (caption, picture) in zip(places, pictures(strip), strict=True):
            panel = drawing.add_axes(
                (place * (PANEL + GAP) / width, bottom, PANEL / width, PANEL / height)
            )
            panel.imshow(picture, interpolation="antialiased")
            panel.set_axis_off()
            panel.text(
                0.5, -0.03, caption, transform=panel.transAxes, ha="center", va="top", fontsize=8,
                color=LIGHT.text,
            )  # fmt: skip
        drawing.text(
            0, bottom + (PANEL + 0.05) / height, title(strip), fontsize=8.5, color=LIGHT.text,
            weight="bold", va="bottom",
        )  # fmt: skip
    return drawing


def title(strip: Strip) -> str:
    """Which model on which patch."""
    return f"{strip.run.label} · {strip.run.card.dataset} · {strip.patch}"


def data_uri(picture: RGB8) -> str:
    """``picture`` as WebP, inside an address."""
    buffer = BytesIO()
    Image.fromarray(picture).save(
        buffer, "WEBP", quality=82, method=2
    )  # not the smallest, but quick
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _read(run: Run, patch: str, path: Path, clicks: pd.DataFrame) -> Strip:
    try:
        with np.load(path, allow_pickle=False) as file:
            image, truth, masks, shown = (file[k] for k in ("image", "truth", "masks", "shown"))
    except (OSError, ValueError, KeyError) as error:
        raise HistoclickError(f"{path}: not readable ({error}); evaluate again") from None
    size = truth.shape
    if (
        image.shape != (*size, 3)
        or image.dtype != np.uint8
        or masks.shape != (len(shown), *size)
        or truth.dtype != np.bool_
        or masks.dtype != np.bool_
        or not set(shown.tolist()) <= set(clicks["click"]) | ({0} if run.started else set())
    ):
        raise HistoclickError(f"{path}: image, masks and clicks do not fit; evaluate again")
    order = np.argsort(shown)
    return Strip(run, patch, image, truth, masks[order], tuple(shown[order].tolist()), clicks)


def _canvas(strip: Strip) -> RGB8:
    """The patch, scaled to ``SIDE``, to paint on."""
    height, width = strip.truth.shape
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(strip.image, size, interpolation=way).astype(np.uint8)


def _fitted(mask: Mask, canvas: RGB8) -> Mask:
    height, width = canvas.shape[:2]
    soft = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(soft >= 0.5)


def _outline(canvas: RGB8, mask: Mask, colour: tuple[int, int, int], width: int) -> None:
    """The border of ``mask`` in colour, with a dark edge that keeps it visible on any tissue."""
    borders = _borders(mask, canvas)
    cv2.drawContours(canvas, borders, -1, SHADE, width + 2, cv2.LINE_AA)
    cv2.drawContours(canvas, borders, -1, colour, width, cv2.LINE_AA)


def _borders(mask: Mask, canvas: RGB8) -> list[Any]:
    """The borders of ``mask`` and of its holes, in pixels of ``canvas``, as OpenCV wants them.

    A mask goes on beyond the image, so the edge of the image is no border: the mask is continued
    far enough to draw that part of the line outside.
    """
    region = _fitted(mask, canvas).astype(np.uint8)
    wider = np.pad(region, BEYOND, mode="edge")
    offset = (-BEYOND, -BEYOND)
    borders, _ = cv2.findContours(wider, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=offset)
    return list(borders)


def _clicks(canvas: RGB8, strip: Strip, number: int) -> None:
    """All clicks up to ``number``, the newest one larger and on top."""
    scale = canvas.shape[1] / strip.truth.shape[1]
    until = strip.clicks[strip.clicks["click"] <= number].sort_values("click")
    for click, x, y, positive in zip(
        until["click"], until["x"], until["y"], until["positive"], strict=True
    ):
        # Pixel centres are whole numbers before and after scaling.
        at = tuple(round(((c + 0.5) * scale - 0.5) * 2**SUBPIXEL) for c in (x, y))
        radius = 9 if click == number else 7
        for size, colour in ((radius + 2, EDGE), (radius, POSITIVE if positive else NEGATIVE)):
            cv2.circle(canvas, at, size << SUBPIXEL, colour, -1, cv2.LINE_AA, SUBPIXEL)
