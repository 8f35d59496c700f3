from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fakes import disc
from histoclick.datasets.demo import demo_samples
from histoclick.metrics import iou
from histoclick.models import registry
from histoclick.models.card import Card
from histoclick.models.classical import ARCHITECTURES, GrabCut, RandomWalker, load
from histoclick.trajectory import trajectory
from histoclick.types import RGB8, Click, HistoclickError, Mask, Prediction, Prompt, Segmenter

Model = GrabCut | RandomWalker


def picture(truth: Mask) -> RGB8:
    """Two colours and noise: in a picture without any, GrabCut's Gaussians have no width."""
    noise = np.random.default_rng(1).normal(0, 20, (*truth.shape, 3))
    clean = np.where(truth[..., None], (120, 60, 140), (225, 190, 210))
    return (clean + noise).clip(0, 255).astype(np.uint8)


TRUTH = disc(120, 50, 60, 30)
PICTURE = picture(TRUTH)


@pytest.fixture(params=list(ARCHITECTURES))
def model(request: pytest.FixtureRequest) -> Model:
    return ARCHITECTURES[request.param]()


@st.composite
def sessions(draw: st.DrawFn) -> tuple[RGB8, tuple[Click, ...], Mask | None]:
    """A small image, clicks on it, and perhaps a mask to start from."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    kind = draw(st.sampled_from(["noise", "two colours", "one colour"]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    if kind == "two colours":
        image[:] = np.where(rng.random((height, 1, 1)) < 0.5, 0, 255)
    elif kind == "one colour":
        image[:] = image[0, 0]
    places = st.tuples(
        st.floats(-0.5, width - 0.5), st.floats(-0.5, height - 0.5), st.booleans()
    ).map(lambda at: Click(*at))
    clicks = tuple(draw(st.lists(places, min_size=1, max_size=5)))
    start = draw(st.none() | arrays.arrays(np.bool_, (height, width)))
    return image, clicks, start


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
@settings(max_examples=30, deadline=None)
@given(session=sessions())
def test_clicked_pixels_have_their_sign_whatever_the_image(
    architecture: str, session: tuple[RGB8, tuple[Click, ...], Mask | None]
) -> None:
    image, clicks, start = session
    model = ARCHITECTURES[architecture]()
    encoded = model.encode(image)
    previous = None if start is None else Prediction.of_mask(start)
    signs: dict[tuple[int, int], bool] = {}
    for count, click in enumerate(clicks, start=1):
        previous = model.predict(encoded, Prompt(clicks[:count]), previous)
        assert previous.logits.shape == image.shape[:2]
        assert previous.logits.dtype == np.float32
        assert np.abs(previous.logits).max() <= 1 + 1e-6
        y = min(max(round(click.y), 0), image.shape[0] - 1)
        x = min(max(round(click.x), 0), image.shape[1] - 1)
        signs[y, x] = click.positive
        for at, positive in signs.items():
            assert previous.mask[at] == positive


def test_they_are_segmenters_and_built_in(model: Model) -> None:
    assert isinstance(model, Segmenter)
    for id_ in ARCHITECTURES:
        assert isinstance(registry.load(id_), ARCHITECTURES[id_])


def test_an_object_of_one_colour(model: Model) -> None:
    encoded = model.encode(PICTURE)
    first = model.predict(encoded, Prompt((Click(50, 60),)))
    assert iou(TRUTH, first.mask) > 0.95
    both = model.predict(encoded, Prompt((Click(50, 60), Click(100, 60, False))), first)
    assert iou(TRUTH, both.mask) > 0.95


@pytest.mark.parametrize("shape", [(180, 500), (700, 90)])
def test_an_image_that_is_not_square_and_too_large(model: Model, shape: tuple[int, int]) -> None:
    canvas = np.zeros(shape, np.uint8)
    middle = shape[1] // 2, shape[0] // 3
    truth = cv2.ellipse(canvas, middle, (shape[1] // 5, shape[0] // 5), 0, 0, 360, 1, -1) > 0
    corners = Click(5, 5, False), Click(shape[1] - 5, shape[0] - 5, False)
    clicks = (Click(*middle), *corners)
    answer = model.predict(model.encode(picture(truth)), Prompt(clicks))
    assert iou(truth, answer.mask) > 0.9


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_clicks_improve_a_real_picture(architecture: str) -> None:
    """A gland of ``skimage.data.immunohistochemistry``, which one click does not find."""
    sample = demo_samples(phantoms=0)[1]
    model = ARCHITECTURES[architecture]()
    steps = list(trajectory(model, sample, 5))
    again = next(trajectory(model, sample, 1))
    np.testing.assert_array_equal(again.prediction.logits, steps[0].prediction.logits)
    reached = [step.iou for step in steps]
    assert max(reached) > 0.7
    assert max(reached[1:]) > reached[0]


def test_negative_clicks_alone_find_nothing(model: Model) -> None:
    encoded = model.encode(PICTURE)
    assert not model.predict(encoded, Prompt((Click(3, 3, False),))).mask.any()


def test_a_mask_from_elsewhere_is_corrected(model: Model) -> None:
    """Half the object is missing; a click into it brings it, and the other half stays."""
    half = TRUTH.copy()
    half[60:] = False
    encoded = model.encode(PICTURE)
    start = Prediction.of_mask(half)
    answer = model.predict(encoded, Prompt((Click(50, 78),)), start)
    assert iou(TRUTH, answer.mask) > 0.9
    wrong = TRUTH | disc(120, 100, 100, 15)
    answer = model.predict(encoded, Prompt((Click(100, 100, False),)), Prediction.of_mask(wrong))
    assert iou(TRUTH, answer.mask) > 0.9


def test_the_walker_remembers_the_mask_it_started_from() -> None:
    walker = RandomWalker()
    flat = walker.encode(np.full((120, 120, 3), 200, np.uint8))
    clicks = (Click(100, 100, False), Click(50, 30))
    first = walker.predict(flat, Prompt(clicks[:1]), Prediction.of_mask(TRUTH))
    second = walker.predict(flat, Prompt(clicks), first)
    assert iou(TRUTH, second.mask) > 0.7
    assert iou(TRUTH, walker.predict(flat, Prompt(clicks)).mask) < 0.5


@pytest.mark.parametrize("start", [np.ones, np.zeros])
def test_starting_masks_with_one_side(model: Model, start: Any) -> None:
    encoded = model.encode(PICTURE)
    previous = Prediction.of_mask(start((120, 120), bool))
    answer = model.predict(encoded, Prompt((Click(50, 60), Click(3, 3, False))), previous)
    assert answer.mask[60, 50]
    assert not answer.mask[3, 3]


def test_what_they_refuse(model: Model) -> None:
    encoded = model.encode(PICTURE)
    with pytest.raises(ValueError, match="mask of the image's size"):
        model.predict(encoded, Prompt((Click(1, 1),)), Prediction.of_mask(np.ones((9, 9), bool)))
    with pytest.raises(ValueError, match="outside the image"):
        model.predict(encoded, Prompt((Click(120, 1),)))
    with pytest.raises(ValueError, match="uint8 RGB"):
        model.encode(np.zeros((9, 9, 3), np.float32))  # type: ignore[arg-type]
    card = Card("x", "classical", "snakes", "", "", "")
    with pytest.raises(HistoclickError, match="unknown architecture 'snakes'; known: grabcut"):
        load(card, Path(), "cpu")
