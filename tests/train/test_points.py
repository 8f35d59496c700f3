"""Where users click in training: held to the reference down to the drawn pixel."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from histoclick.models.clickmaps import PADDING, disks
from histoclick.train.points import (
    FOCALCLICK,
    MOST,
    RITM,
    UNORDERED,
    FirstClicks,
    answer,
    choose,
    depth,
    first_points,
    inner_half,
    middle,
    next_points,
    odds,
    scatter,
)
from histoclick.types import Mask

RULES = {  # of the fixtures: the most points, and how they are drawn
    "ritm": (MOST, RITM),
    "focal": (MOST, FOCALCLICK),
    "default12": (12, FirstClicks(decay=0.7, merge=0.0)),
}


class Legacy:
    """The two generators of the reference, seeded alike: Python's own for choices without
    replacement and plain chances, NumPy's old one for the rest."""

    def __init__(self, seed: int) -> None:
        self._python = random.Random(seed)
        self._numpy = np.random.RandomState(seed)

    def random(self) -> float:
        return self._python.random()

    def integers(self, *limits: int) -> int:
        return self._numpy.randint(*limits)

    def choice(
        self, count: int, size: int | None = None, replace: bool = True, p: object = None
    ) -> object:
        if size is None:
            return self._numpy.choice(count, p=p)
        assert not replace
        return self._python.sample(range(count), size)


def fixture(shared: Path, name: str) -> dict[str, NDArray[np.generic]]:
    """Arrays of a file; bits unpacked."""
    found: dict[str, NDArray[np.generic]] = {}
    with np.load(shared / f"conformance/protocol/{name}.npz") as arrays:
        for key in arrays:
            if key.endswith("__bits"):
                shape = arrays[key.replace("__bits", "__shape")]
                bits = np.unpackbits(arrays[key])[: np.prod(shape)]
                found[key.removesuffix("__bits")] = bits.reshape(shape).astype(bool)
            elif not key.endswith("__shape"):
                found[key] = arrays[key]
    return found


def clicks_of(points: NDArray[np.float32]) -> list[list[list[float]]]:
    """The clicks of one user, positive and negative, in an order that does not depend on slots."""
    return [sorted(half[half[:, 0] >= 0].tolist()) for half in np.split(points, 2)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rule", RULES)
def test_first_points_are_the_reference_s(rule: str, seed: int, shared: Path) -> None:
    golden = fixture(shared, "point_sampler")
    objects = [golden["encoded_mask"] == i for i in (1, 2, 3)]
    most, how = RULES[rule]
    rng = Legacy(seed)
    regions = choose(objects, rng, how)
    name = f"{rule}_seed{seed}"
    np.testing.assert_array_equal(regions.target, golden[f"{name}_mask"])
    np.testing.assert_array_equal(np.stack(regions.inside), golden[f"{name}_posmask"])
    np.testing.assert_array_equal(regions.outside[2], golden[f"{name}_border"])
    np.testing.assert_array_equal(scatter(regions, rng, most, how), golden[f"{name}_points"])


def test_chances_and_middles_are_the_reference_s(shared: Path) -> None:
    golden = fixture(shared, "point_sampler")
    for name, count, decay in (
        ("probs_pos_24_0.80", 24, 0.8),
        ("probs_neg_25_0.80", 25, 0.8),
        ("probs_pos_12_0.7", 12, 0.7),
    ):
        np.testing.assert_allclose(odds(count, decay), golden[name], rtol=1e-14)
    second = golden["encoded_mask"] == 2
    np.testing.assert_array_equal(middle(second), golden["first_click_candidates_obj2"])


def test_candidates_of_the_next_click_are_the_reference_s(shared: Path) -> None:
    golden = fixture(shared, "next_points")
    targets = golden["gt"][:, 0] > 0.5
    predicted = golden["pred"][:, 0] > golden["pred_thresh"]
    found = [inner_half(*each) for each in zip(targets, predicted, strict=True)]
    np.testing.assert_array_equal(np.stack([inner for inner, _ in found]), golden["candidates"])
    np.testing.assert_array_equal([sign for _, sign in found], golden["is_positive"])
    for i, (missed, false) in enumerate(golden["max_dist_fn_fp"]):
        assert depth(targets[i] & ~predicted[i]).max() == missed
        assert depth(predicted[i] & ~targets[i]).max() == false
    np.testing.assert_array_equal(depth(targets[0] & ~predicted[0]), golden["dt5_fn_sample0"])
    np.testing.assert_array_equal(depth(predicted[0] & ~targets[0]), golden["dt5_fp_sample0"])


@pytest.mark.parametrize("seed", [0, 7])
def test_next_points_are_the_reference_s(seed: int, shared: Path) -> None:
    golden = fixture(shared, "next_points")
    targets = golden["gt"][:, 0] > 0.5
    predicted = golden["pred"][:, 0] > golden["pred_thresh"]
    points = torch.from_numpy(golden["points_in"])
    rngs = [Legacy(seed)] * len(targets)
    for place in (1, 2, 3):
        points = next_points(points, targets, predicted, rngs)
        expected = golden[f"points_seed{seed}_click{place}"]
        for ours, theirs in zip(points.numpy(), expected, strict=True):
            assert clicks_of(ours) == clicks_of(theirs)


def shapes(seed: int, side: int = 48) -> tuple[Mask, Mask, Mask]:
    """Three objects apart from each other."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    radii = rng.uniform(4, 9, 3)
    a, b, c = (
        (y - row) ** 2 + (x - column) ** 2 <= radius**2
        for (row, column), radius in zip(((12, 12), (12, 36), (36, 24)), radii, strict=True)
    )
    return a, b, c


def rngs(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), most=st.integers(1, 24), centre=st.booleans())
def test_first_points_are_where_they_may_be(seed: int, most: int, centre: bool) -> None:
    objects = shapes(seed)
    rule = FirstClicks(merge=0.5, merged=3, centre=centre)
    rng = np.random.default_rng(seed)
    regions = choose(objects, rng, rule)
    points = scatter(regions, rng, most, rule)
    assert points.shape == (2 * most, 3)
    positive, negative = np.split(points, 2)
    for half in (positive, negative):  # filled from the front
        real = half[:, 0] >= 0
        assert (np.diff(real.astype(int)) <= 0).all()
        assert (half[~real] == PADDING).all()
    placed = positive[positive[:, 0] >= 0].astype(int)
    assert len(placed) >= min(most, len(regions.inside))
    assert regions.target[placed[:, 0], placed[:, 1]].all()
    for mask in regions.inside[:most]:
        assert any((each | ~mask).all() for each in objects)
        assert mask[placed[:, 0], placed[:, 1]].any()
    if centre:
        first = placed[placed[:, 2] == 0]
        assert len(first) == len(regions.inside[:most])
        assert all(any(middle(m)[y, x] for m in regions.inside) for y, x, _ in first)
    else:
        assert (placed[:, 2] == UNORDERED).all()
    away = negative[negative[:, 0] >= 0].astype(int)
    assert not regions.target[away[:, 0], away[:, 1]].any()


def test_border_is_near_the_object_and_others_are_other_objects() -> None:
    objects = shapes(4)
    regions = choose(objects, np.random.default_rng(1), FirstClicks(merge=0))
    background, others, border = regions.outside
    np.testing.assert_array_equal(background, ~regions.target)
    np.testing.assert_array_equal(others, np.logical_or.reduce(objects) & ~regions.target)
    reach = int(np.ceil(0.1 * np.sqrt(regions.target.sum())))
    y, x = np.nonzero(regions.target)
    for row, column in np.argwhere(background):
        near = max(0, np.maximum(abs(y - row), abs(x - column)).min()) <= reach
        assert border[row, column] == near


def test_numbers_of_points_follow_the_odds() -> None:
    target = shapes(0)[0]
    rng = np.random.default_rng(0)
    counts = np.zeros((2, 4))
    for _ in range(3000):
        points = scatter(choose([target], rng), rng, 3, RITM)
        for half, count in enumerate((points.reshape(2, 3, 3)[:, :, 0] >= 0).sum(1)):
            counts[half, count] += 1
    expected = np.array([[0, *odds(3, 0.8)], odds(4, 0.8)])
    np.testing.assert_allclose(counts / 3000, expected, atol=0.035)  # 4 standard errors


def test_users_do_not_depend_on_each_other() -> None:
    targets = np.stack(shapes(3))
    together = first_points(targets, rngs(5, 6, 7))
    alone = first_points(targets[1:2], rngs(6))
    assert clicks_of(together[1].numpy()) == clicks_of(alone[0].numpy())
    assert together.shape[1] >= alone.shape[1]
    predicted = np.zeros_like(targets)
    both = next_points(together, targets, predicted, rngs(8, 9, 10))
    one = next_points(alone, targets[1:2], predicted[:1], rngs(9))
    assert clicks_of(both[1].numpy()) == clicks_of(one[0].numpy())
    again = first_points(targets, rngs(5, 6, 7))
    torch.testing.assert_close(again, together, rtol=0, atol=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_one_sided_targets_have_points_of_one_sign(fraction: float) -> None:
    targets = np.full((4, 16, 16), bool(fraction))
    points = first_points(targets, rngs(0, 1, 2, 3)).numpy()
    positive, negative = np.split(points[:, :, 0] >= 0, 2, axis=1)
    assert positive.any() == bool(fraction)
    assert not (negative if fraction else positive).any()


def test_next_points_answer_the_deeper_error() -> None:
    target = np.zeros((1, 40, 40), bool)
    target[0, 5:25, 5:25] = True
    missing, false = target.copy(), target.copy()
    missing[0, 5:15, 5:15] = False
    false[0, 30:38, 20:38] = True
    points = first_points(target, rngs(0), most=2)
    after = next_points(points, target, missing, rngs(1))
    y, x, place = after[0, after.shape[1] // 2 - 1].int().tolist()
    assert 5 <= y < 15
    assert 5 <= x < 15
    assert place == 1
    after = next_points(after, target, false, rngs(2))
    y, x, place = after[0, -1].int().tolist()
    assert 30 <= y < 38
    assert place == 2
    assert [len(half) for half in clicks_of(after[0].numpy())] == [
        len(half) + 1 for half in clicks_of(points[0].numpy())
    ]


def test_a_user_who_is_content_does_not_click() -> None:
    targets = np.stack(shapes(2)[:2])
    predicted = np.stack([targets[0], np.zeros_like(targets[1])])
    points = first_points(targets, rngs(0, 1), most=1)
    after = next_points(points, targets, predicted, rngs(2, 3))
    assert clicks_of(after[0].numpy()) == clicks_of(points[0].numpy())
    assert clicks_of(after[1].numpy()) != clicks_of(points[1].numpy())
    assert answer(targets[0], targets[0], rngs(0)[0]) is None


def test_maps_of_new_points_are_the_old_ones_and_one_disk() -> None:
    targets = np.stack(shapes(1)[:2])
    points = first_points(targets, rngs(0, 1))
    after = next_points(points, targets, np.zeros_like(targets), rngs(2, 3))
    before, now = disks(points, 48, 48, 3), disks(after, 48, 48, 3)
    assert (now >= before).all()
    latest = after[:, after.shape[1] // 2 - 1 : after.shape[1] // 2]
    alone = disks(torch.cat([latest, torch.full_like(latest, PADDING)], 1), 48, 48, 3)
    torch.testing.assert_close(now, torch.maximum(before, alone))
