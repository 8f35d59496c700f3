from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from histoclick.clicks import inner_distance_squared, next_click, sample_click
from histoclick.types import Click

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
