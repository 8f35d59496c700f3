import numpy as np
import pytest

from fakes import FakeSegmenter
from histoclick import Box, Click, Prediction, Prompt, Segmenter


def test_a_prompt_grows_without_changing() -> None:
    first = Prompt().add(Click(1, 2))
    second = first.add(Click(3, 4, positive=False))
    assert len(first.clicks) == 1
    assert second.clicks == (Click(1, 2, True), Click(3, 4, False))


def test_lists_of_clicks_become_tuples() -> None:
    assert Prompt(clicks=[Click(0, 0)]).clicks == (Click(0, 0),)  # type: ignore[arg-type]


def test_the_mask_is_what_is_above_zero() -> None:
    prediction = Prediction(np.array([[-1, 0, 0.1]], np.float32))
    assert prediction.mask.tolist() == [[False, False, True]]


def test_a_box_with_swapped_corners_is_refused() -> None:
    with pytest.raises(ValueError, match="swapped"):
        Box(5, 0, 4, 1)


def test_anything_with_the_two_methods_is_a_segmenter() -> None:
    assert isinstance(FakeSegmenter(), Segmenter)
    assert not isinstance(object(), Segmenter)
