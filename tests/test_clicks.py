from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from histoclick.clicks import (
    RULES,
    SimulatedUser,
    inner_distance_squared,
    next_click,
    sample_click,
)
from histoclick.types import Click, HistoclickError

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def slow_distance_squared(region: np.ndarray) -> np.ndarray:
    """Nearest outside pixel by looking at all of them, the frame around the image included."""
    height, width = region.shape
    outside = [
        (y, x)
        for y in range(-1, height + 1)
        for x in range(-1, width + 1)
        if not (0 <= y < height and 0 <= x < width and region[y, x])
    ]
    result = np.zeros(region.shape, int)
    for y, x in np.argwhere(region):
        result[y, x] = min((y - v) ** 2 + (x - u) ** 2 for v, u in outside)
    return result


def slow_next_click(truth: np.ndarray, predicted: np.ndarray, clicked: list[Click]) -> Click:
    """The rule, read aloud."""
    best = {}
    for positive, wrong in ((True, truth & ~predicted), (False, predicted & ~truth)):
        depth = slow_distance_squared(wrong)
        for click in clicked:
            depth[int(click.y), int(click.x)] = 0
        best[positive] = depth
    positive = best[True].max() > best[False].max()
    for y, x in np.ndindex(truth.shape):
        if best[positive][y, x] == best[positive].max():
            return Click(x, y, bool(positive))
    raise AssertionError


@given(masks)
def test_distance_agrees_with_looking_at_every_pixel(region: np.ndarray) -> None:
    np.testing.assert_array_equal(inner_distance_squared(region), slow_distance_squared(region))


@given(st.data())
def test_clicker_agrees_with_its_slow_twin(data: st.DataObject) -> None:
    shape = data.draw(array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=10))
    truth = data.draw(arrays(bool, shape))
    clicked: list[Click] = []
    for _ in range(4):
        predicted = data.draw(arrays(bool, shape))
        click = next_click(truth, predicted, clicked)
        assert click == slow_next_click(truth, predicted, clicked)
        clicked.append(click)


def unpack(archive: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    if key in archive.files:
        return archive[key]
    shape = tuple(archive[f"{key}__shape"])
    bits = np.unpackbits(archive[f"{key}__bits"], count=int(np.prod(shape)))
    return bits.reshape(shape).astype(bool)


def test_clicker_is_the_reference_s(shared: Path) -> None:
    golden = np.load(shared / "conformance/protocol/clicker.npz")
    names = [str(name) for name in golden["names"]]
    assert len(names) == 28
    for name in names:
        truth, ignore = unpack(golden, f"{name}__gt1"), unpack(golden, f"{name}__ignore")
        clicks: list[Click] = []
        for predicted in unpack(golden, f"{name}__preds"):
            clicks.append(next_click(truth, predicted, clicks, ignore))
        found = [(click.y, click.x, int(click.positive)) for click in clicks]
        expected = [tuple(row[:3]) for row in golden[f"{name}__clicks"].tolist()]
        assert found == expected, name


def test_nothing_wrong_is_a_negative_click_at_the_corner() -> None:
    truth = np.ones((4, 5), bool)
    assert next_click(truth, truth) == Click(0, 0, False)


@given(masks, st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 2**31))
def test_sampled_clicks_fall_deep_enough_into_the_deeper_error(
    truth: np.ndarray, depth: float, seed: int
) -> None:
    predicted = np.zeros_like(truth)
    predicted[:, ::3] = True
    click = sample_click(truth, predicted, np.random.default_rng(seed), depth=depth)
    missed, false = (slow_distance_squared(e) for e in (truth & ~predicted, predicted & ~truth))
    if click is None:
        assert not missed.any()
        assert not false.any()
        return
    assert click.positive == (missed.max() > false.max())
    chosen = missed if click.positive else false
    at_click = chosen[int(click.y), int(click.x)]
    assert at_click >= max(1, depth**2 * chosen.max() - 1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_sampling_is_seeded(seed: int) -> None:
    truth = np.ones((30, 30), bool)
    none = np.zeros_like(truth)
    first = [sample_click(truth, none, np.random.default_rng(seed)) for _ in range(2)]
    assert first[0] == first[1]


users = st.builds(
    SimulatedUser,
    st.sampled_from(sorted(RULES)),
    st.sampled_from([0.0, 0.7, 5.0, 1000.0]),
    st.integers(0, 2**31),
)
CLICKED = (Click(0, 0), Click(1, 2, False))


@st.composite
def questions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A truth and another mask of its size."""
    truth = draw(masks)
    return truth, draw(arrays(bool, truth.shape))


@settings(max_examples=40, deadline=None)
@given(users, questions(), st.text(max_size=5), st.integers(0, 3))
def test_a_click_is_a_function_of_seed_patch_and_number(
    user: SimulatedUser, question: tuple[np.ndarray, np.ndarray], patch: str, number: int
) -> None:
    truth, predicted = question
    clicked = tuple(Click(0, 0, bool(i % 2)) for i in range(number))
    before = truth.copy(), predicted.copy()
    click = user.click(patch, truth, predicted, clicked)
    twin = SimulatedUser(user.rule, user.jitter_px, user.seed)
    twin.click("another", truth, predicted, clicked)  # leaves no trace
    assert twin.click(patch, truth, predicted, clicked) == click
    np.testing.assert_array_equal(truth, before[0])
    np.testing.assert_array_equal(predicted, before[1])


@given(users, questions(), st.text(max_size=5))
def test_clicks_are_pixels_of_the_image(
    user: SimulatedUser, question: tuple[np.ndarray, np.ndarray], patch: str
) -> None:
    truth, predicted = question
    click = user.click(patch, truth, predicted, ())
    assert isinstance(click.x, int)
    assert isinstance(click.y, int)
    assert 0 <= click.x < truth.shape[1]
    assert 0 <= click.y < truth.shape[0]


@given(users, questions(), st.text(max_size=5))
def test_a_steady_hand_clicks_into_an_error_of_the_click_s_sign(
    user: SimulatedUser, question: tuple[np.ndarray, np.ndarray], patch: str
) -> None:
    truth, predicted = question
    click = SimulatedUser(user.rule, 0, user.seed).click(patch, truth, predicted, ())
    if (truth != predicted).any():
        assert truth[click.y, click.x] == click.positive
        assert predicted[click.y, click.x] != click.positive
    shaken = user.click(patch, truth, predicted, ())
    assert shaken.positive == click.positive  # the hand shakes, not the mind


@given(st.sampled_from(sorted(RULES)), questions(), st.integers(0, 2**31))
def test_no_pixel_is_clicked_twice_while_others_are_wrong(
    rule: str, question: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    truth, predicted = question
    user = SimulatedUser(rule, seed=seed)
    clicked: list[Click] = []
    for _ in range(min(int((truth != predicted).sum()), 12)):
        clicked.append(user.click("p", truth, predicted, tuple(clicked)))
    assert len({(click.x, click.y) for click in clicked}) == len(clicked)


@given(questions(), st.text(max_size=5), st.integers(0, 99))
def test_the_default_user_is_the_published_one_whatever_the_seed(
    question: tuple[np.ndarray, np.ndarray], patch: str, seed: int
) -> None:
    truth, predicted = question
    user = SimulatedUser(seed=seed)
    assert user.click(patch, truth, predicted, CLICKED[:0]) == next_click(truth, predicted)
    assert user.described == SimulatedUser().described == RULES["deepest"]


def test_jitter_has_the_spread_it_says_and_patches_their_own() -> None:
    truth = np.zeros((201, 201), bool)
    truth[60:141, 60:141] = True
    user, none = SimulatedUser(jitter_px=5.0, seed=1), np.zeros_like(truth)
    clicks = [user.click(f"p{i}", truth, none, ()) for i in range(400)]
    offsets = np.array([(click.x - 100, click.y - 100) for click in clicks])
    assert np.abs(offsets.mean(0)).max() < 1  # four standard errors
    assert offsets.std(0) == pytest.approx([5, 5], rel=0.15)
    assert abs(np.corrcoef(offsets.T)[0, 1]) < 0.2


def test_rules_and_clicks_of_one_patch_differ_by_number_and_seed() -> None:
    truth = np.ones((60, 60), bool)
    none = np.zeros_like(truth)
    for rule in ("inner", "random"):
        found = {
            SimulatedUser(rule, seed=seed).click("p", truth, none, CLICKED[:number])
            for seed in range(3)
            for number in range(3)
        }
        assert len(found) == 9
    described = {
        SimulatedUser(rule, jitter, seed).described
        for rule in RULES
        for jitter in (0, 2.5)
        for seed in (0, 1)
    }
    assert len(described) == 11  # without chance the seed says nothing


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (("middle",), "unknown click rule 'middle'; known: deepest, inner, random"),
        (("deepest", -1.0), "a jitter of -1.0 px"),
        (("deepest", float("nan")), "a jitter of nan px"),
        (("deepest", 0.0, -1), "the seed is -1"),
    ],
)
def test_impossible_users(bad: tuple[object, ...], why: str) -> None:
    with pytest.raises(HistoclickError, match=why):
        SimulatedUser(*bad)  # type: ignore[arg-type]
