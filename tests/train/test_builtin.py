"""The training of the built-in model, in miniature."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fakes import make_samples
from histoclick.patches import write_patch_set
from histoclick.train import augment, builtin, crops, objects
from histoclick.train.losses import dice_loss, normalized_focal_loss
from histoclick.train.trajectories import Trajectories


@pytest.fixture
def sets(tmp_path: Path) -> list:
    return crops.read_folders([write_patch_set(make_samples(3, 128), tmp_path / "a").folder])


def test_batches_are_a_function_of_seed_and_step(sets: list) -> None:
    one, again, other = (crops.draw(sets, 0, step) for step in (5, 5, 6))
    torch.testing.assert_close(one.images, again.images)
    np.testing.assert_array_equal(one.targets, again.targets)
    assert not torch.equal(one.images, other.images)
    assert one.targets.shape == (crops.IMAGES * crops.USERS, crops.CROP, crops.CROP)
    assert one.images.abs().max() <= 1


@pytest.mark.parametrize("seed", range(20))
def test_targets_can_be_clicked(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    labels = np.zeros((64, 64), np.uint16)
    labels[5:30, 5:30], labels[30:50, 5:30] = 1, 2
    target = objects.choose(cv2.GaussianBlur(image, (0, 0), 4), labels, rng)
    assert target.dtype == bool
    assert 0 < target.mean() < 1
    assert objects.corrupt(target, rng).shape == target.shape


def test_touching_instances_are_separate_components() -> None:
    labels = np.zeros((64, 64), np.uint16)
    labels[5:30, 5:30], labels[30:50, 5:30] = 1, 2
    image = np.full((64, 64, 3), 128, np.uint8)
    areas = {int(objects.choose(image, labels, np.random.default_rng(s)).sum()) for s in range(60)}
    assert {25 * 25, 20 * 25} <= areas


def test_views_move_image_and_mask_together() -> None:
    labels = np.zeros((90, 140), np.uint16)
    labels[20:60, 30:100] = 1
    image = np.repeat(labels[..., None] * 200, 3, 2).astype(np.uint8)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        scale = rng.uniform(0.5, 2.0)
        view, moved = augment.view(image, labels, 96, scale, rng)
        assert view.shape == (96, 96, 3)
        agreement = ((view[..., 0] > 100) == (moved > 0)).mean()
        assert agreement > 0.97


def test_appearance_changes_colours_and_not_the_input() -> None:
    image = np.full((32, 32, 3), (180, 120, 190), np.uint8)
    before = image.copy()
    changed = [augment.appearance(image, np.random.default_rng(s)) for s in range(10)]
    np.testing.assert_array_equal(image, before)
    assert all(c.shape == image.shape and c.dtype == np.uint8 for c in changed)
    assert len({c.tobytes() for c in changed}) > 5


def test_focal_loss_is_the_reference_s(shared: Path) -> None:
    golden = np.load(shared / "conformance/protocol/losses.npz")
    label = torch.from_numpy(golden["label"])
    logits = torch.from_numpy(golden["logits"]).requires_grad_()
    loss = normalized_focal_loss(logits, label)
    np.testing.assert_allclose(loss.detach(), golden["nfl_a05_g2_loss"], rtol=1e-5, atol=1e-7)
    loss.mean().backward()
    expected = golden["nfl_a05_g2_grad_of_mean"]
    np.testing.assert_allclose(logits.grad, expected, rtol=1e-4, atol=1e-7)


def test_dice_of_a_perfect_and_of_an_opposite_mask() -> None:
    target = torch.zeros(1, 1, 8, 8)
    target[..., :4] = 1
    certain = (target * 2 - 1) * 50
    assert dice_loss(certain, target).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(-certain, target).item() == pytest.approx(1 - 1 / 65, abs=1e-6)


def test_simulated_users_answer_what_is_wrong() -> None:
    targets = np.zeros((2, 32, 32), bool)
    targets[0, 8:20, 8:20] = targets[1, 4:10, 4:28] = True
    users = Trajectories(targets, np.random.default_rng(0))
    users.click(np.zeros_like(targets))
    users.click(targets)  # nothing is wrong, so nobody clicks
    clicks = users.tensor()
    assert clicks.shape == (2, 1, 3)
    for target, (x, y, sign) in zip(targets, clicks[:, 0].int().tolist(), strict=True):
        assert sign == 1
        assert target[y, x]
        assert users.weights()[0, 0].max() == pytest.approx(4.0)


@pytest.mark.filterwarnings("ignore:Conversion")
def test_an_interrupted_training_is_the_same_training(
    tmp_path: Path, sets: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps at once, and three steps with a stop after the second."""
    monkeypatch.setattr(crops, "IMAGES", 2)
    monkeypatch.setattr(crops, "CROP", 64)
    trunk = tmp_path / "trunk.pt"
    torch.manual_seed(1)
    torch.save(builtin.DenseClickNet(norm=False).trunk.state_dict(), trunk)

    def run(out: Path, steps: int) -> dict:
        with monkeypatch.context() as patch:
            ticks = iter(range(10_000))  # every step takes a minute
            patch.setattr(builtin.time, "monotonic", lambda: 60.0 * next(ticks))
            builtin.train([tmp_path / "a"], out, trunk=trunk, minutes=3, session=steps)
        return torch.load(out / "checkpoint.pt", weights_only=True)

    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "cut", 2)
    cut = run(tmp_path / "cut", 1)
    assert whole["step"] == cut["step"] == 3
    for key, value in whole["net"].items():
        torch.testing.assert_close(cut["net"][key], value, rtol=0, atol=0)
    logs = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1]
