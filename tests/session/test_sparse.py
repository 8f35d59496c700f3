"""Masks as large as a slide, beside arrays that hold all of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from shapely import MultiPolygon, Polygon

from histoclick.geometry import Rect
from histoclick.masks import rasterise
from histoclick.session.sparse import SparseMask
from histoclick.session.windows import Grid, Window

WIDTH, HEIGHT = 900, 700
windows = st.tuples(
    st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1), st.integers(1, 400), st.integers(1, 400)
).map(lambda t: Window(t[0], t[1], min(t[2], WIDTH - t[0]), min(t[3], HEIGHT - t[1])))


@given(st.lists(st.tuples(windows, st.integers(0, 3)), max_size=6), windows)
def test_it_holds_what_was_put_into_it(changes: list[tuple[Window, int]], looked: Window) -> None:
    mask, whole = SparseMask(), np.zeros((HEIGHT, WIDTH), bool)
    for window, seed in changes:
        before, copy = mask, mask.crop(window)
        pixels = np.random.default_rng(seed).random((window.height, window.width)) < seed / 3
        mask = mask.replaced(window, pixels)
        whole[window.y : window.y1, window.x : window.x1] = pixels
        assert (before.crop(window) == copy).all()  # the old one is as it was
    assert (mask.crop(looked) == whole[looked.y : looked.y1, looked.x : looked.x1]).all()
    assert mask.area == whole.sum()


@given(windows, windows, windows)
def test_its_outline_is_that_of_its_pixels(a: Window, b: Window, hole: Window) -> None:
    mask = SparseMask()
    for window, inside in ((a, True), (b, True), (hole, False)):
        mask = mask.replaced(window, np.full((window.height, window.width), inside))
    grid = Grid(WIDTH, HEIGHT, 4.03, 4.01)
    shape = mask.outline(grid)
    whole = mask.crop(Window(0, 0, WIDTH, HEIGHT))
    if shape is None:
        assert not whole.any()
        return
    assert isinstance(shape, Polygon | MultiPolygon)
    assert shape.is_valid
    again = rasterise(shape, Rect(0, 0, WIDTH * 4.03, HEIGHT * 4.01), WIDTH, HEIGHT)
    assert (again == whole).all()
    assert np.isclose(shape.area, whole.sum() * 4.03 * 4.01)


def test_what_is_empty_takes_no_memory() -> None:
    mask = SparseMask().replaced(Window(10, 10, 600, 600), np.ones((600, 600), bool))
    assert len(mask.tiles) == 9
    assert not mask.replaced(Window(0, 0, 700, 700), np.zeros((700, 700), bool)).tiles
