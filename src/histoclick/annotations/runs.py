"""COCO's run lengths: masks column by column, as runs of background and object in turns.

A mask is never made as a whole: outlines become runs at once, and runs become outlines some columns
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from histoclick.geometry import Rect
from histoclick.masks import Painter, trace

PIXELS = 2**24  # of a mask that are there at the same time
LONGEST = 2**20  # px that an image may be wide or high
TIE_PX = 1e-7  # so that a centre on an outline falls as it does where masks are painted by rows
DIGITS = 13  # of 5 bits, in a count of 64

Counts = NDArray[np.int64]  # (n,) lengths of runs; the first one is background


def of_shape(shape: Polygon | MultiPolygon, width: int, height: int) -> Counts:
    """The runs of an image of ``width`` x ``height`` px; a pixel is in when its centre is."""
    turned = shapely.transform(shape, lambda xy: xy[:, ::-1] - (0, TIE_PX))  # rows are our columns
    bounds = [
        spans.row[:, None] * height + np.stack([spans.start, spans.end], axis=1)
        for spans in Painter([turned], [1]).spans(Rect(0, 0, height, width), height, width)
    ]
    inside = np.concatenate([np.empty((0, 2), np.int64), *bounds]).reshape(-1)  # start, end, ...
    meet = 1 + 2 * np.flatnonzero(inside[1:-1:2] == inside[2::2])  # going on in the next column
    inside = np.delete(inside, np.concatenate([meet, meet + 1]))
    counts: Counts = np.diff(inside, prepend=0, append=width * height)
    return counts


def polygons(counts: Counts, width: int, height: int) -> list[Polygon]:
    """The exact outlines of an image's pieces.

    Raises ``ValueError`` for runs that do not fit the image.
    """
    if not (0 < width <= LONGEST and 0 < height <= LONGEST):
        raise ValueError("an image of impossible size")
    bounds = np.cumsum(counts)
    if (counts < 0).any() or not len(bounds) or bounds[-1] != width * height:
        raise ValueError("run lengths that do not fit the image")
    start, end = bounds[:-1:2], bounds[1::2]
    start, end = start[start < end], end[start < end]
    if not len(start):
        return []
    column, top, bottom = _by_column(start, end, height)
    x0, y0 = int(column[0]), int(top.min())
    bands = _bands(column - x0, top - y0, bottom - y0)
    found = trace(bands).get(1, [])
    return [shapely.transform(p, lambda xy: xy[:, ::-1] + (x0, y0)) for p in found]


def extent(counts: Counts, height: int) -> int:
    """How many pixels have to be looked at to find the outlines, about."""
    bounds = np.cumsum(counts)
    if len(bounds) < 2 or height < 1:
        return 0
    return int((bounds[-2 if len(bounds) % 2 else -1] - bounds[0]) // height + 1) * height


def encoded(counts: Counts) -> str:
    """As COCO's compressed text: differences to the count before the last, 5 bits a character."""
    value = counts.copy()
    value[3:] -= counts[1:-2]
    digits = np.zeros((len(value), DIGITS), np.uint8)
    used = np.zeros((len(value), DIGITS), bool)
    going = np.ones(len(value), bool)
    for index in range(DIGITS):
        used[:, index] = going
        digit = value & 31
        value >>= 5
        going = going & (value != np.where(digit & 16, -1, 0))
        digits[:, index] = digit + 32 * going + 48
    return digits[used].tobytes().decode("ascii")


def decoded(text: str) -> Counts:
    """The inverse of ``encoded``. Raises ``ValueError`` for text that it never gives."""
    codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    if not len(codes) or (codes < 0).any() or (codes > 63).any() or codes[-1] & 32:
        raise ValueError("compressed run lengths that are damaged")
    last = np.flatnonzero(codes & 32 == 0)
    first = np.append(0, last[:-1] + 1)
    if (last - first).max() >= DIGITS:
        raise ValueError("compressed run lengths that are damaged")
    place = np.arange(len(codes)) - np.repeat(first, last - first + 1)
    value = np.add.reduceat((codes & 31) << (5 * place), first)
    negative = codes[last] & 16 > 0
    value[negative] -= 1 << (5 * (last - first + 1)[negative])
    value[1::2] = np.cumsum(value[1::2])
    value[2::2] = np.cumsum(value[2::2])
    return value


def _by_column(start: Counts, end: Counts, height: int) -> tuple[Counts, Counts, Counts]:
    """Runs cut where columns end: (m,) column, first row, and the row after the last."""
    first, last = start // height, (end - 1) // height
    count = last - first + 1
    run = np.repeat(np.arange(len(count)), count)
    column = first[run] + np.arange(len(run)) - np.repeat(np.cumsum(count) - count, count)
    top = np.where(column == first[run], start[run] % height, 0)
    bottom = np.where(column == last[run], (end[run] - 1) % height + 1, height)
    return column, top, bottom


def _bands(column: Counts, top: Counts, bottom: Counts) -> Iterator[NDArray[np.bool_]]:
    """Columns as the rows of (n, rows) masks, from left to right."""
    columns, rows = int(column[-1]) + 1, int(bottom.max())
    step = max(1, PIXELS // (rows + 1))
    for left in range(0, columns, step):
        right = min(columns, left + step)
        a, b = np.searchsorted(column, (left, right))
        toggles = np.zeros((right - left, rows + 1), np.int8)
        flat, base = toggles.reshape(-1), (column[a:b] - left) * (rows + 1)
        np.add.at(flat, base + top[a:b], 1)
        np.add.at(flat, base + bottom[a:b], -1)
        yield np.cumsum(toggles[:, :-1], axis=1, dtype=np.int8).view(np.bool_)
