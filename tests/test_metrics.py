"""Every metric against a slow and obvious twin, against the reference numbers, and at its edges."""

from __future__ import annotations

import math
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import stats

from histoclick import metrics
from histoclick.types import HistoclickError

Rows = list[list[float]]


@pytest.fixture
def protocol(shared: Path) -> Path:
    """The folder of golden protocol numbers, made with the published evaluation code."""
    return shared / "conformance" / "protocol"


@st.composite
def trajectories(draw: st.DrawFn) -> tuple[Rows, NDArray[np.float64]]:
    """Ragged rows of IoUs, and the same padded with NaN."""
    budget = draw(st.integers(1, 8))
    # Few distinct values, so that targets are met exactly and rows tie.
    one = st.sampled_from([0.0, 0.25, 0.5, 0.7999999, 0.8, 0.85, 0.9, 1.0])
    rows = draw(st.lists(st.lists(one, min_size=1, max_size=budget), min_size=1, max_size=6))
    return rows, padded(rows, budget)


def padded(rows: Rows, budget: int) -> NDArray[np.float64]:
    table = np.full((len(rows), budget), np.nan)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table


# --- slow twins --------------------------------------------------------------------------------


def slow_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    both = either = 0
    for y in range(a.shape[0]):
        for x in range(a.shape[1]):
            both += bool(a[y, x]) and bool(b[y, x])
            either += bool(a[y, x]) or bool(b[y, x])
    return both / either if either else math.nan


def slow_clicks(row: list[float], target: float, max_clicks: int) -> int:
    for i, value in enumerate(row):
        if value >= target:
            return i + 1
    return max_clicks


def slow_failed(row: list[float], target: float, max_clicks: int) -> bool:
    reached = False
    for i, value in enumerate(row):
        if i < max_clicks and value >= target:
            reached = True
    return not reached


def slow_held(row: list[float], budget: int) -> list[float]:
    row = list(row)
    while len(row) < budget:
        row.append(row[-1])
    return row


def slow_area(row: list[float], budget: int) -> float:
    row = slow_held(row, budget)
    if budget == 1:
        return row[0]
    total = 0.0
    for i in range(budget - 1):
        total += (row[i] + row[i + 1]) / 2
    return total / (budget - 1)


def slow_quantile(values: list[float], q: float) -> float:
    values = sorted(values)
    at = q * (len(values) - 1)
    low = math.floor(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (at - low) * (values[high] - values[low])


def slow_interval(
    values: list[float], slides: list[str], resamples: int, seed: int
) -> tuple[float, float, float]:
    """BCa over slides, one resample at a time, written after Efron (1987)."""
    names = sorted(set(slides))
    groups = [[v for v, s in zip(values, slides, strict=True) if s == name] for name in names]
    mean = sum(values) / len(values)
    picks = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    drawn = []
    for row in picks:
        pooled: list[float] = []
        for index in row:
            pooled.extend(groups[index])
        drawn.append(sum(pooled) / len(pooled))
    below = sum(d < mean - 1e-12 for d in drawn)
    ties = sum(abs(d - mean) <= 1e-12 for d in drawn)
    rank = (below + ties / 2) / resamples
    left_out = []
    for i in range(len(groups)):
        rest = [v for j, group in enumerate(groups) if j != i for v in group]
        left_out.append(sum(rest) / len(rest))
    centre = sum(left_out) / len(left_out)
    spread = sum((centre - v) ** 2 for v in left_out)
    tails = [0.025, 0.975]
    if 0 < rank < 1 and spread > 1e-20:
        bias = float(stats.norm.ppf(rank))
        speed = sum((centre - v) ** 3 for v in left_out) / (6 * spread**1.5)
        moved = []
        for tail in tails:
            z = bias + float(stats.norm.ppf(tail))
            moved.append(float(stats.norm.cdf(bias + z / (1 - speed * z))))
        tails = moved
    return mean, slow_quantile(drawn, tails[0]), slow_quantile(drawn, tails[1])


def slow_p(differences: list[float], slides: list[str]) -> float:
    """All sign patterns over slides, one by one."""
    names = sorted(set(slides))
    sums = [sum(d for d, s in zip(differences, slides, strict=True) if s == name) for name in names]
    observed = abs(sum(sums))
    hits = 0
    for pattern in range(2 ** len(sums)):
        total = 0.0
        for i, value in enumerate(sums):
            total += value if pattern >> i & 1 else -value
        if abs(total) >= observed - 1e-9:
            hits += 1
    return float(hits / 2 ** len(sums))


# --- IoU ---------------------------------------------------------------------------------------


@given(arrays.arrays(np.bool_, (2, 5, 4)))
def test_iou_is_what_counting_pixels_gives(masks: NDArray[np.bool_]) -> None:
    fast, slow = metrics.iou(masks[0], masks[1]), slow_iou(masks[0], masks[1])
    assert fast == slow or (math.isnan(fast) and math.isnan(slow))
    assert metrics.iou(masks[1], masks[0]) == fast or math.isnan(fast)


def test_iou_of_two_empty_masks_is_nan() -> None:
    empty, full = np.zeros((3, 3), bool), np.ones((3, 3), bool)
    assert math.isnan(metrics.iou(empty, empty))
    assert math.isnan(metrics.iou(full, full, ignore=full))
    assert metrics.iou(empty, full) == 0
    assert metrics.iou(full, full) == 1


def test_iou_leaves_ignored_pixels_out_of_both_counts() -> None:
    a = np.array([[1, 1, 0, 0]], bool)
    b = np.array([[1, 0, 1, 0]], bool)
    assert metrics.iou(a, b) == pytest.approx(1 / 3)
    assert metrics.iou(a, b, ignore=np.array([[0, 1, 0, 0]], bool)) == pytest.approx(1 / 2)
    assert metrics.iou(a, b, ignore=np.array([[1, 0, 0, 0]], bool)) == 0


def test_iou_refuses_masks_of_different_size() -> None:
    with pytest.raises(HistoclickError, match="different size"):
        metrics.iou(np.zeros((3, 3), bool), np.zeros((3, 4), bool))


def test_iou_matches_the_reference(protocol: Path) -> None:
    with np.load(protocol / "clicker.npz") as golden:
        cases = sorted({key.split("__")[0] for key in golden.files if key.endswith("__iou")})
        for case in cases:
            truth, ignore, predictions = (
                unpacked(golden, f"{case}__{part}") for part in ("gt1", "ignore", "preds")
            )
            got = [metrics.iou(truth, prediction, ignore) for prediction in predictions]
            np.testing.assert_array_equal(got, golden[f"{case}__iou"])
    assert len(cases) == 28


def unpacked(golden: Any, name: str) -> NDArray[np.bool_]:
    shape = tuple(golden[f"{name}__shape"])
    bits = np.unpackbits(golden[f"{name}__bits"], count=math.prod(shape))
    return np.asarray(bits.reshape(shape).astype(bool))


# --- NoC, NoF ----------------------------------------------------------------------------------


@given(trajectories(), st.sampled_from([0.5, 0.8, 0.85, 0.9]), st.integers(1, 10))
def test_clicks_and_failures_are_what_walking_the_rows_gives(
    case: tuple[Rows, NDArray[np.float64]], target: float, max_clicks: int
) -> None:
    rows, ious = case
    clicks = [slow_clicks(row, target, max_clicks) for row in rows]
    fails = [slow_failed(row, target, max_clicks) for row in rows]
    assert metrics.clicks_to_reach(ious, target, max_clicks).tolist() == clicks
    assert metrics.failed(ious, target, max_clicks).tolist() == fails
    assert metrics.noc(ious, target, max_clicks) == pytest.approx(sum(clicks) / len(clicks))
    assert metrics.nof(ious, target, max_clicks) == sum(fails)


@given(trajectories())
def test_a_higher_target_is_never_easier(case: tuple[Rows, NDArray[np.float64]]) -> None:
    _, ious = case
    budget = ious.shape[1]
    for easy, hard in ((0.5, 0.8), (0.8, 0.85), (0.85, 0.9)):
        clicks = metrics.clicks_to_reach(ious, hard, budget)
        fails = metrics.failed(ious, hard, budget)
        assert (metrics.clicks_to_reach(ious, easy, budget) <= clicks).all()
        assert (metrics.failed(ious, easy, budget) <= fails).all()
        assert (clicks[fails] == budget).all()


def test_reaching_the_target_on_the_last_click_is_no_failure() -> None:
    ious = np.array([[0.1, 0.2, 0.9], [0.1, 0.2, 0.3]])
    assert metrics.clicks_to_reach(ious, 0.9, 3).tolist() == [3, 3]
    assert metrics.failed(ious, 0.9, 3).tolist() == [False, True]
    assert metrics.nof(ious, 0.9, 3) == 1


def test_reaching_the_target_and_losing_it_again_counts_as_reached() -> None:
    ious = np.array([[0.2, 0.95, 0.1, 0.1]])
    assert metrics.noc(ious, 0.9, 4) == 2
    assert metrics.nof(ious, 0.9, 4) == 0


def test_a_click_beyond_the_budget_comes_too_late() -> None:
    ious = np.array([[0.1, 0.2, 0.3, 0.9]])
    assert metrics.failed(ious, 0.9, 3).tolist() == [True]
    assert metrics.failed(ious, 0.9, 4).tolist() == [False]


@pytest.mark.parametrize("max_clicks", [20, 10])
def test_noc_matches_the_reference_exactly(protocol: Path, max_clicks: int) -> None:
    with np.load(protocol / "noc.npz") as golden:
        ious, targets = golden["ious_padded_nan"], golden["thresholds"]
        noc, over = golden[f"noc_max{max_clicks}"], golden[f"over_max{max_clicks}"]
    for i, target in enumerate(targets):
        clicks = metrics.clicks_to_reach(ious, target, max_clicks)
        assert metrics.noc(ious, target, max_clicks) == noc[i]
        assert np.count_nonzero(clicks == max_clicks) == over[i]


def test_nof_leaves_out_what_the_reference_counts_on_the_last_click(protocol: Path) -> None:
    with np.load(protocol / "noc.npz") as golden:
        ious, targets, over = (golden[k] for k in ("ious_padded_nan", "thresholds", "over_max10"))
    on_click_10 = [int((metrics.clicks_to_reach(ious, q, 99) == 10).sum()) for q in targets]
    never = [metrics.nof(ious, q, 20) for q in targets]
    assert never == (over - on_click_10).tolist()
    assert max(on_click_10) > 0  # else this would not tell the two definitions apart


# --- seconds -----------------------------------------------------------------------------------


@given(trajectories(), st.lists(st.floats(0, 10), min_size=6, max_size=6))
def test_seconds_per_click_are_what_adding_up_gives(
    case: tuple[Rows, NDArray[np.float64]], encodes: list[float]
) -> None:
    rows, seconds = case
    encode = encodes[: len(rows)]
    clicks = sum(len(row) for row in rows)
    spent = sum(sum(row) for row in rows)
    assert metrics.seconds_per_click(seconds) == pytest.approx(spent / clicks)
    whole = metrics.with_encode(seconds, np.array(encode))
    amortised = (sum(encode) + spent) / clicks
    assert metrics.seconds_per_click(whole) == pytest.approx(amortised)
    np.testing.assert_array_equal(np.isnan(whole), np.isnan(seconds))


# --- curve -------------------------------------------------------------------------------------


@given(trajectories())
def test_curve_and_area_are_what_walking_the_rows_gives(
    case: tuple[Rows, NDArray[np.float64]],
) -> None:
    rows, ious = case
    budget = ious.shape[1]
    full = [slow_held(row, budget) for row in rows]
    assert metrics.held(ious).tolist() == full
    mean = [sum(row[k] for row in full) / len(full) for k in range(budget)]
    assert metrics.mean_curve(ious) == pytest.approx(mean)
    areas = [slow_area(row, budget) for row in rows]
    assert metrics.curve_area(ious) == pytest.approx(areas)


def test_area_of_a_constant_curve_is_that_constant() -> None:
    assert metrics.curve_area(np.full((2, 20), 0.7)) == pytest.approx([0.7, 0.7])
    assert metrics.curve_area(np.array([[0.4]])).tolist() == [0.4]
    assert metrics.curve_area(np.array([[0.4, np.nan, np.nan]])) == pytest.approx([0.4])


def test_a_row_without_any_click_stays_without_a_number() -> None:
    ious = np.array([[np.nan, np.nan], [0.5, 0.6]])
    assert np.isnan(metrics.held(ious)[0]).all()
    assert metrics.clicks_to_reach(ious, 0.5, 2).tolist() == [2, 1]
    assert metrics.failed(ious, 0.5, 2).tolist() == [True, False]


# --- stability ---------------------------------------------------------------------------------


@given(trajectories(), st.sampled_from([0.0, 0.05, 0.5]))
def test_harm_is_what_comparing_neighbours_gives(
    case: tuple[Rows, NDArray[np.float64]], least: float
) -> None:
    rows, ious = case
    got = metrics.harmful(ious, least)
    assert got.shape == (ious.shape[0], ious.shape[1] - 1)
    for row, found in zip(rows, got.tolist(), strict=True):
        twin = [float(before - after > least) for before, after in pairwise(row)]
        assert found[: len(twin)] == twin
        assert all(math.isnan(value) for value in found[len(twin) :])


def test_harm_of_what_stays_equal_is_none() -> None:
    assert metrics.harmful(np.array([[0.3, 0.3, 0.7, 0.7]])).tolist() == [[0, 0, 0]]
    assert metrics.harmful(np.array([[0.5, 0.4375]]), 0.0625).tolist() == [[0]]  # not more


flips = st.lists(
    st.lists(
        st.integers(0, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
        min_size=3,
        max_size=3,
    ),
    min_size=1,
    max_size=4,
)


@given(flips)
def test_far_share_is_what_dividing_one_by_one_gives(rows: list[list[tuple[int, int]]]) -> None:
    got = metrics.far_share(np.array(rows, float))
    for row, found in zip(rows, got.tolist(), strict=True):
        for (flipped, far), share in zip(row, found, strict=True):
            assert share == far / flipped if flipped else math.isnan(share)


def test_far_share_of_no_click_is_no_number() -> None:
    assert np.isnan(metrics.far_share(np.full((1, 2, 2), np.nan))).all()


# --- intervals ---------------------------------------------------------------------------------

clusters = st.lists(
    st.tuples(st.sampled_from("abcdefg"), st.sampled_from([0.0, 1.0, 2.5, 7.0, 20.0])),
    min_size=2,
    max_size=15,
)


@given(clusters)
@settings(max_examples=25, deadline=None)
def test_interval_is_what_resampling_slide_by_slide_gives(case: list[tuple[str, float]]) -> None:
    slides, values = [s for s, _ in case], [v for _, v in case]
    got = metrics.mean_interval(np.array(values), slides, resamples=200, seed=3)
    if len(set(slides)) == 1:
        assert got.mean == pytest.approx(sum(values) / len(values))
        assert math.isnan(got.low)
        assert math.isnan(got.high)
    else:
        twin = slow_interval(values, slides, 200, 3)
        assert (got.mean, got.low, got.high) == pytest.approx(twin, abs=1e-9)


def test_interval_agrees_with_scipy_where_every_slide_has_one_patch() -> None:
    values = np.random.default_rng(1).exponential(5, 40)
    ours = metrics.mean_interval(values, np.arange(40), resamples=50_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=50_000, method="BCa", rng=2)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.06)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.06)


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = naive = 0
    for _ in range(200):
        # 25 slides of 8 patches; patches of a slide share most of their deviation.
        values = 3 + rng.normal(0, 1, 25).repeat(8) + rng.normal(0, 0.3, 200)
        ours = metrics.mean_interval(values, np.arange(25).repeat(8), resamples=500)
        covered += ours.low <= 3 <= ours.high
        naive += abs(values.mean() - 3) <= 1.96 * values.std() / math.sqrt(200)
    assert 0.88 <= covered / 200 <= 0.99
    assert naive / 200 < 0.75  # treating patches as independent would claim far too much


def test_interval_does_not_depend_on_the_order_of_rows_nor_on_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    values, slides = rng.random(30), rng.choice(list("abcde"), 30)
    once = metrics.mean_interval(values, slides, resamples=300)
    order = rng.permutation(30)
    shuffled = metrics.mean_interval(values[order], slides[order], resamples=300)
    assert astuple(shuffled) == pytest.approx(astuple(once))
    monkeypatch.setattr(metrics, "BLOCK", 35)  # seven resamples of five slides at a time
    blockwise = metrics.mean_interval(values, slides, resamples=300)
    assert astuple(blockwise) == pytest.approx(astuple(once))
    assert metrics.mean_interval(values, slides, resamples=300, seed=1).low != once.low


def test_intervals_of_columns_are_the_intervals_of_each() -> None:
    rng = np.random.default_rng(0)
    values, slides = rng.random((30, 3)), rng.choice(list("abcde"), 30)
    together = metrics.mean_intervals(values, slides, resamples=300)
    for i, interval in enumerate(together):
        alone = metrics.mean_interval(values[:, i], slides, resamples=300)
        assert astuple(alone) == pytest.approx(astuple(interval))


def test_a_wider_level_gives_a_wider_interval() -> None:
    values, slides = np.random.default_rng(0).random(30), np.arange(30)
    narrow = metrics.mean_interval(values, slides, level=0.5)
    wide = metrics.mean_interval(values, slides, level=0.99)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_equal_values_have_an_interval_of_no_width() -> None:
    got = metrics.mean_interval(np.full(6, 0.7), list("aabbcc"), resamples=100)
    assert (got.mean, got.low, got.high) == pytest.approx((0.7, 0.7, 0.7))


@pytest.mark.parametrize(
    ("values", "slides", "why"),
    [
        ([], [], "at least one"),
        ([1.0, 2.0], ["a"], "one slide name"),
        ([1.0, math.nan], ["a", "b"], "finite"),
        ([1.0, math.inf], ["a", "b"], "finite"),
    ],
)
def test_intervals_refuse_what_has_no_mean(
    values: list[float], slides: list[str], why: str
) -> None:
    with pytest.raises(HistoclickError, match=why):
        metrics.mean_interval(np.array(values), slides)


# --- paired differences ------------------------------------------------------------------------


@given(clusters, st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_difference_is_what_all_sign_patterns_give(
    case: list[tuple[str, float]], seed: int
) -> None:
    slides, values = [s for s, _ in case], [v for _, v in case]
    baseline = np.random.default_rng(seed).integers(0, 21, len(values)).astype(float)
    differences = [v - b for v, b in zip(values, baseline.tolist(), strict=True)]
    got = metrics.paired_difference(np.array(values), baseline, slides, resamples=100)
    assert got.p == pytest.approx(slow_p(differences, slides))
    assert got.mean == pytest.approx(sum(differences) / len(differences))
    interval = metrics.mean_interval(np.array(differences), slides, resamples=100)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high), nan_ok=True)


def test_difference_with_many_slides_draws_sign_patterns() -> None:
    rng = np.random.default_rng(0)
    slides = np.arange(40)
    base = rng.normal(size=40)
    none = metrics.paired_difference(base + rng.normal(0, 1, 40), base, slides, resamples=2000)
    clear = metrics.paired_difference(base + 1 + rng.normal(0, 1, 40), base, slides, resamples=2000)
    twin = stats.permutation_test(
        (base + 1, base),
        lambda a, b: (a - b).mean(),
        permutation_type="samples",
        n_resamples=200,
        rng=1,
    )
    assert none.p > 0.05
    assert clear.p == pytest.approx(1 / 2001)
    assert twin.pvalue == pytest.approx(2 / 201)  # scipy doubles the smaller tail: same verdict


def test_drawn_and_exact_p_values_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(4).normal(0.4, 1, 12)
    exact = metrics.paired_difference(differences, np.zeros(12), np.arange(12)).p
    monkeypatch.setattr(metrics, "EXACT_SLIDES", 11)
    drawn = metrics.paired_difference(differences, np.zeros(12), np.arange(12)).p
    assert 0.01 < exact < 0.99
    assert drawn == pytest.approx(exact, abs=0.02)


def test_difference_of_a_run_to_itself_is_nothing() -> None:
    values = np.random.default_rng(0).random(9)
    got = metrics.paired_difference(values, values, list("aaabbbccc"))
    assert (got.mean, got.low, got.high, got.p) == (0, 0, 0, 1)


def test_differences_count_slides_and_not_patches() -> None:
    better = np.ones(200)
    one_slide = metrics.paired_difference(better, np.zeros(200), ["a"] * 200)
    assert one_slide.p == 1
    ten = metrics.paired_difference(better, np.zeros(200), np.arange(200) % 10)
    assert ten.p == pytest.approx(2 / 2**10)
