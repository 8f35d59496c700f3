"""Documents as people draw them, for hypothesis: holes, parts, islands, names of all alphabets."""

from __future__ import annotations

import math

import numpy as np
import shapely
from hypothesis import strategies as st
from shapely import LineString, MultiPoint, MultiPolygon, Point, Polygon, box
from shapely.affinity import scale, translate

from histoclick.annotations import Annotation, Document

SIZE_PX = 240  # everything lies inside
# A class has one colour, as in QuPath; ":" has a meaning there, "None" in ASAP.
COLOURS = {
    "": (10, 20, 30),
    "Tumor": (200, 0, 0),
    "Tumeur épithéliale": (0, 130, 60),
    "腫瘍 <&\"'>": (1, 2, 3),
    "Stroma: Ödem": (255, 255, 255),
    "Tumor hole": (0, 0, 0),
}
NAMES = ("", "", "lesion 3", "Läsion №7", "Annotation", "x" * 50)


def stars(radius: float = 20.0) -> st.SearchStrategy[Polygon]:
    """Around (0, 0), seen from there as a whole."""

    def star(radii: list[float]) -> Polygon:
        angles = [2 * math.pi * index / len(radii) for index in range(len(radii))]
        pairs = zip(radii, angles, strict=True)
        return Polygon([(r * radius * math.cos(a), r * radius * math.sin(a)) for r, a in pairs])

    return st.lists(st.floats(0.5, 1), min_size=3, max_size=12).map(star)


def ring_with(shell: Polygon, *holes: Polygon) -> Polygon:
    return Polygon(shell.exterior, [hole.exterior for hole in holes])


def square(x: float, y: float, side: float) -> Polygon:
    return box(x, y, x + side, y + side)


TOUCHING = ring_with(square(-12, -12, 24), square(-4, -4, 4), square(0, 0, 4))
AT_THE_BORDER = ring_with(square(-12, -12, 24), Polygon([(-12, 0), (-8, 3), (-8, -3)]))
CORNERS = MultiPolygon([square(-6, -6, 6), square(0, 0, 6), square(8, 8, 0.02)])
SPECKS = MultiPolygon([square(-10, 0, 0.01), square(10, 0, 0.05)])
ISLAND = MultiPolygon([ring_with(square(-15, -15, 30), square(-10, -10, 20)), square(-3, -3, 5)])


def regions() -> st.SearchStrategy[Polygon | MultiPolygon]:
    holed = st.builds(lambda s, h: ring_with(s, scale(h, 0.3, 0.3)), stars(), stars())
    parts = st.builds(lambda a, b: MultiPolygon([a, translate(b, 60, 0)]), holed, stars())
    drawn = st.sampled_from([TOUCHING, AT_THE_BORDER, CORNERS, SPECKS, ISLAND])
    return st.one_of(stars(), holed, parts, drawn)


def marks() -> st.SearchStrategy[Point | MultiPoint | LineString]:
    xy = st.tuples(st.floats(-20, 20), st.floats(-20, 20))
    several = st.lists(xy, min_size=2, max_size=5, unique=True)
    return st.one_of(xy.map(Point), several.map(MultiPoint), several.map(LineString))


@st.composite
def documents(draw: st.DrawFn, decimals: int, plain: bool = False) -> Document:
    """``decimals`` of all coordinates. ``plain``: without points and lines."""
    annotations = []
    for _ in range(draw(st.integers(0, 4))):
        shape = draw(regions() if plain else st.one_of(regions(), regions(), marks()))
        at = draw(st.tuples(st.floats(50, 130), st.floats(50, 190)))
        shape = translate(shape, *(round(value, decimals) for value in at))
        shape = shapely.transform(shape, lambda xy: np.round(xy, decimals))
        if not shape.is_valid or (shape.geom_type == "LineString" and shape.length < 1):
            continue  # rounding broke it
        label = draw(st.sampled_from(sorted(COLOURS)))
        name = draw(st.sampled_from(NAMES))
        annotations.append(Annotation(shape, label, COLOURS[label], name))
    return Document(tuple(annotations))
