"""All objects of a picture: clicks on a grid, each answered alone, and the best answers kept.

As SAM's automatic mask generator does it: answers that are unsure or that change much with the
threshold are dropped, as are those that run out of a crop, and of answers whose boxes overlap the
best one stays.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from histoclick.server.conversations import quality, stability
from histoclick.server.engine import Engine
from histoclick.server.scenes import Scene
from histoclick.session.windows import Window
from histoclick.types import Click, Mask, Prediction, Prompt

SECONDS = 60.0  # after which it ends with what it has


@dataclass(frozen=True)
class Wish:
    """What to look for; the names are SAM's.

    ``points_per_side``: of the grid. ``pred_iou_thresh``: of ``conversations.quality``.
    ``stability_score_thresh``, ``stability_score_offset``: of ``conversations.stability``, for
    models that estimate their quality; that of others is a stability already.
    ``box_nms_thresh``, ``crop_nms_thresh``: IoU of boxes from which two are one, inside a crop and
    between crops. ``crop_n_layers``: layer i looks at 2**i by 2**i crops, which overlap by
    ``crop_overlap_ratio`` of a side, with a grid ``crop_n_points_downscale_factor``**i coarser.
    ``min_mask_region_area``: px; smaller parts are dropped, smaller holes filled.
    ``include_image_edge``: whether objects at the edge of the picture count.
    """

    points_per_side: int = 16
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.2
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0
    include_image_edge: bool = False


@dataclass(frozen=True)
class Found:
    """An object: its mask, packed, in its own box of the scene."""

    window: Window
    packed: bytes
    quality: float

    @classmethod
    def of(cls, mask: Mask, at: Window, quality: float) -> Found:
        """``mask``: (H, W) bool of the window ``at``, not empty."""
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        y, x = int(ys[0]), int(xs[0])
        window = Window(at.x + x, at.y + y, int(xs[-1]) + 1 - x, int(ys[-1]) + 1 - y)
        bits = np.packbits(mask[y : y + window.height, x : x + window.width])
        return cls(window, zlib.compress(bits.tobytes(), 1), quality)

    @property
    def mask(self) -> Mask:
        """(height, width) bool of its window."""
        bits = np.frombuffer(zlib.decompress(self.packed), np.uint8)
        shape = self.window.height, self.window.width
        return np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(np.bool_)


def objects(
    engine: Engine, scene: Scene, wish: Wish, seconds: float = SECONDS
) -> tuple[list[Found], int]:
    """(objects, the best first; grid points that were left out when ``seconds`` were over).

    Points are visited in random order, so that what is left out is so everywhere alike.
    """
    end = time.monotonic() + seconds
    found: list[Found] = []
    left_out = 0
    for layer, crop in crops(scene, wish):
        count = max(1, wish.points_per_side // wish.crop_n_points_downscale_factor**layer)
        clicks = grid(crop, count)
        if time.monotonic() > end:
            left_out += len(clicks)
            continue
        key = f"sent {scene.key} {crop.x},{crop.y},{crop.width},{crop.height}"
        encoded = engine.embedding(key, lambda crop=crop: scene.part(crop))  # type: ignore[misc]
        here: list[Found] = []
        for index, click in enumerate(clicks):
            if time.monotonic() > end:
                left_out += len(clicks) - index
                break
            answer = engine.predict(encoded, Prompt((click,)), None)
            worth = quality(answer)
            if worth < wish.pred_iou_thresh or _unsteady(answer, wish):
                continue
            mask = without_specks(answer.mask, wish.min_mask_region_area)
            if mask.any() and not _at_edge(mask, crop, scene, wish.include_image_edge):
                here.append(Found.of(mask, crop, worth))
        found += kept(here, [each.quality for each in here], wish.box_nms_thresh)
    # Of two crops the smaller one saw more.
    sizes = [-float(each.window.width * each.window.height) for each in found]
    if wish.crop_n_layers:
        found = kept(found, sizes, wish.crop_nms_thresh)
    return sorted(found, key=lambda each: -each.quality), left_out


def crops(scene: Scene, wish: Wish) -> Iterator[tuple[int, Window]]:
    """(layer, crop): all of the scene, then its parts."""
    for layer in range(wish.crop_n_layers + 1):
        count = 2**layer
        overlap = int(wish.crop_overlap_ratio * min(scene.width, scene.height) * 2 / count)
        width = -(-(overlap * (count - 1) + scene.width) // count)
        height = -(-(overlap * (count - 1) + scene.height) // count)
        for row in range(count):
            for column in range(count):
                x, y = column * (width - overlap), row * (height - overlap)
                right, bottom = min(x + width, scene.width), min(y + height, scene.height)
                if x < right and y < bottom:
                    yield layer, Window(x, y, right - x, bottom - y)


def grid(crop: Window, count: int) -> list[Click]:
    """``count`` x ``count`` clicks in the frame of a crop, in random order; always the same."""
    places = [(index + 0.5) / count for index in range(count)]
    # Inside also where there are more clicks than px.
    xs, ys = (
        [max(0.0, min(p * n - 0.5, n - 1)) for p in places] for n in (crop.width, crop.height)
    )
    clicks = [Click(x, y) for y in ys for x in xs]
    return [clicks[i] for i in np.random.default_rng(0).permutation(len(clicks))]


def kept(found: Sequence[Found], ranks: Sequence[float], most: float) -> list[Found]:
    """Without those whose box has an IoU above ``most`` with the box of one of a higher rank."""
    chosen: list[Found] = []
    for index in sorted(range(len(found)), key=lambda index: -ranks[index]):
        candidate = found[index]
        if all(_iou(candidate.window, other.window) <= most for other in chosen):
            chosen.append(candidate)
    return chosen


def without_specks(mask: Mask, area: int) -> Mask:
    """Without holes and parts of fewer than ``area`` px; the largest part stays always."""
    if area < 2:
        return mask
    for value in (False, True):
        connectivity = 4 if value else 8
        _, label, stats, _ = cv2.connectedComponentsWithStats(
            (mask == value).astype(np.uint8), connectivity=connectivity
        )
        small = stats[:, cv2.CC_STAT_AREA] < area
        small[0] = False  # everything else
        if value and len(stats) > 1:
            small[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))] = False
        mask = np.where(small[label], not value, mask)
    return mask


def _unsteady(answer: Prediction, wish: Wish) -> bool:
    if answer.quality is None:
        return False
    steady = stability(answer.logits, wish.stability_score_offset)
    return steady < wish.stability_score_thresh


def _at_edge(mask: Mask, crop: Window, scene: Scene, include_image_edge: bool) -> bool:
    """Whether a mask touches an edge that may have cut its object off."""
    sides = (
        (mask[:, 0], crop.x == 0),
        (mask[0], crop.y == 0),
        (mask[:, -1], crop.x1 == scene.width),
        (mask[-1], crop.y1 == scene.height),
    )
    return any(line.any() and not (of_image and include_image_edge) for line, of_image in sides)


def _iou(one: Window, other: Window) -> float:
    both = one.meet(other)
    if both is None:
        return 0.0
    shared = both.width * both.height
    return shared / (one.width * one.height + other.width * other.height - shared)
