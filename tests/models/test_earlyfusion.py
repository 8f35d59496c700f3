"""The early-fusion segmenter around a network of closed form, against the reference's predictor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import golden
import toy
from histoclick.clicks import next_click
from histoclick.models.earlyfusion import EarlyFusionSegmenter, logits_of
from histoclick.models.zoom import Roi, ZoomRule
from histoclick.types import RGB8, BatchSegmenter, Box, Click, Mask, Prediction, Prompt

Arrays = dict[str, NDArray[Any]]

CLICKS = (Click(80, 60), Click(20, 20, positive=False), Click(100, 70), Click(60, 90))
SHAPE = (120, 160)
ALWAYS = ZoomRule((448, 448), skip_clicks=-1)
SMALL = ZoomRule((96, 128), skip_clicks=-1)
CASES: dict[str, dict[str, Any]] = {
    "cvpr": {"rule": ZoomRule()},
    "noflip": {"rule": ZoomRule(), "flip": False},
    "fixed448": {"rule": ALWAYS},
    "t600": {"rule": ZoomRule(600)},
    "far": {"rule": ZoomRule()},
}


class ToyNetwork(nn.Module):
    """Keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, inputs: Tensor, points: Tensor) -> Tensor:
        self.seen.append((inputs, points))
        return toy.logits(inputs[:, :3], inputs[:, 3:], points)


def segmenter(rule: ZoomRule | None = SMALL, **options: Any) -> EarlyFusionSegmenter:
    return EarlyFusionSegmenter(ToyNetwork(), rule, **options)


@pytest.fixture(scope="module")
def picture() -> RGB8:
    return np.random.default_rng(1).integers(90, 220, (*SHAPE, 3), np.uint8)


@pytest.fixture(scope="module")
def inputs(shared: Path) -> Arrays:
    return golden.arrays(shared / "conformance/inputs/inputs.npz")


@pytest.fixture(scope="module")
def arrays(shared: Path) -> Arrays:
    return golden.arrays(shared / "conformance/ritm/toy_predictor.npz")


def disk(row: int, column: int, radius: int) -> Mask:
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


def steps(model: EarlyFusionSegmenter, image: RGB8, clicks: tuple[Click, ...]) -> list[Any]:
    """Every answer, one click after the other."""
    encoded, prompt, answers = model.encode(image), Prompt(), [None]
    for click in clicks:
        prompt = prompt.add(click)
        answers.append(model.predict(encoded, prompt, answers[-1]))
    return answers[1:]


class TestReference:
    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("image", ["A", "B"])
    def test_clicks(self, arrays: Arrays, inputs: Arrays, image: str, case: str) -> None:
        name = f"{image}_{case}"
        clicks = [Click(x, y, bool(sign)) for y, x, sign in arrays[f"{name}_clicks"].tolist()]
        answers = steps(segmenter(**CASES[case]), inputs[f"image_{image}"], tuple(clicks))
        for n, answer in enumerate(answers, start=1):
            probabilities = answer.memory.probabilities[0, 0]
            golden.agrees(arrays, f"{name}_prob_{n}", probabilities, 6, 1e-4)
            np.testing.assert_array_equal(answer.mask, arrays[f"{name}_mask_{n}"])
            roi = answer.memory.roi or Roi(-1, -1, -1, -1)
            assert roi == Roi(*arrays[f"{name}_rois"][n - 1].tolist()), n

    @pytest.mark.parametrize("image", ["A", "B"])
    def test_evaluation(self, arrays: Arrays, inputs: Arrays, image: str) -> None:
        model, truth = segmenter(ZoomRule()), inputs[f"object_{image}"]
        encoded, prompt, previous = model.encode(inputs[f"image_{image}"]), Prompt(), None
        clicks, ious = arrays[f"{image}_eval_clicks"], arrays[f"{image}_eval_ious"]
        for (row, column, positive), iou in zip(clicks.tolist(), ious, strict=True):
            seen = np.zeros_like(truth) if previous is None else previous.mask
            click = next_click(truth, seen, prompt.clicks)
            assert (click.y, click.x, click.positive) == (row, column, bool(positive))
            prompt = prompt.add(click)
            previous = model.predict(encoded, prompt, previous)
            both = (previous.mask & truth).sum() / (previous.mask | truth).sum()
            assert both == pytest.approx(iou, abs=1e-6)


class TestContract:
    def test_answers_many_users_at_once(self) -> None:
        assert isinstance(segmenter(), BatchSegmenter)

    def test_keeps_no_state(self, picture: RGB8) -> None:
        model = segmenter()
        first = steps(model, picture, CLICKS)
        kept = [answer.memory.probabilities.clone() for answer in first]
        steps(model, picture[::-1].copy(), CLICKS[::-1])
        again = model.predict(model.encode(picture), Prompt(CLICKS[:3]), first[1])
        np.testing.assert_array_equal(again.logits, first[2].logits)
        for answer, probabilities in zip(first, kept, strict=True):
            assert torch.equal(answer.memory.probabilities, probabilities)

    def test_keeps_its_own_copy_of_the_image(self, picture: RGB8) -> None:
        model, image = segmenter(), picture.copy()
        encoded = model.encode(image)
        image[:] = 0
        answer = model.predict(encoded, Prompt(CLICKS[:1]))
        np.testing.assert_array_equal(answer.logits, steps(model, picture, CLICKS[:1])[0].logits)

    def test_a_batch_answers_as_one_by_one(self, picture: RGB8) -> None:
        model = segmenter(ZoomRule(128))
        images = [picture, picture[:90, :70].copy(), picture, picture]
        elsewhere = Prediction.of_mask(disk(30, 30, 12)[:90, :70])
        prompts = [Prompt(CLICKS[:1]), Prompt(CLICKS[1:2]), Prompt(CLICKS), Prompt(CLICKS[:2])]
        previous = [None, elsewhere, None, steps(model, picture, CLICKS[:1])[0]]
        encoded = model.encode_batch(images)
        together = model.predict_batch(encoded, prompts, previous)
        for answer, *user in zip(together, encoded, prompts, previous, strict=True):
            alone = model.predict(*user)
            assert alone.memory.roi == answer.memory.roi
            np.testing.assert_allclose(answer.logits, alone.logits, rtol=0, atol=1e-5)
        assert model.predict_batch([], [], []) == []

    def test_logits_are_finite_and_positive_on_the_mask(self, picture: RGB8) -> None:
        for answer in steps(segmenter(), picture, CLICKS):
            assert answer.logits.dtype == np.float32
            assert np.isfinite(answer.logits).all()
            probabilities = answer.memory.probabilities[0, 0].numpy()
            np.testing.assert_array_equal(answer.mask, probabilities > np.float32(0.49))

    def test_goes_on_from_a_mask_from_elsewhere(self, picture: RGB8) -> None:
        model = segmenter(ZoomRule(min_side=0))
        begun = Prediction.of_mask(disk(60, 80, 30))
        answer = model.predict(model.encode(picture), Prompt(CLICKS[:2]), begun)
        assert answer.memory.roi == Roi(
            17, 103, 37, 123
        )  # 61 px about the disk's centre, times 1.4
        inputs, _ = model.net.seen[-1]
        assert (inputs[0, 3] > 0.99).any()
        nothing = Prediction.of_mask(np.zeros(SHAPE, bool))
        answer = model.predict(model.encode(picture), Prompt(CLICKS[:2]), nothing)
        assert answer.memory.roi is None

    def test_does_not_take_what_it_does_not_understand(self, picture: RGB8) -> None:
        model = segmenter()
        encoded = model.encode(picture)
        with pytest.raises(ValueError, match="uint8 RGB"):
            model.encode(picture.astype(np.float32))
        with pytest.raises(ValueError, match="clicks only"):
            model.predict(encoded, Prompt(CLICKS, Box(0, 0, 5, 5)))
        with pytest.raises(ValueError, match="at least one"):
            model.predict(encoded, Prompt())
        with pytest.raises(ValueError, match="outside the image"):
            model.predict(encoded, Prompt((Click(160, 3),)))
        with pytest.raises(ValueError, match="the image's size"):
            model.predict(encoded, Prompt(CLICKS), Prediction.of_mask(np.ones((20, 20), bool)))

    def test_takes_clicks_on_the_edge(self, picture: RGB8) -> None:
        edge = (Click(159.5, 119.5), Click(-0.5, -0.5, positive=False), Click(159.5, -0.5))
        assert steps(segmenter(ZoomRule(128)), picture, edge)[-1].logits.shape == SHAPE


class TestViews:
    def test_the_mirror_image_is_the_image_mirrored(self, picture: RGB8) -> None:
        model = segmenter(None)
        model.predict(model.encode(picture), Prompt(CLICKS[:2]))
        inputs, points = model.net.seen[-1]
        assert torch.equal(inputs[1], inputs[0].flip(2))
        assert points[:, :, 1].tolist() == [[80, 20], [79, 139]]

    def test_later_clicks_are_not_shown(self, picture: RGB8) -> None:
        model = segmenter(None, click_limit=2, flip=False)
        model.predict(model.encode(picture), Prompt(CLICKS))
        assert model.net.seen[-1][1].tolist() == [[[60, 80, 0], [20, 20, 1]]]

    def test_large_views_are_made_smaller(self, picture: RGB8) -> None:
        model = segmenter(None, max_side=80, flip=False)
        answer = model.predict(model.encode(picture), Prompt(CLICKS[:1]))
        inputs, points = model.net.seen[-1]
        assert inputs.shape == (1, 4, 60, 80)
        assert points[0, 0].tolist() == [30, 40, 0]
        assert answer.logits.shape == SHAPE

    def test_says_how_it_predicts(self) -> None:
        rule = ZoomRule()
        assert segmenter(rule).settings == {"zoom": str(rule), "tta": "flip"}
        bare = segmenter(None, flip=False, click_limit=3, max_side=320)
        assert bare.settings == {
            "zoom": "none",
            "tta": "none",
            "click_limit": "3",
            "max_side": "320 px",
        }


def test_logits_are_positive_exactly_above_the_threshold() -> None:
    border = np.float32(0.49)
    near = [np.nextafter(border, np.float32(to)) for to in (0, 1)]
    probabilities = torch.tensor([[0, near[0], border, near[1], 1]])
    assert (logits_of(probabilities) > 0).tolist() == [[False, False, False, True, True]]
    assert np.isfinite(logits_of(probabilities)).all()
