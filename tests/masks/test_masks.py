"""Polygons to masks and back."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage
from shapely import MultiPolygon, Polygon, affinity

from histoclick.geometry import Rect
from histoclick.masks import Painter, filling, rasterise, simplify, trace, tracing
from histoclick.types import HistoclickError


def image(rows: str) -> NDArray[np.uint8]:
    """A label image as one sees it; "." is background."""
    return np.array(
        [[0 if pixel == "." else int(pixel) for pixel in row] for row in rows.split()], np.uint8
    )


DONUT = image("111 1.1 111")
ISLAND = image("11111 1...1 1.1.1 1...1 11111")
ISLAND_OF_ANOTHER = image("11111 1...1 1.2.1 1...1 11111")
DIAGONAL = image("1. .1")
TOUCHING_HOLES = image("1111 1.11 11.1 1111")
HOLE_AT_THE_BORDER = image("111 1.1 11.")
HOLES_IN_A_CROSS = image("11111 11.11 1.1.1 11.11 11111")
CHECKERBOARD = (np.indices((5, 6)).sum(0) % 2).astype(np.uint8)
FRAMES = image("1111111 1.....1 1.111.1 1.1.1.1 1.111.1 1.....1 1111111")
EXAMPLES = {
    "donut": DONUT,
    "island": ISLAND,
    "island of another": ISLAND_OF_ANOTHER,
    "diagonal": DIAGONAL,
    "touching holes": TOUCHING_HOLES,
    "hole at the border": HOLE_AT_THE_BORDER,
    "holes in a cross": HOLES_IN_A_CROSS,
    "checkerboard": CHECKERBOARD,
    "frames": FRAMES,
    "one pixel": image("1"),
    "full": image("11 11"),
}


@st.composite
def labels(draw: st.DrawFn, side: int = 12, classes: int = 3) -> NDArray[np.uint8]:
    """Noise, or mostly 1: large pieces with holes that touch."""
    shape = draw(st.integers(1, side)), draw(st.integers(1, side))
    values = draw(arrays(np.uint8, shape, elements=st.integers(0, draw(st.integers(1, classes)))))
    if draw(st.booleans()):
        ones = draw(arrays(np.bool_, shape, fill=st.just(True)))
        values = np.where(ones, np.uint8(1), values)
    return values


def in_bands(image: NDArray[np.uint8], heights: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Cut into bands of these heights in turn."""
    bands, y = [], 0
    for height in itertools.cycle(heights):
        if y >= len(image):
            return bands
        bands.append(image[y : y + height])
        y += height
    raise AssertionError


def painted(pieces: dict[int, list[Polygon]], shape: tuple[int, int]) -> NDArray[np.uint16]:
    shapes = [piece for value in pieces for piece in pieces[value]]
    values = [value for value in pieces for _ in pieces[value]]
    return Painter(shapes, values).band(Rect(0, 0, shape[1], shape[0]), shape[1], shape[0])


@given(labels(), st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_traced_outlines_painted_are_the_mask(image: NDArray[np.uint8], heights: list[int]) -> None:
    pieces = trace(in_bands(image, heights))
    assert np.array_equal(painted(pieces, image.shape), image)
    for value, polygons in pieces.items():
        assert all(piece.is_valid for piece in polygons)
        assert len(polygons) == ndimage.label(image == value)[1]
        assert sum(piece.area for piece in polygons) == np.count_nonzero(image == value)
        for piece in polygons:
            assert np.array_equal(
                rasterise(piece, Rect(0, 0, image.shape[1], image.shape[0]), *image.shape[::-1]),
                slow_fill(piece, Rect(0, 0, image.shape[1], image.shape[0]), *image.shape[::-1]),
            )


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("height", [1, 2, 100])
def test_traced_as_the_union_of_squares(name: str, height: int) -> None:
    image = EXAMPLES[name]
    pieces = trace(in_bands(image, [height]))
    assert sorted(pieces) == sorted(set(image[image > 0].tolist()))
    for value, polygons in pieces.items():
        assert outlines(polygons) == outlines(slow_trace(image == value))


@given(labels(classes=1))
def test_traced_as_the_union_of_squares_whatever_the_mask(image: NDArray[np.uint8]) -> None:
    found = trace([image]).get(1, [])
    assert outlines(found) == outlines(slow_trace(image > 0))


def slow_trace(mask: NDArray[np.bool_]) -> list[Polygon]:
    """The union of the squares of each piece that hangs together by its sides."""
    numbers, count = ndimage.label(mask)
    pieces = []
    for number in range(1, count + 1):
        y, x = np.nonzero(numbers == number)
        piece = shapely.union_all(shapely.box(x, y, x + 1, y + 1))
        assert isinstance(piece, Polygon)
        pieces.append(piece)
    return pieces


def outlines(polygons: Sequence[Polygon]) -> set[tuple[frozenset[tuple[float, float]], ...]]:
    """The corners of each polygon's rings, the outer one first."""
    found = set()
    for piece in polygons:
        outer, *holes = ([*ring.coords] for ring in (piece.exterior, *piece.interiors))
        found.add((corners(outer), *sorted(map(corners, holes), key=sorted)))
    return found


def corners(ring: list[tuple[float, float]]) -> frozenset[tuple[float, float]]:
    """The vertices of a closed ring at which it turns."""
    open_ring = ring[:-1]
    turning = [
        b
        for a, b, c in zip(
            open_ring[-1:] + open_ring, open_ring, open_ring[1:] + ring[:1], strict=False
        )
        if (b[0] - a[0]) * (c[1] - b[1]) != (b[1] - a[1]) * (c[0] - b[0])
    ]
    return frozenset(turning)


@given(labels())
def test_only_corners_are_vertices_and_rings_turn_the_right_way(
    image: NDArray[np.uint8],
) -> None:
    for polygons in trace([image]).values():
        for piece in polygons:
            assert piece.exterior.is_ccw
            assert not any(hole.is_ccw for hole in piece.interiors)
            for ring in (piece.exterior, *piece.interiors):
                assert ring.is_simple
                assert len(corners([*ring.coords])) == len(ring.coords) - 1


def test_pieces_come_from_top_to_bottom() -> None:
    first, second, third = trace([image("..11 1..1 1...  ...1")])[1]
    assert first.bounds == (2, 0, 4, 2)
    assert second.bounds == (0, 1, 1, 3)
    assert third.bounds == (3, 3, 4, 4)


def test_what_meets_in_a_point_is_two_pieces_or_two_holes() -> None:
    one, other = trace([DIAGONAL])[1]
    assert one.intersection(other).equals(shapely.Point(1, 1))
    (piece,) = trace([TOUCHING_HOLES])[1]
    assert len(piece.interiors) == 2
    (piece,) = trace([HOLE_AT_THE_BORDER])[1]
    assert len(piece.interiors) == 1
    assert len(piece.exterior.coords) == 7
    assert len(trace([CHECKERBOARD])[1]) == 15


def test_an_island_in_a_hole_is_a_piece_of_its_own() -> None:
    frame, island = trace([ISLAND])[1]
    assert frame.area == 16
    assert island.area == 1
    assert list(trace([ISLAND_OF_ANOTHER])) == [1, 2]


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.int32, np.uint32])
def test_any_whole_numbers_can_be_traced(dtype: type) -> None:
    (piece,) = trace([DONUT.astype(dtype)])[1]
    assert piece.area == 8
    assert trace([np.array([[-3]], np.int32)]).keys() == {-3}


@pytest.mark.parametrize("bands", [[], [np.zeros((3, 4), np.uint8)], [np.zeros((0, 4), np.uint8)]])
def test_nothing_to_trace(bands: list[NDArray[np.uint8]]) -> None:
    assert trace(bands) == {}


def test_noise_is_refused_before_it_fills_memory() -> None:
    bands = itertools.repeat(CHECKERBOARD)
    with pytest.raises(HistoclickError, match="more than 1,000 corners"):
        trace(bands, corners=1000)


def test_wide_images_are_looked_at_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(5).integers(0, 3, (40, 40)).astype(np.uint8)
    whole = trace([image])
    monkeypatch.setattr(tracing, "_PIXELS", 100)
    monkeypatch.setattr(tracing, "_HOLES", 2)
    assert trace([image]) == whole


grid = st.floats(-20, 20).map(lambda value: round(value * 4) / 4)
points = st.tuples(grid, grid)


@st.composite
def polygons(draw: st.DrawFn) -> Polygon | MultiPolygon:
    """Stars, hulls, boxes and their differences and unions: holes and parts come by themselves."""
    shape: shapely.Geometry = Polygon()
    for _ in range(draw(st.integers(1, 4))):
        corners = draw(st.lists(points, min_size=3, max_size=8))
        piece = shapely.make_valid(Polygon(corners))
        shape = shape.symmetric_difference(piece)
    parts = [part for part in shapely.get_parts(shape) if isinstance(part, Polygon)]
    return MultiPolygon(parts) if len(parts) != 1 else parts[0]


rects = st.builds(
    Rect, st.floats(-25, 25), st.floats(-25, 25), st.floats(0.5, 60), st.floats(0.5, 60)
)
sides = st.integers(1, 40)


def slow_fill(
    shape: Polygon | MultiPolygon, rect0: Rect, width: int, height: int
) -> NDArray[np.bool_]:
    """Every centre asked one by one."""
    x, y = centres(rect0, width, height)
    found: NDArray[np.bool_] = shapely.contains_xy(shape, x, y)
    return found


def centres(rect0: Rect, width: int, height: int) -> tuple[NDArray[np.float64], ...]:
    x = rect0.x0 + (np.arange(width) + 0.5) * rect0.width / width
    y = rect0.y0 + (np.arange(height) + 0.5) * rect0.height / height
    return tuple(np.meshgrid(x, y))


@given(polygons(), rects, sides, sides)
@example(Polygon([(0, 0), (20, 0), (20, 20)]), Rect(0, 0, 20, 20), 20, 20)
def test_filled_as_every_centre_asked(
    shape: Polygon | MultiPolygon, rect0: Rect, width: int, height: int
) -> None:
    x, y = centres(rect0, width, height)
    clear = shapely.distance(shape.boundary, shapely.points(x, y)) > 1e-6  # NaN when empty
    clear |= shape.is_empty
    found = rasterise(shape, rect0, width, height)
    assert found.shape == (height, width)
    assert found.dtype == np.bool_
    assert np.array_equal(found[clear], slow_fill(shape, rect0, width, height)[clear])
    assert np.array_equal(Painter([shape], [1]).band(rect0, width, height) > 0, found)


@given(polygons(), points, points, st.integers(0, 2))
def test_polygons_with_a_common_border_share_no_pixel_and_leave_none(
    shape: Polygon | MultiPolygon, one: tuple[float, float], two: tuple[float, float], by: int
) -> None:
    """On a grid of quarters many centres lie exactly on borders: cut along lines and columns."""
    rect0 = Rect(-20, -20, 40, 40)
    x, y = one
    other = {0: shapely.box(-30, -30, x, 30), 1: shapely.box(-30, -30, 30, y)}.get(
        by, shapely.box(*np.minimum(one, two), *(np.maximum(one, two) + 1))
    )
    square = shapely.box(-20, -20, 20, 20)
    inside = rasterise(square.intersection(other), rect0, 80, 80)
    outside = rasterise(square.difference(other), rect0, 80, 80)
    assert not (inside & outside).any()
    assert (inside | outside).all()


@given(st.lists(points, min_size=3, max_size=30, unique=True))
def test_a_tiling_of_triangles_claims_every_pixel_once(corners: list[tuple[float, float]]) -> None:
    tiles = shapely.get_parts(shapely.delaunay_triangles(shapely.MultiPoint(corners)))
    rect0 = Rect(-20, -20, 40, 40)
    claims = sum(rasterise(tile, rect0, 80, 80).astype(int) for tile in tiles)
    x, y = centres(rect0, 80, 80)
    hull = shapely.MultiPoint(corners).convex_hull
    assume(isinstance(hull, Polygon))
    assert np.max(claims, initial=0) <= 1
    within = shapely.contains_xy(hull, x, y) & (
        shapely.distance(hull.boundary, shapely.points(x, y)) > 1e-6
    )
    assert np.all(np.broadcast_to(claims, within.shape)[within] == 1)


@given(
    st.lists(polygons(), min_size=1, max_size=6),
    st.integers(1, 7),
    st.sampled_from([1, 2, 0.5]),
)
def test_bands_and_windows_are_parts_of_the_whole(
    shapes: list[Polygon | MultiPolygon], rows: int, downsample: float
) -> None:
    painter = Painter(shapes, range(1, len(shapes) + 1))
    size = int(48 / downsample)
    whole = painter.band(Rect(-24, -24, 48, 48), size, size)
    expected = np.zeros((size, size), np.uint16)
    for value, shape in enumerate(shapes, 1):
        expected[rasterise(shape, Rect(-24, -24, 48, 48), size, size)] = value
    assert np.array_equal(whole, expected)
    for y in range(0, size, rows):
        height = min(rows, size - y)
        rect0 = Rect(
            -24 + 10 * downsample, -24 + y * downsample, 9 * downsample, height * downsample
        )
        assert np.array_equal(painter.band(rect0, 9, height), whole[y : y + height, 10:19])


def test_later_shapes_lie_over_earlier_ones_and_values_keep_their_type() -> None:
    below, above = shapely.box(0, 0, 3, 1), shapely.box(1, 0, 2, 1)
    values = np.array([70_000, 5], np.uint32)
    found = Painter([below, above], values).band(Rect(0, 0, 4, 1), 4, 1)
    assert found.dtype == np.uint32
    assert found.tolist() == [[70_000, 5, 70_000, 0]]
    assert Painter([above, below], [1, 2]).band(Rect(0, 0, 4, 1), 4, 1).tolist() == [[2, 2, 2, 0]]


def test_spans_tell_whose_pixels_are_hidden() -> None:
    painter = Painter([shapely.box(0, 0, 3, 2), shapely.box(0, 0, 3, 2)], [1, 2])
    (spans,) = painter.spans(Rect(0, 0, 3, 2), 3, 2)
    assert np.bincount(spans.shape, spans.end - spans.start).tolist() == [6, 6]


def test_no_shapes_paint_nothing() -> None:
    assert not Painter([], []).band(Rect(0, 0, 3, 2), 3, 2).any()
    assert not rasterise(MultiPolygon(), Rect(0, 0, 3, 2), 3, 2).any()
    with pytest.raises(ValueError, match="1 shapes have 2 values"):
        Painter([shapely.box(0, 0, 1, 1)], [1, 2])


def test_many_cuts_are_made_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    comb = shapely.union_all([shapely.box(x, 0, x + 1, 40) for x in range(0, 40, 2)])
    tall = [comb, affinity.rotate(comb, 30), shapely.box(3, 3, 5, 39)]
    rect0 = Rect(0, 0, 40, 40)
    masks = [rasterise(shape, rect0, 40, 40) for shape in tall]
    whole = Painter(tall, [1, 2, 3]).band(rect0, 40, 40)
    monkeypatch.setattr(filling, "_CUTS", 100)
    assert len(list(Painter(tall, [1, 2, 3]).spans(rect0, 40, 40))) > 10
    assert np.array_equal(Painter(tall, [1, 2, 3]).band(rect0, 40, 40), whole)
    for shape, mask in zip(tall, masks, strict=True):
        assert np.array_equal(rasterise(shape, rect0, 40, 40), mask)


@given(labels(side=30), st.floats(0.1, 6))
def test_simplified_within_the_tolerance(image: NDArray[np.uint8], tolerance_px: float) -> None:
    for polygons in trace([ndimage.median_filter(image, 3)]).values():
        shape = MultiPolygon(polygons)
        simple = simplify(shape, tolerance_px)
        assert simple.is_valid
        vertices = shapely.points(shapely.get_coordinates(shape))
        assert shapely.distance(simple.boundary, vertices).max() <= tolerance_px * (1 + 1e-9)
        assert shapely.get_num_geometries(simple) == len(polygons)
        holes = sum(len(piece.interiors) for piece in shapely.get_parts(simple))
        assert holes == sum(len(piece.interiors) for piece in polygons)


def test_rings_that_touch_are_simplified_as_well() -> None:
    assert simplify(MultiPolygon(), 1).is_empty
    for image in EXAMPLES.values():
        shape = MultiPolygon(trace([np.kron(image, np.ones((9, 9), np.uint8))])[1])
        assert simplify(shape, 0.5).equals(shape)


def test_a_slanted_border_becomes_a_line() -> None:
    triangle = Polygon([(0, 0), (200, 100), (0, 100)])
    (stairs,) = trace([rasterise(triangle, Rect(0, 0, 200, 100), 200, 100)])[1]
    assert len(stairs.exterior.coords) > 150
    assert len(simplify(stairs, 1).exterior.coords) < 10


LARGE = """
from pathlib import Path
import numpy as np
from shapely import Point, box
from histoclick.geometry import Rect
from histoclick.masks import Painter, trace

side, rows = 40_000, 250
random = np.random.default_rng(0)
holed = box(100, 100, 39_900, 39_900).difference(Point(20_000, 20_000).buffer(9_000, 2_000))
places = random.uniform(20, side - 50, (5000, 3)) / [1, 1, 999]
nuclei = [Point(x, y).buffer(r) for x, y, r in places]
painter = Painter([holed, *nuclei], [1] + [2] * 5000)
bands = (painter.band(Rect(0, y, side, rows), side, rows) for y in range(0, side, rows))
pieces = trace(bands)
back = Painter([p for v in pieces for p in pieces[v]], [v for v in pieces for _ in pieces[v]])
for y in (0, 11_000, 20_000, 39_750):
    window = Rect(0, y, side, rows)
    assert np.array_equal(back.band(window, side, rows), painter.band(window, side, rows))
peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
print(sum(map(len, pieces.values())), peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by Linux only")
def test_a_mask_of_40000_px_is_never_in_memory() -> None:
    """Its pixels would take 3.2 GB."""
    answer = subprocess.run(
        [sys.executable, "-c", LARGE], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(answer[0]) > 4000
    assert float(answer[1]) < 600
