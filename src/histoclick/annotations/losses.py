"""What a format cannot hold is taken out before it is written, and said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import LineString, MultiPoint, MultiPolygon, Point, Polygon
from shapely.geometry.base import BaseGeometry

from histoclick.annotations.document import Annotation, Document, Shape
from histoclick.annotations.format import Format, Holds
from histoclick.annotations.shapes import counted, flat, joined, plain, polygons

Step = Callable[[list[Annotation], Format], tuple[list[Annotation], list[str]]]


def fitted(document: Document, format_: Format) -> tuple[Document, list[str]]:
    """The document as ``format_`` can hold it, and a sentence for everything that it loses.

    Coordinates are rounded to the format's decimals; outlines stay valid.
    """
    annotations, losses = list(document.annotations), []
    for step in STEPS:
        annotations, said = step(annotations, format_)
        losses += said
    return replace(document, annotations=tuple(annotations)), losses


def _kinds(annotations: list[Annotation], format_: Format) -> tuple[list[Annotation], list[str]]:
    """Without points and lines, where there are none."""
    losses = []
    for part, types, noun in (
        (Holds.POINTS, (Point, MultiPoint), "point object"),
        (Holds.LINES, (LineString,), "line"),
    ):
        if part not in format_.holds:
            kept = [a for a in annotations if not isinstance(a.shape, types)]
            if lost := len(annotations) - len(kept):
                losses.append(f"{counted(lost, noun)} cannot be held by {format_.title}: left out")
            annotations = kept
    return annotations, losses


def _parts(annotations: list[Annotation], format_: Format) -> tuple[list[Annotation], list[str]]:
    """Each part as an object of its own, where objects have one part."""
    losses = []
    for part, type_, kind in (
        (Holds.PARTS, MultiPolygon, "several parts"),
        (Holds.POINT_SETS, MultiPoint, "several points"),
    ):
        if part in format_.holds:
            continue
        split: list[Annotation] = []
        whole = 0
        for annotation in annotations:
            if isinstance(annotation.shape, type_):
                whole += 1
                split += [replace(annotation, shape=piece) for piece in annotation.shape.geoms]
            else:
                split.append(annotation)
        if whole:
            pieces = len(split) - len(annotations) + whole
            losses.append(
                f"{counted(whole, 'object')} of {kind} cannot be held by {format_.title}: written "
                f"as {counted(pieces, 'object')}"
            )
        annotations = split
    return annotations, losses


def _holes(annotations: list[Annotation], format_: Format) -> tuple[list[Annotation], list[str]]:
    """Filled, where there are none."""
    if Holds.HOLES in format_.holds:
        return annotations, []
    holes, objects = 0, 0
    kept = []
    for annotation in annotations:
        count = sum(len(part.interiors) for part in polygons(annotation.shape))
        if count:
            holes, objects = holes + count, objects + 1
            filled = shapely.union_all([Polygon(p.exterior) for p in polygons(annotation.shape)])
            annotation = replace(annotation, shape=filled)
        kept.append(annotation)
    if not holes:
        return kept, []
    return kept, [
        f"{counted(holes, 'hole')} of {counted(objects, 'object')} cannot be held by "
        f"{format_.title}: filled"
    ]


def _words(annotations: list[Annotation], format_: Format) -> tuple[list[Annotation], list[str]]:
    """Without classes, colours and names, where there are none; and without what no file holds."""
    losses = []
    clean = [replace(a, label=plain(a.label), name=plain(a.name)) for a in annotations]
    pairs = zip(clean, annotations, strict=True)
    if changed := sum((a.label, a.name) != (b.label, b.name) for a, b in pairs):
        losses.append(
            f"{counted(changed, 'name')} with control characters or spaces around: without them"
        )
    for part, noun, lost, without in (
        (Holds.LABELS, "class", sum(bool(a.label) for a in clean), {"label": ""}),
        (Holds.COLOURS, "colour", sum(bool(a.colour) for a in clean), {"colour": None}),
        (Holds.NAMES, "name", sum(bool(a.name) for a in clean), {"name": ""}),
    ):
        if part not in format_.holds and lost:
            losses.append(
                f"the {noun} of {counted(lost, 'object')} cannot be held by {format_.title}: "
                "left out"
            )
            changes: dict[str, Any] = without
            clean = [replace(a, **changes) for a in clean]
    return clean, losses


def _objects(annotations: list[Annotation], format_: Format) -> tuple[list[Annotation], list[str]]:
    """Unchanged; says that a picture of classes does not tell objects apart.

    Which of them overlap is seen, and said, when the picture is painted.
    """
    labels = [a.label for a in annotations]
    if Holds.OBJECTS in format_.holds or len(labels) == len(set(labels)):
        return annotations, []
    return annotations, [
        f"{format_.title} holds regions of classes, not objects: objects of one class that touch "
        "become one"
    ]


def _decimals(annotations: list[Annotation], format_: Format) -> tuple[list[Annotation], list[str]]:
    """Rounded. Outlines that rounding would break are snapped to the grid as a whole."""
    if format_.decimals is None or not annotations:
        return annotations, []
    rounded = on_grid([a.shape for a in annotations], format_.decimals)
    kept = [
        replace(a, shape=shape)
        for a, shape in zip(annotations, rounded, strict=True)
        if shape is not None
    ]
    losses = []
    if lost := len(annotations) - len(kept):
        losses.append(
            f"{counted(lost, 'object')} too small for {format_.title}, which has "
            f"{counted(format_.decimals, 'decimal')}: left out"
        )
    before = sum(_pieces(a.shape) for a in annotations)
    after = sum(_pieces(a.shape) for a in kept) + sum(
        _pieces(a.shape) for a, shape in zip(annotations, rounded, strict=True) if shape is None
    )
    if before > after:
        losses.append(
            f"holes or parts that vanished or joined others in the "
            f"{counted(format_.decimals, 'decimal')} of {format_.title}: {before - after}"
        )
    # Snapping may cut a thin object into parts.
    split, said = _parts(kept, format_)
    return split, losses + said


def on_grid(shapes: list[Shape], decimals: int) -> list[Shape | None]:
    """Each with coordinates of so many decimals, valid; ``None`` where nothing is left."""
    array = np.array(shapes, object)
    rounded = shapely.transform(array, lambda xy: np.round(xy, decimals))
    changed = ~shapely.equals_exact(array, rounded)
    result: list[Shape | None] = list(array)
    for index in np.flatnonzero(changed):
        result[index] = _snapped(array[index], rounded[index], decimals)
    return result


def _snapped(shape: Shape, rounded: BaseGeometry, decimals: int) -> Shape | None:
    if isinstance(shape, Point | MultiPoint):
        return rounded
    if rounded.is_valid and not _repeats(rounded):
        return rounded
    snapped = shapely.set_precision(shape, 10.0**-decimals)
    snapped = shapely.transform(snapped, lambda xy: np.round(xy, decimals))
    wanted = LineString if isinstance(shape, LineString) else Polygon
    parts = [part for part in flat(snapped) if isinstance(part, wanted)]
    if not parts:
        return None
    if wanted is LineString:
        return max(parts, key=lambda part: float(part.length))
    whole = joined(parts)
    if whole.is_valid:
        return whole
    mended = polygons(shapely.make_valid(whole, method="structure", keep_collapsed=False))
    return joined(mended) if mended else None


def _repeats(shape: BaseGeometry) -> bool:
    """Whether two vertices in a row are the same, which readers would drop."""
    for part in flat(shape):
        for line in (part.exterior, *part.interiors) if isinstance(part, Polygon) else (part,):
            coordinates: NDArray[np.float64] = shapely.get_coordinates(line)
            if (coordinates[1:] == coordinates[:-1]).all(axis=1).any():
                return True
    return False


def _pieces(shape: Shape) -> int:
    return sum(1 + len(part.interiors) for part in polygons(shape))


STEPS: tuple[Step, ...] = (_words, _kinds, _parts, _holes, _decimals, _objects)
