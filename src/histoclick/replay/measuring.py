"""How good an object was after each click: its masks against what it should have been."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from histoclick.masks import Painter
from histoclick.metrics import FAR_PX
from histoclick.records import Row
from histoclick.replay.history import History
from histoclick.session import ClickOn, Grid, Item, Stroke, Window
from histoclick.session.layers import extent
from histoclick.session.sparse import TILE, SparseMask

BLOCK = 8 * TILE  # px: of a truth, painted at once
Area: TypeAlias = Polygon | MultiPolygon


@dataclass(frozen=True)
class Measured:
    """The clicks on one object. ``rows``: of ``clicks.parquet``, one for each click that stayed.

    ``iou``: of the object as it was left. ``clicks_iou``: of its clicks alone, without what was
    brushed or erased by hand.
    """

    rows: list[Row]
    iou: float
    clicks_iou: float


def measure(history: History, truth: Area | None) -> Measured:
    """Every click on an object that is there, has a working resolution and at least one click.

    ``truth``: what it should have been, px of level 0; ``None``: what it became in the end. All in
    working px of the object; ``x`` and ``y`` are counted from the corner of the slide and name
    pixels by their centre. The IoU after a click is that of all that clicks and boxes changed in
    the outline the object began with: what was painted by hand changes no IoU, and a click that
    leaves it as it is gets nothing for it.
    """
    last = history.item
    assert last is not None
    grid = _grid(last)
    wanted = last.mask if truth is None else painted(truth, grid)
    facts = [frame.event.facts for frame in history.clicks]
    # The time to encode is that of the object: most clicks find their window encoded.
    encode_seconds = sum(_seconds(each, "encode_seconds") for each in facts)
    rows: list[Row] = []
    mask = alone = SparseMask()
    start_iou = 0.0
    for frame in history.frames:
        before, action = mask, frame.event.action
        assert frame.item is not None  # else it would be deleted
        mask = _pixels(frame.item, grid)
        if isinstance(action, Stroke):
            continue
        if isinstance(action, ClickOn) and not rows:
            start_iou = iou(wanted, alone)
        alone = mask if alone is before else patched(alone, before, mask)
        if not isinstance(action, ClickOn):
            continue
        x, y = action.x / grid.scale_x - 0.5, action.y / grid.scale_y - 0.5
        flipped, far = flips(before, mask, x, y)
        rows.append(
            {
                "click": len(rows) + 1, "x": x, "y": y, "positive": action.positive,
                "iou": iou(wanted, alone), "quality": frame.event.facts.get("quality"),
                "start_iou": start_iou, "flipped": flipped,
                "far_flipped": far, "seconds": _seconds(frame.event.facts, "seconds"),
                "encode_seconds": encode_seconds,
            }
        )  # fmt: skip
    measured = Measured(rows, iou(wanted, mask), iou(wanted, alone))
    for frame in history.frames:
        if frame.item is not None:
            frame.item.forget()
    return measured


def patched(mask: SparseMask, before: SparseMask, after: SparseMask) -> SparseMask:
    """``mask`` with those pixels as in ``after`` that differ between ``before`` and ``after``."""
    patches = {}
    for place in _differing(before, after):
        old, new = before.tile(place), after.tile(place)
        patches[place] = np.where(old ^ new, new, mask.tile(place))
    kept = {place: tile for place, tile in mask.tiles.items() if place not in patches}
    return SparseMask({**kept, **SparseMask.of(patches).tiles})


def painted(shape: Area, grid: Grid) -> SparseMask:
    """The pixels whose centres lie in ``shape``, px of level 0."""
    mask, whole = SparseMask(), extent(shape, grid)
    if whole is None:
        return mask
    painter = Painter([shape], np.array([True]))
    for y in range(whole.y, whole.y1, BLOCK):
        for x in range(whole.x, whole.x1, BLOCK):
            part = Window(x, y, min(BLOCK, whole.x1 - x), min(BLOCK, whole.y1 - y))
            mask = mask.replaced(part, painter.band(grid.rect0(part), part.width, part.height))
    return mask


def iou(a: SparseMask, b: SparseMask) -> float:
    """Intersection over union, in [0, 1]; 0 when both are empty."""
    common = sum(
        int(np.count_nonzero(a.tile(place) & b.tile(place)))
        for place in a.tiles.keys() & b.tiles.keys()
    )
    union = a.area + b.area - common
    return common / union if union else 0.0


def _differing(a: SparseMask, b: SparseMask) -> list[tuple[int, int]]:
    places = a.tiles.keys() | b.tiles.keys()
    return [place for place in places if a.tiles.get(place) != b.tiles.get(place)]


def flips(before: SparseMask, after: SparseMask, x: float, y: float) -> tuple[int, int]:
    """How many pixels changed sides, and how many of those lie more than ``FAR_PX`` from a click.

    ``x``, ``y``: working px, whole numbers at centres.
    """
    flipped = near = 0
    for place in _differing(before, after):
        row, column = np.nonzero(before.tile(place) ^ after.tile(place))
        flipped += len(row)
        across, down = column + place[0] * TILE - round(x), row + place[1] * TILE - round(y)
        near += int(np.count_nonzero(across**2 + down**2 <= FAR_PX**2))
    return flipped, flipped - near


def closest(shape: Area, candidates: NDArray[Any]) -> Area | None:
    """The one of (n,) areas with the largest IoU, ``None`` if none meets the shape."""
    met = candidates[shapely.intersects(shapely.box(*shape.bounds), candidates)]
    if not len(met):
        return None
    common = shapely.area(shapely.intersection(shape, met))
    ious = common / (shapely.area(shape) + shapely.area(met) - common)
    best = int(np.argmax(ious))
    found: Area = met[best]
    return found if ious[best] > 0 else None


def _pixels(item: Item, grid: Grid) -> SparseMask:
    """The mask, also of an object from a file that nobody has worked on yet."""
    if item.grid is not None:
        return item.mask
    shape = item.imported
    return painted(shape, grid) if isinstance(shape, Polygon | MultiPolygon) else SparseMask()


def _grid(item: Item | None) -> Grid:
    assert item is not None
    assert item.grid is not None
    return item.grid


def _seconds(facts: Mapping[str, Any], name: str) -> float:
    return float(facts.get(name, float("nan")))
