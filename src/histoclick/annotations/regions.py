"""What formats have in common whose objects are pixels: classes as numbers, painted and traced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from histoclick.annotations.colours import of_classes
from histoclick.annotations.document import Annotation, Canvas, Colour, Document
from histoclick.annotations.shapes import counted
from histoclick.geometry import Rect
from histoclick.masks import Painter
from histoclick.types import HistoclickError

MAX_VALUE = 65535


@dataclass(frozen=True)
class ValueClass:
    """A class as a number. ``colour``: if any of its objects has one."""

    value: int
    label: str
    colour: Colour | None


def classes_of(document: Document) -> tuple[list[ValueClass], list[str]]:
    """The classes of a document by value, and what was lost.

    Labels that are numbers all, as a mask without names is read, keep them as values; else values
    count from 1 in the order of the document.
    """
    labels = document.labels
    if len(labels) > MAX_VALUE:
        raise HistoclickError(
            f"there are {len(labels)} classes; a mask holds {MAX_VALUE}: choose another format"
        )
    numbers = [int(label) if label.isascii() and label.isdigit() else 0 for label in labels]
    own = all(
        0 < number <= MAX_VALUE and str(number) == label
        for number, label in zip(numbers, labels, strict=True)
    )
    values = numbers if own else range(1, len(labels) + 1)
    colours, losses = of_classes(document)
    coloured = {a.label for a in document.annotations if a.colour is not None}
    classes = [
        ValueClass(value, label, colours[label] if label in coloured else None)
        for value, label in zip(values, labels, strict=True)
    ]
    return sorted(classes, key=lambda one: one.value), losses


class Painting:
    """The annotations of a document as values of classes, painted from top to bottom.

    Later ones lie over earlier ones. What became of the objects is known at the end.
    """

    def __init__(self, document: Document, classes: Iterable[ValueClass], canvas: Canvas) -> None:
        annotations = [
            a for a in document.annotations if isinstance(a.shape, Polygon | MultiPolygon)
        ]
        by_label = {one.label: one.value for one in classes}
        values = [0, *(by_label[a.label] for a in annotations)]
        self._values = np.array(values, np.uint8 if max(values) < 256 else np.uint16)
        self._shapes = [a.shape for a in annotations]
        self._canvas = canvas
        self._own = np.zeros(len(annotations), np.int64)  # pixels of each, and those in sight
        self._seen = np.zeros(len(annotations), np.int64)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the bands: uint8, or uint16 for large values."""
        return self._values.dtype

    def bands(self, rows: int = 256) -> Iterator[NDArray[Any]]:
        """(h, W) values of the whole canvas, once."""
        count = len(self._shapes)
        numbers = np.arange(1, count + 1, dtype=np.uint32)
        painter = Painter(self._shapes, numbers)
        width, height = self._canvas.width, self._canvas.height
        for y in range(0, height, rows):
            some = min(rows, height - y)
            number = np.zeros((some, width), np.uint32)  # of the object on top, from 1
            own = np.zeros(count, np.int64)
            for spans in painter.spans(Rect(0, y, width, some), width, some):
                spans.paint(number, numbers)
                own += np.bincount(spans.shape, spans.end - spans.start, count).astype(np.int64)
            self._own += own
            overlap = np.count_nonzero(number) < own.sum()
            self._seen += np.bincount(number.ravel(), minlength=count + 1)[1:] if overlap else own
            yield self._values[number]

    def losses(self) -> list[str]:
        """What the pixels do not show, a sentence each."""
        losses = []
        for lost, noun in (
            (self._own == 0, "no pixel's centre lies in {}: left out"),
            ((self._own > 0) & (self._seen == 0), "{} hidden by later ones as a whole: left out"),
            ((self._seen > 0) & (self._seen < self._own), "{} hidden by later ones in part"),
        ):
            if count := np.count_nonzero(lost):
                losses.append(noun.format(counted(int(count), "object")))
        x0, y0, x1, y1 = shapely.bounds(np.array(self._shapes, object)).T
        beyond = (x0 < 0) | (y0 < 0) | (x1 > self._canvas.width) | (y1 > self._canvas.height)
        if count := np.count_nonzero(beyond):
            losses.append(
                f"{counted(int(count), 'object')} beyond the border of the slide: cut off there"
            )
        return losses


def annotations_of(
    pieces: Mapping[int, Sequence[Polygon]],
    labels: Mapping[int, str | None],
    colours: Mapping[int, Colour | None],
) -> tuple[Annotation, ...]:
    """One annotation for each traced piece.

    ``labels``, ``colours``: by value. A value without a label is called by its number, and "object"
    if it is 1 or 255 and the only one: that is how masks of a single class are written.
    """
    alone = len(pieces) == 1 and next(iter(pieces)) in (1, 255)
    found = []
    for value, polygons in pieces.items():
        label = labels.get(value)
        if label is None:
            label = "object" if alone else str(value)
        found += [Annotation(piece, label, colours.get(value)) for piece in polygons]
    return tuple(found)


def on_canvas(
    path: Path, annotations: tuple[Annotation, ...], width: int, height: int, canvas: Canvas
) -> tuple[Annotation, ...]:
    """Annotations of a mask of ``width`` x ``height`` px, in px of the slide.

    A mask may be a smaller copy, as of a lower level; then one px is several of the slide's.
    """
    if (width, height) == (canvas.width, canvas.height):
        return annotations
    x, y = canvas.width / width, canvas.height / height
    # Sides are rounded, up or down, when a copy is made.
    if x < 1 or y < 1 or abs(x - y) > x / width + y / height:
        raise HistoclickError(
            f"{path}: the mask has {width}x{height} px and the slide "
            f"{canvas.width}x{canvas.height}; give the mask of this slide"
        )
    whole = round(x)
    if whole == round(y) and abs(x - whole) * width < whole and abs(y - whole) * height < whole:
        x, y = whole, whole
    shapes = np.array([a.shape for a in annotations], object)
    shapes = shapely.transform(shapes, lambda xy: xy * (x, y))
    return tuple(replace(a, shape=s) for a, s in zip(annotations, shapes, strict=True))
