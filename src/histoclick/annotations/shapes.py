"""Outlines of files become valid shapes here, and only here.

What can be mended is mended, what cannot is left out, and both are told in the document's notes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import LineString, MultiPoint, MultiPolygon, Point, Polygon
from shapely.geometry.base import BaseGeometry

from histoclick.annotations.document import Annotation, Canvas, Colour, Document, Shape
from histoclick.annotations.tangles import MAX_CROSSINGS, MAX_NEAR, Edges
from histoclick.types import HistoclickError

MAX_VERTICES = 5_000_000  # of a file: some 1 GB of memory while it is read
CURVE_ERROR_PX = 0.1  # between an ellipse and the polygon in its place
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

Vertices = NDArray[np.float64]  # (N, 2), x and y


class Gathering:
    """The objects of one file, while it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._annotations: list[Annotation] = []
        self._counts: dict[tuple[str, str], int] = {}
        self._first: dict[tuple[str, str], str] = {}
        self._vertices = 0
        self._crossings = 0.0
        self._skipped = 0

    def tell(self, sentence: str, where: str = "", noun: str = "object", count: int = 1) -> None:
        """Add to the notes; ``sentence`` has ``{}`` where the number of ``noun`` belongs."""
        key = sentence, noun
        self._counts[key] = self._counts.get(key, 0) + count
        if where:
            self._first.setdefault(key, where)

    def skip(self, why: str, where: str = "") -> None:
        """Leave an object out. ``why``: what it has, such as "no coordinates"."""
        self._skipped += 1
        self.tell("left out {} with " + why, where)

    def polygon(
        self, shell: Any, holes: Iterable[Any] = (), where: str = ""
    ) -> Polygon | MultiPolygon | None:
        """A valid shape from rings of (N, 2 or more) numbers, closed or not; ``None`` if skipped.

        Vertices stay as they are unless the outline crosses itself.
        """
        try:
            outer = self._ring(shell)
        except ValueError as error:
            self.skip(str(error), where)
            return None
        inner = []
        for hole in holes:
            try:
                inner.append(self._ring(hole))
            except ValueError as error:
                self.tell(f"left out {{}} with {error}", where, "hole")
        return self.mended(Polygon(outer, inner), where)

    def mended(self, shape: BaseGeometry, where: str = "") -> Polygon | MultiPolygon | None:
        """The same if it is valid, else a valid one of the same region; ``None`` if skipped."""
        if Edges.of(shape).near() > MAX_NEAR:
            self.skip("an outline too tangled to be looked at", where)
            return None
        if shape.is_valid and shape.area > 0:
            return shape
        self._crossings += Edges.of(shape).crossings()
        if self._crossings > MAX_CROSSINGS:
            self.skip("an outline that crosses itself too often to be mended", where)
            return None
        try:
            whole = shapely.make_valid(shape, method="structure", keep_collapsed=False)
        except shapely.errors.GEOSException:
            whole = Polygon()
        parts = [part for part in polygons(whole) if part.area > 0]
        if not parts:
            self.skip("no area", where)
            return None
        self.tell("mended {} with an outline that crosses or touches itself", where)
        return joined(parts)

    def points(self, coordinates: Any, where: str = "") -> Point | MultiPoint | None:
        """One or several points; ``None`` if skipped."""
        try:
            array = self._array(coordinates)
            if not len(array):
                raise ValueError("no points")
        except ValueError as error:
            self.skip(str(error), where)
            return None
        return Point(array[0]) if len(array) == 1 else MultiPoint(array)

    def line(self, coordinates: Any, where: str = "") -> LineString | None:
        """An open line; ``None`` if skipped."""
        try:
            array = _without_repeats(self._array(coordinates))
            if len(array) < 2:
                raise ValueError("fewer than 2 different points")
        except ValueError as error:
            self.skip(str(error), where)
            return None
        return LineString(array)

    def add(
        self, shape: Shape | None, label: str = "", colour: Colour | None = None, name: str = ""
    ) -> None:
        """One object; ``None`` is one that was skipped."""
        if shape is not None:
            self._annotations.append(Annotation(shape, plain(label), colour, plain(name)))

    def document(self, canvas: Canvas | None = None) -> Document:
        """All of them. Raises ``HistoclickError`` when there were some and all were skipped."""
        notes = tuple(self._sentence(*key) for key in self._counts)
        if self._skipped and not self._annotations:
            raise HistoclickError(
                f"{self._path}: nothing in it can be read ({'; '.join(notes)}); export it again, "
                "as outlines"
            )
        return Document(tuple(self._annotations), notes, canvas)

    def _sentence(self, sentence: str, noun: str) -> str:
        key = sentence, noun
        first = f" (the first: {self._first[key]})" if key in self._first else ""
        return sentence.format(counted(self._counts[key], noun)) + first

    def _array(self, coordinates: Any) -> Vertices:
        """(N, 2) finite floats. Raises ``ValueError`` saying what the object has instead."""
        try:
            array = np.asarray(coordinates, np.float64)
        except (TypeError, ValueError, OverflowError):
            raise ValueError("coordinates that are not numbers") from None
        if array.size == 0:
            array = array.reshape(0, 2)
        if array.ndim != 2 or array.shape[1] < 2:
            raise ValueError("coordinates that are not pairs of numbers")
        self._vertices += len(array)
        if self._vertices > MAX_VERTICES:
            raise HistoclickError(too_many(self._path))
        array = np.ascontiguousarray(array[:, :2])
        if not np.isfinite(array).all():
            raise ValueError("coordinates that are not finite numbers")
        if np.abs(array).max(initial=0) > 1e9:
            raise ValueError("coordinates beyond any slide")
        return array

    def _ring(self, coordinates: Any) -> Vertices:
        """Closed, without repeats."""
        array = _without_repeats(self._array(coordinates))
        if len(array) > 1 and (array[0] == array[-1]).all():
            array = array[:-1]
        if len(array) < 3:
            raise ValueError("fewer than 3 different points")
        return np.concatenate([array, array[:1]])


def too_many(path: Path) -> str:
    """The sentence of a file with more than ``MAX_VERTICES``."""
    return (
        f"{path}: more than {MAX_VERTICES} vertices; export it in parts, or simplify the outlines"
    )


def counted(count: int, noun: str) -> str:
    """Such as "1 object", "3 objects", "2 classes"."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}es" if noun.endswith("s") else f"{count} {noun}s"


def plain(text: str) -> str:
    """Without what XML or UTF-8 cannot hold: control characters, halves of surrogate pairs."""
    if text.isascii() and text.isprintable():
        return text.strip()
    return UNPRINTABLE.sub(" ", text).strip()


def polygons(shape: BaseGeometry) -> list[Polygon]:
    """All polygons in any geometry."""
    return [part for part in flat(shape) if isinstance(part, Polygon)]


def flat(shape: BaseGeometry) -> list[BaseGeometry]:
    """All single geometries in any geometry that are not empty."""
    if not hasattr(shape, "geoms"):
        return [] if shape.is_empty else [shape]
    return [part for member in shape.geoms for part in flat(member)]


def joined(parts: Sequence[Polygon]) -> Polygon | MultiPolygon:
    """One polygon as it is, several as one object."""
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def ellipse(
    x: float, y: float, radius_x: float, radius_y: float, rotation: float = 0.0
) -> Vertices:
    """(N, 2) vertices of an ellipse around (``x``, ``y``), in px.

    ``rotation``: radians, from x to y. The polygon lies within ``CURVE_ERROR_PX`` of the curve.
    """
    radius = max(radius_x, radius_y, 1.0)
    if not radius < 1e9:  # also when it is NaN
        return np.full((3, 2), np.nan)
    step = 2 * math.acos(1 - CURVE_ERROR_PX / radius)
    angles = np.linspace(0, 2 * np.pi, max(16, math.ceil(2 * np.pi / step)), endpoint=False)
    across, along = radius_x * np.cos(angles), radius_y * np.sin(angles)
    cos, sin = math.cos(rotation), math.sin(rotation)
    return np.stack([x + across * cos - along * sin, y + across * sin + along * cos], axis=1)


def box(x0: float, y0: float, x1: float, y1: float) -> Vertices:
    """(4, 2) corners of a rectangle."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)


def _without_repeats(array: Vertices) -> Vertices:
    if len(array) < 2:
        return array
    kept: Vertices = array[np.concatenate([[True], (array[1:] != array[:-1]).any(axis=1)])]
    return kept
