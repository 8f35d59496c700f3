"""The cells that are looked at, and the PNG files that are written."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from shapely import MultiPoint, Polygon, box

from histoclick.datasets.cases import Layer
from histoclick.geometry import Rect
from histoclick.prepare.cutting import encode
from histoclick.prepare.grid import Grid

NUMBER = st.floats(-50, 350)


@given(
    st.lists(st.tuples(NUMBER, NUMBER), min_size=3, max_size=8),
    st.floats(20, 90),
    st.sampled_from([0.25, 0.7, 1.0, 1.5]),
    st.booleans(),
)
def test_no_cell_with_an_outline_is_missed(
    points: list[tuple[float, float]], size: float, scale: float, inside: bool
) -> None:
    shape = MultiPoint(points).convex_hull
    if not isinstance(shape, Polygon) or shape.area < 1:
        return
    grid = Grid(Rect(7, 3, 300, 240), size, 0.8 * size, size * scale, 0.8 * size * scale)
    found = list(grid.corners([Layer(shape)], inside=inside))
    assert len(found) == len(set(found))
    rows, columns = grid.shape
    everywhere = {
        (round(7 + c * grid.step_x), round(3 + r * grid.step_y))
        for r in range(rows)
        for c in range(columns)
    }
    assert set(found) <= everywhere
    for x, y in everywhere - set(found):
        cell = box(x, y, x + grid.width, y + grid.height)
        assert not shape.exterior.intersects(cell)
        assert not (inside and shape.intersects(cell))


def test_cells_lie_within_the_bounds() -> None:
    grid = Grid(Rect(10, 20, 100, 49.9), 50, 50, 25, 25)
    assert grid.shape == (0, 3)
    assert not list(grid.corners([Layer(box(0, 0, 100, 100))], inside=True))
    grid = Grid(Rect(10, 20, 100, 50), 50, 50, 25, 25)
    everywhere = list(grid.corners([Layer(box(0, 0, 100, 100))], inside=True))
    assert everywhere == [(10, 20), (35, 20), (60, 20)]


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30), st.just(3))))
def test_images_are_png_files(image: np.ndarray) -> None:
    with Image.open(io.BytesIO(encode(image))) as read:
        assert read.mode == "RGB"
        read.verify()
    with Image.open(io.BytesIO(encode(image))) as read:
        np.testing.assert_array_equal(np.asarray(read), image)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (400, 400)])
def test_masks_are_png_files_of_one_channel(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.5
    with Image.open(io.BytesIO(encode(mask))) as read:
        assert read.mode == "L"
        np.testing.assert_array_equal(np.asarray(read), mask * np.uint8(255))
