"""Decoders that learn from a frozen trunk's features."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fakes import make_samples
from histoclick.models.nets.mobilenet import MobileNetV2
from histoclick.patches import write_patch_set
from histoclick.train import builtin, crops, pool
from histoclick.train.course import Budget, learn
from histoclick.types import HistoclickError

SMALL = crops.Recipe(crop=64, images=2, long_side=(64, 96))


@pytest.fixture
def sets(tmp_path: Path) -> list:
    return crops.read_folders([write_patch_set(make_samples(3, 128), tmp_path / "a").folder])


@pytest.fixture
def trunk() -> MobileNetV2:
    torch.manual_seed(0)
    return MobileNetV2(norm=False).eval()


@pytest.mark.parametrize(
    "architecture", ["small", "small-sam", "small-paper", "small-segnext", "small-merge"]
)
def test_every_decoder_learns_and_leaves_the_trunk_alone(
    architecture: str, sets: list, trunk: MobileNetV2, tmp_path: Path
) -> None:
    """Step by step in sessions of its own it is the same training."""
    held = pool.make_pool(sets, trunk, tmp_path / "pool", 4, 0, SMALL)
    recipe = replace(SMALL, stop=0.6)

    def run(name: str, *budgets: Budget) -> dict:
        out = tmp_path / name
        out.mkdir()
        for budget in budgets:
            torch.manual_seed(3)
            net = builtin.build(architecture, norm=False)
            net.trunk.load_state_dict(trunk.state_dict())
            net.trunk.requires_grad_(False)
            learn(
                net, lambda step: held.draw(1, step, recipe), out, budget,
                seed=1, rate=2e-3, begin=lambda: None,
            )  # fmt: skip
        return torch.load(out / "checkpoint.pt", weights_only=True)

    whole = run("whole", Budget(steps=2))
    cut = run("cut", *[Budget(steps=2, session=1e-9)] * 2)
    assert cut["step"] == 2
    for key, value in cut["net"].items():
        torch.testing.assert_close(whole["net"][key], value, rtol=0, atol=0)
        if key.startswith("trunk."):
            torch.testing.assert_close(value, trunk.state_dict()[key.removeprefix("trunk.")])
    lines = np.loadtxt(tmp_path / "cut/log.csv", delimiter=",", skiprows=1)
    assert list(lines[:, 0]) == [1, 2]
    assert np.isfinite(lines).all()


def test_features_are_the_trunk_s(sets: list, trunk: MobileNetV2, tmp_path: Path) -> None:
    held = pool.make_pool(sets, trunk, tmp_path / "pool", 5, 0, SMALL)
    batch = held.draw(0, 0, SMALL)
    assert batch.features is not None
    with torch.no_grad():
        for found, expected in zip(batch.features, trunk(batch.images), strict=True):
            torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    again, other = held.draw(0, 0, SMALL), held.draw(0, 1, SMALL)
    np.testing.assert_array_equal(batch.targets, again.targets)
    assert not np.array_equal(batch.targets, other.targets)
    assert batch.targets.shape == (4, 64, 64)


def test_a_pool_goes_on_where_it_stopped(sets: list, trunk: MobileNetV2, tmp_path: Path) -> None:
    whole = pool.make_pool(sets, trunk, tmp_path / "whole", 10, 0, SMALL)

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.make_pool(sets, trunk, tmp_path / "cut", 10, 0, SMALL, stop)
    with pytest.raises(HistoclickError, match="not finished"):
        pool.read_pool(tmp_path / "cut")
    cut = pool.make_pool(sets, trunk, tmp_path / "cut", 10, 0, SMALL)
    for name in ("images", "labels", "pasted"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(cut, name))
    for one, other in zip(whole.features, cut.features, strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_pool_is_refused(sets: list, trunk: MobileNetV2, tmp_path: Path) -> None:
    pool.make_pool(sets, trunk, tmp_path / "pool", 2, 0, SMALL)
    with pytest.raises(HistoclickError, match="other settings"):
        pool.make_pool(sets, trunk, tmp_path / "pool", 3, 0, SMALL)
    with pytest.raises(HistoclickError, match="at least 1"):
        pool.make_pool(sets, trunk, tmp_path / "none", 0, 0, SMALL)
    with pytest.raises(HistoclickError, match="no pool"):
        pool.read_pool(tmp_path / "none")


@pytest.mark.parametrize(
    "wrong", [{"crop": 50}, {"images": 0}, {"long_side": (9, 5)}, {"stop": 0.0}, {"stop": 1.5}]
)
def test_impossible_recipes(wrong: dict) -> None:
    with pytest.raises(HistoclickError, match="recipe"):
        crops.Recipe(**wrong)


def test_a_budget_has_an_end() -> None:
    with pytest.raises(HistoclickError, match="an end"):
        Budget()
    assert Budget(steps=4).progress(3, 1e9) == 0.75
    assert Budget(minutes=2).progress(10**9, 60.0) == 0.5
