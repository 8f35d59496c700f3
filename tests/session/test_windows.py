"""Where the model looks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from histoclick.geometry import Rect
from histoclick.session.windows import INNER, Grid, Window

grids = st.builds(
    Grid,
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.sampled_from([1.0, 2.0, 0.5, 4.03]),
    st.sampled_from([1.0, 2.0, 0.5, 4.01]),
)
shares = st.floats(0, 0.999)
sides = st.sampled_from([64, 100, 448])


@given(grids, shares, shares, sides)
def test_a_new_window_lies_on_the_slide_and_its_click_far_from_its_borders(
    grid: Grid, across: float, down: float, side: int
) -> None:
    x, y = across * grid.width, down * grid.height
    for window in (grid.nearest(x, y, side), grid.centred(x, y, side)):
        assert window.x >= 0
        assert window.y >= 0
        assert window.x1 <= grid.width
        assert window.y1 <= grid.height
        assert grid.is_inner(window, x, y, side)
        for first, last, place, extent in (
            (window.x, window.x1, x, grid.width),
            (window.y, window.y1, y, grid.height),
        ):
            assert first == 0 or place - first >= side / 4 - 1
            assert last == extent or last - place >= side / 4 - 1
    assert grid.choose([], x, y, side) == grid.nearest(x, y, side)


@given(grids, st.tuples(shares, shares), st.tuples(shares, shares), st.data())
def test_every_window_that_a_click_in_a_view_needs_is_encoded_ahead(
    grid: Grid, corner: tuple[float, float], size: tuple[float, float], data: st.DataObject
) -> None:
    x, y = corner[0] * grid.width * grid.scale_x, corner[1] * grid.height * grid.scale_y
    view = Rect(x, y, 1 + size[0] * 3000, 1 + size[1] * 3000)
    ahead = list(grid.ahead(view, 64))
    assert len(set(ahead)) == len(ahead)
    click_x = data.draw(st.floats(view.x0, view.x1)) / grid.scale_x
    click_y = data.draw(st.floats(view.y0, view.y1)) / grid.scale_y
    if click_x < grid.width and click_y < grid.height:
        assert grid.nearest(click_x, click_y, 64) in ahead


@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=6), shares, shares)
def test_a_window_in_use_is_kept_while_clicks_stay_well_inside(
    centres: list[tuple[float, float]], across: float, down: float
) -> None:
    grid, side = Grid(1000, 800, 1, 1), 128
    used = [grid.nearest(x * 1000, y * 800, side) for x, y in centres]
    x, y = across * 1000, down * 800
    chosen = grid.choose(used, x, y, side)
    fitting = [window for window in used if grid.is_inner(window, x, y, side)]
    assert chosen == (fitting[0] if fitting else grid.nearest(x, y, side))


def test_well_inside_is_an_eighth_away_from_borders_but_not_from_the_slides() -> None:
    grid, side = Grid(1000, 1000, 1, 1), 80
    window = Window(400, 0, side, side)
    assert grid.is_inner(window, 400 + side / INNER, 0, side)
    assert not grid.is_inner(window, 400 + side / INNER - 0.01, 0, side)
    assert not grid.is_inner(window, 440, side - side / INNER, side)


def test_a_picture_not_much_larger_than_a_window_is_one_window() -> None:
    assert Grid(512, 400, 1, 1).nearest(500, 10, 448) == Window(0, 0, 512, 400)
    assert Grid(600, 400, 1, 1).nearest(500, 10, 448) == Window(152, 0, 448, 400)


@given(grids, shares, shares)
def test_a_click_in_a_window_names_the_pixel_it_lies_in(
    grid: Grid, across: float, down: float
) -> None:
    column, row = int(across * grid.width), int(down * grid.height)
    window = grid.nearest(column + 0.5, row + 0.5, 64)
    click = grid.click(window, (column + 0.5) * grid.scale_x, (row + 0.5) * grid.scale_y, False)
    assert abs(click.x - (column - window.x)) < 1e-6
    assert abs(click.y - (row - window.y)) < 1e-6
    assert not click.positive
