"""The training of the built-in model, in miniature."""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import make_samples
from histoclick.models import registry
from histoclick.models.card import read_card
from histoclick.models.gatedclick.network import Decoded
from histoclick.patches import write_patch_set
from histoclick.train import augment, builtin, course, crops, lessons, objects
from histoclick.train.families import gatedclick
from histoclick.train.families.gatedclick import Turn, turn_loss
from histoclick.train.losses import dice_loss, normalized_focal_loss
from histoclick.train.trajectories import Trajectories
from histoclick.types import Click, HistoclickError, Prompt

SMALL = crops.Recipe(crop=64, images=2)


@pytest.fixture
def sets(tmp_path: Path) -> list:
    return crops.read_folders([write_patch_set(make_samples(3, 128), tmp_path / "a").folder])


def test_batches_are_a_function_of_seed_and_step(sets: list) -> None:
    one, again, other = (crops.draw(sets, 0, step) for step in (5, 5, 6))
    torch.testing.assert_close(one.images, again.images)
    np.testing.assert_array_equal(one.targets, again.targets)
    assert not torch.equal(one.images, other.images)
    assert one.targets.shape == (12, 256, 256)
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
    trunk = tmp_path / "trunk.pt"
    torch.manual_seed(1)
    torch.save(builtin.DenseClickNet(norm=False).trunk.state_dict(), trunk)

    def run(out: Path, steps: int) -> dict:
        with monkeypatch.context() as patch:
            ticks = iter(range(10_000))  # every step takes a minute
            patch.setattr(course.time, "monotonic", lambda: 60.0 * next(ticks))
            budget = course.Budget(minutes=3, session=steps)
            builtin.train([tmp_path / "a"], out, budget, trunk=trunk, recipe=SMALL)
        return torch.load(out / "checkpoint.pt", weights_only=True)

    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "cut", 2)
    cut = run(tmp_path / "cut", 1)
    assert whole["step"] == cut["step"] == 3
    for key, value in whole["net"].items():
        torch.testing.assert_close(cut["net"][key], value, rtol=0, atol=0)
    logs = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1]


@pytest.mark.filterwarnings("ignore:Conversion", "ignore:Converting a tensor")
def test_the_larger_network_is_made_by_its_settings(
    tmp_path: Path, sets: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps on small crops, and from the command line to a model that answers."""
    model = tmp_path / "mine"
    card = replace(registry.find("discs")[0], id="mine", family="gatedclick", architecture="base")
    model.mkdir()
    replace(card, input_size=64).write(model)
    file = Path(builtin.__file__).with_name("base.toml")
    words = f"--settings {file} --random --device cpu --steps 2 --crop 64 --images 2 --users 1"
    folders = ["--data", tmp_path / "a", "--out", tmp_path / "work", "--card", model]
    monkeypatch.setattr(sys, "argv", ["builtin", *words.split(), *map(str, folders)])
    builtin.main()
    assert len((tmp_path / "work/log.csv").read_text().splitlines()) == 3
    parameters = read_card(model).parameters
    assert parameters == 3_368_844
    size = (model / "weights.safetensors").stat().st_size
    assert 2 * parameters < size < 2.01 * parameters
    segmenter = registry.load(model)
    prompt = Prompt((Click(20, 30),))
    answer = segmenter.predict(segmenter.encode(np.zeros((70, 50, 3), np.uint8)), prompt)
    assert answer.logits.shape == (70, 50)
    assert np.isfinite(answer.logits).all()


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_told(tmp_path: Path, device: str) -> None:
    with pytest.raises(HistoclickError, match=f"device '{device}' cannot be used here"):
        builtin.train([], tmp_path, course.Budget(steps=1), device=device)


@pytest.mark.filterwarnings("ignore:Converting a tensor")
@pytest.mark.parametrize("stop", [1.0, 0.1])
def test_a_gated_network_learns_in_all_its_parts(sets: list, stop: float) -> None:
    """After one click its gate has nothing to keep and its refiner nothing to mend."""
    net = builtin.build("small", norm=False)
    builtin.take_over(net, registry.find("histoclick-tiny")[1])
    torch.nn.init.normal_(net.refiner.head.weight)  # else nothing behind it learns at first
    step = 2  # its targets are found, and its users do not start from a mask
    batch = crops.draw(sets, 0, step, replace(SMALL, stop=stop))
    loss, iou = lessons.lesson(net, batch, np.random.default_rng(0))
    loss.backward()
    assert 0 <= iou <= 1
    silent = {
        name.split(".")[0]
        for name, parameter in net.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    }
    begun = stop < 1 or batch.start.any()
    assert (batch.clicks > 1) == (stop < 1)
    assert silent - {"judge"} == (set() if begun else {"gate", "refiner"})


def test_what_a_gated_network_takes_over_is_the_first_model(sets: list) -> None:
    """Its first proposals are histoclick-tiny's answers."""
    folder = registry.find("histoclick-tiny")[1]
    nets = [builtin.build(each, norm=False).eval() for each in (builtin.DENSE, "small")]
    for net in nets:
        builtin.take_over(net, folder)
    images = crops.to_input(crops.draw(sets, 0, 0).images[:1].clamp(0, 1) * 255)
    clicks = torch.tensor([[[30.0, 40.0, 1.0], [90.0, 20.0, -1.0]]])
    before = torch.randn(1, 1, *images.shape[2:])
    with torch.no_grad():
        dense, gated = (net.encode(images) for net in nets)
        expected = nets[0].decode(
            dense, clicks, torch.nn.functional.avg_pool2d(before.sigmoid(), 2)
        )
        found = nets[1].decode(gated, clicks, before, torch.ones(1)).proposal
    torch.testing.assert_close(found, expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9999))
def test_turn_loss_against_its_definition(seed: int) -> None:
    """The part for harm and the part for obeying, pixel by pixel."""
    torch.manual_seed(seed)
    logits, before = torch.randn(2, 1, 1, 16, 16) * 3
    target = (torch.rand(1, 1, 16, 16) > 0.5).float()
    clicks = torch.tensor([[[3.0, 4.0, 1.0], [9.0, 12.0, -1.0], [0, 0, 0]]])
    decoded = Decoded(logits, torch.zeros(1, 1, 8, 8), None, torch.tensor([0.4]))
    turn = Turn(clicks, before, torch.ones(1), decoded)
    harm = 0.0
    for y in range(16):
        for x in range(16):
            wanted = float(target[0, 0, y, x])
            was, now = (abs(wanted - m[0, 0, y, x].sigmoid().item()) for m in (before, logits))
            if was < 0.5:
                away = 1 - np.exp(-np.hypot(x - 9, y - 12) / gatedclick.HARM_PX)
                harm += max(now - was, 0) * away / 256
    said = [float(logits[0, 0, 4, 3]), -float(logits[0, 0, 12, 9])]
    obey = np.mean([np.log1p(np.exp(-each)) for each in said])
    plain = (
        normalized_focal_loss(logits, target)
        + gatedclick.DICE * dice_loss(logits, target)
        + gatedclick.PROPOSAL * normalized_focal_loss(torch.zeros(1, 1, 16, 16), target)
        + gatedclick.QUALITY * (0.4 - gatedclick.iou(logits > 0, target > 0.5)) ** 2
    )
    expected = float(plain) + gatedclick.OBEY * obey + gatedclick.HARM * harm
    assert float(turn_loss(turn, target)) == pytest.approx(expected, rel=1e-4)
