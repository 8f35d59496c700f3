"""The eight views form a group, and are what NumPy makes of an array."""

from itertools import product

import numpy as np
import pytest
import torch

from histoclick.train.d4 import VIEWS, composed, d4, d4_each, inverse

PAIRS = list(product(range(VIEWS), repeat=2))


@pytest.fixture
def image() -> torch.Tensor:
    return torch.arange(2 * 3 * 5 * 7).view(2, 3, 5, 7)


def test_the_views_are_eight_and_the_first_is_the_image(image: torch.Tensor) -> None:
    square = image[..., :5]
    assert len({d4(square, view).numpy().tobytes() for view in range(VIEWS)}) == VIEWS
    assert torch.equal(d4(image, 0), image)


@pytest.mark.parametrize("view", range(VIEWS))
def test_views_are_numpy_s(view: int, image: torch.Tensor) -> None:
    array = image.numpy()
    mirrored = array[..., ::-1] if view >= 4 else array
    np.testing.assert_array_equal(d4(image, view), np.rot90(mirrored, view % 4, (2, 3)))


@pytest.mark.parametrize("view", range(VIEWS))
def test_a_view_and_its_inverse_are_nothing(view: int, image: torch.Tensor) -> None:
    assert torch.equal(d4(d4(image, view), inverse(view)), image)
    assert composed(view, inverse(view)) == composed(inverse(view), view) == 0


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_one_view_after_another_is_a_view(first: int, second: int, image: torch.Tensor) -> None:
    both = composed(first, second)
    assert 0 <= both < VIEWS
    assert torch.equal(d4(d4(image, first), second), d4(image, both))


def test_views_associate() -> None:
    for a, b, c in product(range(VIEWS), repeat=3):
        assert composed(composed(a, b), c) == composed(a, composed(b, c))


def test_each_image_has_its_own_view(image: torch.Tensor) -> None:
    square = image[..., :5]
    both = d4_each(square, [3, 6])
    assert torch.equal(both[0], d4(square[0], 3))
    assert torch.equal(both[1], d4(square[1], 6))
