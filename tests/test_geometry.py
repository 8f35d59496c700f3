import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoclick.geometry import Frame, fit, up_to_multiple
from histoclick.types import Click

coordinate = st.floats(-1e5, 1e5)
positive = st.floats(0.01, 64)
frames = st.builds(Frame, coordinate, coordinate, positive, positive)
clicks = st.builds(Click, coordinate, coordinate, st.booleans())


def near(a: Click, b: Click) -> bool:
    return (
        bool(np.allclose([a.x, a.y], [b.x, b.y], atol=1e-6, rtol=1e-9)) and a.positive == b.positive
    )


@given(frames, clicks)
def test_there_and_back(frame: Frame, click: Click) -> None:
    assert near(frame.from_parent(frame.to_parent(click)), click)


@pytest.mark.parametrize("factor", [2, 4, 5])
def test_a_pixel_s_centre_is_the_mean_of_the_pixels_it_covers(factor: int) -> None:
    frame = Frame(10, 20, factor, factor)
    covered = [10 + 3 * factor + i for i in range(factor)]
    assert frame.to_parent(Click(3, 0)).x == np.mean(covered)


def test_resized_corners_stay_corners() -> None:
    frame = Frame.resized(400, 300, 1024, 768)
    assert near(frame.to_parent(Click(-0.5, -0.5)), Click(-0.5, -0.5))
    assert near(frame.to_parent(Click(767.5, 1023.5)), Click(299.5, 399.5))


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 2048))
def test_fit_makes_the_long_side_exact(height: int, width: int, long_side: int) -> None:
    new_height, new_width = fit(height, width, long_side)
    assert max(new_height, new_width) == long_side
    assert min(new_height, new_width) >= 1
    assert abs(new_height / new_width - height / width) * new_width <= max(1, height / width)


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_up_to_multiple(size: int, multiple: int) -> None:
    found = up_to_multiple(size, multiple)
    assert found % multiple == 0
    assert size <= found < size + multiple
