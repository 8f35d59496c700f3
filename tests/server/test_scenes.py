from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from histoclick.server.scenes import ROOM, corners, cut_off, fit, whole, wider
from histoclick.session.windows import Window
from histoclick.types import RGB8, Click


@dataclass(frozen=True)
class Blank:
    """A scene of which only the size matters."""

    width: int
    height: int
    key: str = "blank"

    def part(self, window: Window) -> RGB8:
        return np.zeros((window.height, window.width, 3), np.uint8)


sizes = st.integers(1, 3000)
shares = st.tuples(st.floats(0, 0.999), st.floats(0, 0.999))


def inside(scene: Blank, window: Window) -> bool:
    return 0 <= window.x < window.x1 <= scene.width and 0 <= window.y < window.y1 <= scene.height


@given(width=sizes, height=sizes, points=st.lists(shares, min_size=1, max_size=5))
def test_a_window_that_fits_holds_all_points_and_is_no_larger_than_needed(
    width: int, height: int, points: list[tuple[float, float]]
) -> None:
    scene = Blank(width, height)
    places = [(x * width, y * height) for x, y in points]
    window = fit(scene, places, 256)
    assert inside(scene, window)
    xs, ys = zip(*places, strict=True)
    side = max(256, ROOM * max(max(xs) - min(xs), max(ys) - min(ys)))
    assert max(window.width, window.height) <= 1.25 * (side + 1)
    for x, y in places:
        assert window.x <= x <= window.x1
        assert window.y <= y <= window.y1


def test_the_box_around_a_mask() -> None:
    mask = np.zeros((20, 30), np.bool_)
    assert corners(mask, Window(5, 6, 30, 20)) == []
    mask[3:8, 10] = True
    assert corners(mask, Window(5, 6, 30, 20)) == [(15, 9), (16, 14)]


@given(width=sizes, height=sizes, point=shares, mark=shares, side=st.sampled_from([64, 100, 447]))
def test_wider_windows_hold_the_one_before_and_end_with_everything(
    width: int,
    height: int,
    point: tuple[float, float],
    mark: tuple[float, float],
    side: int,
) -> None:
    scene = Blank(width, height)
    window = fit(scene, [(point[0] * width, point[1] * height)], side)
    for _ in range(10):
        if window == whole(scene):
            return
        mask = np.zeros((window.height, window.width), np.bool_)
        mask[int(mark[1] * window.height), int(mark[0] * window.width)] = True
        larger = wider(scene, window, mask)
        assert inside(scene, larger)
        assert larger.around(window) == larger
        assert larger.width * larger.height > window.width * window.height
        window = larger
    raise AssertionError("it never ends")


def test_only_what_was_clicked_on_is_cut_off() -> None:
    scene, window = Blank(1000, 1000), Window(100, 0, 50, 50)
    mask = np.zeros((50, 50), np.bool_)
    mask[10:20, 30:50] = True  # runs out on the right
    mask[0:5, 0:5] = False
    mask[30:40, 10:20] = True
    assert cut_off(scene, window, mask, [Click(35, 15)])
    assert not cut_off(scene, window, mask, [Click(15, 35)])
    assert not cut_off(scene, window, mask, [Click(15, 35), Click(35, 15, positive=False)])
    assert not cut_off(scene, window, mask, [Click(1, 25)])  # on nothing
    assert cut_off(scene, window, mask, [])  # a box: every part counts
    top = np.zeros((50, 50), np.bool_)
    top[0:5, 10:20] = True  # the border of the scene cuts nothing off
    assert not cut_off(scene, window, top, [Click(12, 2)])
