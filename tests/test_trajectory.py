"""The recurrence, alone and in lockstep, and what a step says of itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fakes import BatchFake, FakeSegmenter, disc, make_samples
from histoclick.clicks import RULES, SimulatedUser, next_click
from histoclick.metrics import FAR_PX
from histoclick.starts import Corrupted
from histoclick.trajectory import Step, Walk, lockstep, trajectory
from histoclick.types import Click, Prediction, Prompt, Sample


def test_a_trajectory_is_the_recurrence() -> None:
    sample = make_samples(1)[0]
    prompt, previous, mask = Prompt(), None, np.zeros(sample.mask.shape, bool)
    encoded = FakeSegmenter().encode(sample.image)
    for step in trajectory(FakeSegmenter(), sample, 6):
        click = next_click(sample.mask, mask, prompt.clicks)
        prompt = prompt.add(click)
        previous = FakeSegmenter().predict(encoded, prompt, previous)
        changed, mask = mask != previous.mask, previous.mask
        assert step.click == click
        np.testing.assert_array_equal(step.prediction.logits, previous.logits)
        assert step.iou == (mask & sample.mask).sum() / (mask | sample.mask).sum()
        assert step.flipped == changed.sum()
        assert step.start_iou == 0


def told(step: Step) -> tuple[object, ...]:
    """Everything but the seconds."""
    return (
        step.click, step.iou, step.start_iou, step.flipped, step.far_flipped,
        step.prediction.mask.tobytes(), step.prediction.memory.seen,
    )  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 5),
    clicks=st.integers(1, 5),
    rule=st.sampled_from(sorted(RULES)),
    jitter=st.sampled_from([0.0, 3.0]),
    started=st.booleans(),
)
def test_lockstep_is_every_trajectory(
    count: int, clicks: int, rule: str, jitter: float, started: bool
) -> None:
    samples = make_samples(count)
    user = SimulatedUser(rule, jitter)
    starts = [Corrupted().mask(sample) if started else None for sample in samples]
    together: list[list[Step]] = [[] for _ in samples]
    for i, step in lockstep(BatchFake(), samples, clicks, user, starts):
        together[i].append(step)
        assert math.isnan(step.seconds)
        assert math.isnan(step.encode_seconds)
    for sample, start, steps in zip(samples, starts, together, strict=True):
        alone = trajectory(FakeSegmenter(), sample, clicks, user, start)
        assert [told(step) for step in steps] == [told(step) for step in alone]


class Knowing(BatchFake):
    """Right at the click after which the dark disc has as many pixels as asked for."""

    def encode(self, image: np.ndarray) -> np.ndarray:
        return image[..., 1] < 128

    def predict(self, encoded: np.ndarray, prompt: Prompt, previous: object = None) -> Prediction:
        right = len(prompt.clicks) > encoded.sum() % 4
        return Prediction(np.where(encoded & right, 1, -1).astype(np.float32))


def test_in_lockstep_who_is_done_leaves_the_others_at_work() -> None:
    samples, model = make_samples(6), Knowing()
    steps = [i for i, _ in lockstep(model, samples, 10)]
    needed = [int(sample.mask.sum() % 4) + 1 for sample in samples]
    assert len(set(needed)) > 1
    assert [steps.count(i) for i in range(6)] == needed
    assert model.sizes == [sum(n > k for n in needed) for k in range(max(needed))]


def test_a_start_that_is_right_is_confirmed_with_one_click_inside() -> None:
    sample = make_samples(1)[0]
    (step,) = trajectory(
        Knowing(), Sample("p", sample.image, sample.mask, "s"), 1, start=sample.mask
    )
    assert step.start_iou == 1
    assert step.click == next_click(sample.mask, np.zeros_like(sample.mask))
    assert step.click.positive


def test_the_start_is_what_the_first_click_answers() -> None:
    sample = make_samples(1)[0]
    start = sample.mask | disc(64, 5, 5, 4)
    step = next(trajectory(FakeSegmenter(), sample, 3, start=start))
    assert step.click == Click(5, 5, False)
    assert step.start_iou == sample.mask.sum() / start.sum()
    assert step.iou == 1
    assert step.flipped == (start & ~sample.mask).sum()
    assert len(list(trajectory(FakeSegmenter(), sample, 3, start=start))) == 1


@settings(max_examples=40, deadline=None)
@given(
    flips=arrays(bool, (150, 170), elements=st.just(True), fill=st.booleans()),
    x=st.integers(0, 169),
    y=st.integers(0, 149),
)
def test_far_flips_are_what_measuring_every_pixel_gives(flips: np.ndarray, x: int, y: int) -> None:
    flips = flips | (np.random.default_rng(x).random(flips.shape) < 0.5)
    sample = Sample("p", np.zeros((150, 170, 3), np.uint8), np.ones((150, 170), bool), "s")
    walk = Walk(sample, SimulatedUser(), np.zeros((150, 170), bool))
    walk.prompt = Prompt((Click(x, y),))
    step = walk.answer(Prediction(np.where(flips, 1, -1).astype(np.float32)), 0.0, 0.0)
    far = sum((v - y) ** 2 + (u - x) ** 2 > FAR_PX**2 for v, u in np.argwhere(flips))
    assert (step.flipped, step.far_flipped) == (flips.sum(), far)


@pytest.mark.parametrize("starts", [None, [None]])
def test_one_alone_in_lockstep(starts: list[None] | None) -> None:
    (sample,) = make_samples(1)
    steps = [told(step) for _, step in lockstep(BatchFake(), [sample], 3, starts=starts)]
    assert steps == [told(step) for step in trajectory(FakeSegmenter(), sample, 3)]
