"""What lies where on a phantom slide: pieces of tissue, lymph nodes, follicles and lesions.

All of it is drawn on a coarse grid of the whole slide, a few um to the pixel and never more than
``_SIDE`` squared of them, whatever the size of the slide. The outlines of the tumour are lines
through that grid: polygons first, and everything else, picture and masks, is made from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

import contourpy
import numpy as np
import shapely
from shapely import Polygon

from histoclick.datasets.lattice import Field, Line, Window, remap, smooth, soft_step
from histoclick.datasets.section import nests
from histoclick.datasets.stroma import Ground
from histoclick.datasets.style import Style
from histoclick.types import Mask

_STEP = 4.0  # um per px of the grid, or more on large slides
_SIDE = 2500  # px; of a square grid at most
_FREE = -4.0  # of a field that is positive in tumour
_ISLAND, _HOLE = 2500.0, 2000.0  # um^2; smaller ones are left out of the tumour's outlines


@dataclass(frozen=True)
class Specimen:
    """The coarse picture of a slide; fields are (H, W) float32 of ``step`` um per px.

    ``inside``: um to the glass, negative on it. ``capsule``: um to the capsule's middle. ``loose``,
    ``lymphoid``, ``germinal``: as in ``Ground``. ``tumour``: its outlines, in um of the slide.
    """

    seed: int
    style: Style
    step: float
    inside: Field
    capsule: Field
    lymphoid: Field
    germinal: Field
    loose: Field
    tumour: tuple[Polygon, ...]

    @classmethod
    def draw(cls, seed: int, width: float, height: float) -> Specimen:
        """A random one on glass of ``width`` x ``height`` um."""
        rng = np.random.default_rng([seed, 1])
        step = max(_STEP, math.sqrt(width * height) / _SIDE)
        window = Window(seed, 0, 0, math.ceil(width / step), math.ceil(height / step), step)
        style = Style.draw(np.random.default_rng(seed))
        style = replace(style, glandular=float(rng.choice([0.0, 0.25, 0.5], p=[0.6, 0.2, 0.2])))
        pieces = _Piece.scatter(rng, width, height)
        inside = _distance(window, _tissue(window, pieces, width, height) > 0)
        size = min(piece.radius for piece in pieces)
        band = np.clip(0.09 * size * (window.noise("hilum", 0.5 * size, 2) + 0.3), 0, 400)
        capsule = _distance(window, inside > band) - 14
        tumour: tuple[Polygon, ...] = ()
        while not tumour:  # on little glass a lesion may come out too small to be one
            lesions = _lesions(window, style, rng, capsule, size)
            tumour = _outlines(window, np.minimum(lesions, (capsule - 25) / 20))
        cortex, germinal, loose = _node(window, capsule)
        near = soft_step(window.smooth(lesions, 60), -2.5, 3)  # reacts with fibres
        lymphoid = cortex * (1 - rng.uniform(0.2, 1) * near)
        return cls(seed, style, step, inside, capsule, lymphoid, germinal, loose, tumour)

    def inside_at(self, window: Window) -> Field:
        """(H, W) ``inside`` of a window of the slide."""
        return self._at(window, self.inside)[0]

    def ground(self, window: Window) -> Ground:
        """All of it for a window of the slide."""
        inside, capsule, lymphoid, germinal, loose = self._at(
            window, self.inside, self.capsule, self.lymphoid, self.germinal, self.loose
        )
        capsule = capsule + 5 * window.noise("capsule", 60, 2)
        outside = soft_step(-capsule, 0, 20)
        return Ground(
            inside, capsule, lymphoid, germinal, fat=6 * outside - 2, loose=loose + outside
        )

    def _at(self, window: Window, *fields: Field) -> list[Field]:
        """Fields looked up at the pixels of a window."""
        scale = window.um / self.step
        x, y = (
            ((start + np.arange(count) + 0.5) * scale - 0.5).astype(np.float32)
            for start, count in ((window.x0, window.width), (window.y0, window.height))
        )
        xs, ys = (np.ascontiguousarray(grid) for grid in np.meshgrid(x, y))
        return [remap(field, xs, ys) for field in fields]


@dataclass(frozen=True)
class _Piece:
    """An ellipse of tissue, um."""

    x: float
    y: float
    long: float
    wide: float
    angle: float

    @property
    def radius(self) -> float:
        return min(self.long, self.wide)

    @classmethod
    def scatter(cls, rng: np.random.Generator, width: float, height: float) -> list[_Piece]:
        """One to three side by side along the longer side of the slide."""
        ratio = max(width, height) / min(width, height)
        count = int(np.clip(rng.integers(1, 3) * round(ratio), 1, 4))
        pieces = []
        for index in range(count):
            cell_w, cell_h = (width / count, height) if width >= height else (width, height / count)
            x0, y0 = (index * cell_w, 0.0) if width >= height else (0.0, index * cell_h)
            long, wide = rng.uniform(0.30, 0.38) * cell_w, rng.uniform(0.30, 0.38) * cell_h
            x, y = x0 + rng.uniform(0.46, 0.54) * cell_w, y0 + rng.uniform(0.46, 0.54) * cell_h
            pieces.append(cls(x, y, long, wide, rng.uniform(-0.25, 0.25)))
        return pieces


def _tissue(window: Window, pieces: list[_Piece], width: float, height: float) -> Field:
    """Positive where there is tissue."""
    x, y = ((a + 0.5) * np.float32(window.um) for a in window.grid)
    total = np.full(x.shape, -1, np.float32)
    for index, piece in enumerate(pieces):
        cos, sin = math.cos(piece.angle), math.sin(piece.angle)
        u, v = x - piece.x, y - piece.y
        radius = np.hypot((u * cos + v * sin) / piece.long, (v * cos - u * sin) / piece.wide)
        rough = window.noise(f"piece {index}", 0.9 * piece.radius, 4)
        total = np.maximum(total, 1 - radius + 0.16 * rough)
    border = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y))
    return np.asarray(total - 1.5 * np.exp(-border / (0.035 * min(width, height))))


def _distance(window: Window, region: Mask) -> Field:
    """Um to the border of ``region``, positive in it."""
    signed = window.distance_to(~region) - window.distance_to(region)
    return smooth(np.clip(signed, -3e4, 3e4), 1.2)


def _lesions(
    window: Window, style: Style, rng: np.random.Generator, capsule: Field, size: float
) -> Field:
    """Positive in tumour: a few large lesions, made of nests and with normal tissue left in them,
    and small islands."""
    field = nests(window, style)
    level = np.quantile(field, 1 - rng.uniform(0.7, 0.92))
    total = np.full(field.shape, _FREE, np.float32)
    large = rng.uniform(0.3, 0.6, rng.integers(1, 4)) * size
    middle = rng.uniform(0.1, 0.2, rng.integers(1, 5)) * size
    small = np.minimum(rng.uniform(50, 160, rng.integers(3, 9)), 0.12 * size)
    for index, radius in enumerate([*large, *middle, *small]):
        room = np.flatnonzero(capsule > min(0.7 * radius + 30, 0.8 * float(capsule.max())))
        row, column = divmod(int(rng.choice(room)), window.width)
        there, depth = _blob(window, f"lesion {index}", row, column, radius)
        rows, columns = _slices(window, there)
        part = field[rows, columns]
        if radius < 120:
            here = depth / 30 + 0.3 * part
        else:
            here = part - level + np.interp(depth, [-150, 0, 120], [_FREE, -0.7, 0])
        total[rows, columns] = np.maximum(total[rows, columns], here)
        for spared in range(rng.integers(1, 5) if radius >= 120 else 0):
            reach, turn = 0.6 * radius * rng.uniform(0, 1) / window.um, 2 * math.pi * rng.uniform()
            y, x = row + round(reach * math.sin(turn)), column + round(reach * math.cos(turn))
            side = max(rng.uniform(0.12, 0.26) * radius, 32)
            if not (0 <= y < window.height and 0 <= x < window.width):
                continue
            there, depth = _blob(window, f"spared {index} {spared}", y, x, side)
            part = total[_slices(window, there)]
            np.minimum(part, -depth / 15, out=part)
    return window.smooth(total, max(6.0, window.um))


def _blob(window: Window, name: str, row: int, column: int, radius: float) -> tuple[Window, Field]:
    """A dented disk: where it is, and how deep in it each pixel of that is, um."""
    reach = math.ceil(1.8 * radius / window.um) + 2
    top, left = max(row - reach, 0), max(column - reach, 0)
    height = min(row + reach, window.height) - top
    there = Window(
        window.seed, left, top, min(column + reach, window.width) - left, height, window.um
    )
    x, y = there.grid
    away = np.hypot(x + left - column, y + top - row) * np.float32(window.um)
    return there, radius * (1 + 0.3 * there.noise(name, 0.8 * radius, 3)) - away


def _slices(window: Window, part: Window) -> tuple[slice, slice]:
    """Rows and columns of ``window`` that ``part`` covers."""
    top, left = part.y0 - window.y0, part.x0 - window.x0
    return slice(top, top + part.height), slice(left, left + part.width)


def _outlines(window: Window, field: Field) -> tuple[Polygon, ...]:
    """Where ``field`` is positive, in um: no specks, no pinholes, no islands in holes."""
    x, y = ((np.arange(n) + 0.5) * window.um for n in (window.width, window.height))
    fill = contourpy.FillType.OuterOffset
    lines = contourpy.contour_generator(x, y, field, fill_type=fill).filled(0, np.inf)
    points, offsets = cast(tuple[list[Line], list[list[int]]], lines)
    polygons = []
    for ring_points, ends in zip(points, offsets, strict=True):
        rings = [ring_points[a:b] for a, b in pairwise(ends)]
        holes = [ring for ring in rings[1:] if Polygon(ring).area >= _HOLE]
        polygon = Polygon(rings[0], holes)
        if polygon.area >= _ISLAND:
            polygons.append(polygon)
    holes = [Polygon(ring) for polygon in polygons for ring in polygon.interiors]
    centres = np.array([polygon.representative_point() for polygon in polygons], dtype=object)
    inner, _ = shapely.STRtree(holes).query(centres, predicate="within")
    kept = [polygon for i, polygon in enumerate(polygons) if i not in set(inner.tolist())]
    kept = [shapely.simplify(polygon, 0.6) for polygon in kept]
    return tuple(sorted(kept, key=lambda polygon: -polygon.area))


def _node(window: Window, capsule: Field) -> tuple[Field, Field, Field]:
    """Of a lymph node: how lymphoid, centres of follicles, and how loose (sinuses)."""
    spots = window.points("follicle", 430)
    owner, _ = window.voronoi(spots)
    x, y = window.grid
    away = np.hypot(x - spots.x.astype(np.float32)[owner], y - spots.y.astype(np.float32)[owner])
    radius = 70 + 100 * spots.dice[1]
    deep = capsule[spots.at]
    present = (spots.dice[2] < 0.75) & (deep > 0.9 * radius) & (deep < 500 + 900 * spots.dice[3])
    bent = away * np.float32(window.um) * (1 + 0.12 * window.noise("follicle", 90))
    distance = bent / np.where(present, radius, 1)[owner].astype(np.float32)
    germinal = soft_step(-distance, -0.72, 0.2) * present[owner]
    mantle = soft_step(-distance, -1.1, 0.2) * present[owner]
    ridge = np.exp(-((window.noise("sinus", 190, 2) / 0.13) ** 2))
    medulla = soft_step(window.noise("medulla", 700), 0.3, 1) * soft_step(capsule, 350, 300)
    under = np.exp(-(((capsule - 34) / 10) ** 2))  # the sinus below the capsule
    sinus = np.maximum(ridge * medulla, 0.8 * under) * (1 - mantle)
    cords = 0.82 + 0.08 * window.noise("cords", 160, 2)
    lymphoid = np.maximum(np.clip(cords - 0.75 * sinus, 0, 1), mantle) * soft_step(capsule, 26, 14)
    return (
        lymphoid.astype(np.float32),
        germinal.astype(np.float32),
        (1.2 * sinus).astype(np.float32),
    )
