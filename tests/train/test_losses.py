"""Losses: held to the reference, and safe where the reference is not."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from histoclick.train.losses import (
    binary_cross_entropy,
    border_focal_loss,
    dice_loss,
    normalized_focal_loss,
)

Loss = Callable[[Tensor, Tensor], Tensor]


# Of gradients up to 7e-4: the reference rounds 1 - |target - probability| before the logarithm, and
# is that far from float64 where a pixel is very wrong; ours is within 1e-9.
ATOL = 3e-7


class Case:
    """A loss of the reference: what we call for it, on which arrays, and how it is scaled."""

    def __init__(
        self, loss: Loss, label: str = "label", logits: str = "logits", gain: float = 1.0
    ) -> None:
        self.loss, self.label, self.logits, self.gain = loss, label, logits, gain


nfl = normalized_focal_loss
CASES = {
    "nfl_a05_g2": Case(nfl),
    "nfl_a05_g2_ignore": Case(nfl, "label_ignore"),
    "nfl_a05_g2_allfg": Case(lambda x, t: nfl(x, torch.ones_like(t))),
    "nfl_a05_g2_allbg": Case(lambda x, t: nfl(x, torch.zeros_like(t))),
    "nfl_a05_g2_perfect": Case(nfl, logits="logits_perfect"),
    "nfl_default": Case(partial(nfl, alpha=0.25)),
    "nfl_default_ignore": Case(partial(nfl, alpha=0.25), "label_ignore"),
    "nfl_g1": Case(partial(nfl, gamma=1.0, alpha=0.3)),
    "nfl_w2": Case(nfl, gain=2.0),
    "wfnl_noweight": Case(nfl),
    "bce": Case(binary_cross_entropy),
    "bce_ignore": Case(binary_cross_entropy, "label_ignore"),
}
LEFT_OUT = {  # in the reference's code, in none of the published trainings
    "nfl_a05_g2_soft": "targets are masks",
    "nfl_sum": "the sum over pixels makes the loss depend on the size of the crop",
    "nfl_sum_ignore": "the same",
    "nfl_nodetach": "a gradient through the normalisation",
    "nfl_maxmult1.5": "an upper limit of the normalised focus",
    "softiou": "what we offer for overlap is Dice",
    "softiou_ignore": "the same",
    "focal": "the focal loss without normalisation",
}
ELSEWHERE = {"wfnl_w05"}  # a test of its own


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Tensor]:
    with np.load(shared / "conformance/protocol/losses.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_every_loss_of_the_reference_is_offered_or_left_out(golden: dict[str, Tensor]) -> None:
    names = {name.removesuffix("_loss") for name in golden if name.endswith("_loss")}
    assert names == {*CASES, *LEFT_OUT, *ELSEWHERE}


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_are_the_reference_s(name: str, golden: dict[str, Tensor]) -> None:
    case = CASES[name]
    logits = golden[case.logits].clone().requires_grad_()
    loss = case.gain * case.loss(logits, golden[case.label])
    torch.testing.assert_close(loss, golden[f"{name}_loss"], rtol=1e-5, atol=1e-7)
    loss.mean().backward()
    expected = golden[f"{name}_grad_of_mean"]
    torch.testing.assert_close(logits.grad, expected, rtol=1e-5, atol=ATOL)


def test_border_loss_is_the_reference_s_within_each_sample(golden: dict[str, Tensor]) -> None:
    """The reference takes one mean over the batch; ours, put together by weight, is that."""
    logits = golden["logits"].clone().requires_grad_()
    loss = border_focal_loss(logits, golden["label"], golden["trimap"])
    assert loss.shape == (3,)
    weight = (0.5 + 0.5 * golden["trimap"]).sum((1, 2, 3))
    whole = (loss * weight).sum() / weight.sum()
    torch.testing.assert_close(whole[None], golden["wfnl_w05_loss"], rtol=1e-5, atol=1e-7)
    whole.backward()
    expected = golden["wfnl_w05_grad_of_mean"]
    torch.testing.assert_close(logits.grad, expected, rtol=1e-5, atol=ATOL)


def slow_focal_loss(logits: np.ndarray, target: np.ndarray, gamma: float, alpha: float) -> float:
    """One sample, pixel by pixel, in float64."""
    wrong, right, sides = [], [], []
    for x, t in zip(logits.ravel().tolist(), target.ravel().tolist(), strict=True):
        if t >= 0:
            probability = 1 / (1 + np.exp(-x))
            wrong.append(abs(t - probability))
            right.append(1 - abs(t - probability))
            sides.append(alpha if t > 0.5 else 1 - alpha)
    focus = np.array(wrong) ** gamma
    focus *= len(focus) / focus.sum()
    return float(np.mean(-np.array(sides) * focus * np.log(right)))


def test_gradients_are_those_of_float64(golden: dict[str, Tensor]) -> None:
    logits, label = golden["logits"].clone().requires_grad_(), golden["label"]
    normalized_focal_loss(logits, label).mean().backward()
    exact = golden["logits"].double().requires_grad_()
    wrong = (label - torch.sigmoid(exact)).abs()
    scale = wrong[0].numel() / wrong.square().sum((1, 2, 3), keepdim=True).detach()
    (-0.5 * wrong.square() * scale * torch.log(1 - wrong)).mean().backward()
    torch.testing.assert_close(logits.grad, exact.grad.float(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.0])
def test_focal_loss_has_a_slow_twin(gamma: float) -> None:
    rng = np.random.default_rng(int(gamma))
    logits = rng.normal(0, 3, (4, 1, 5, 7)).astype(np.float32)
    target = rng.choice([-1, 0, 1], (4, 1, 5, 7)).astype(np.float32)
    ours = normalized_focal_loss(
        torch.from_numpy(logits), torch.from_numpy(target), gamma=gamma, alpha=0.3
    )
    twin = [slow_focal_loss(*each, gamma, 0.3) for each in zip(logits, target, strict=True)]
    np.testing.assert_allclose(ours, twin, rtol=1e-5)


ALL: dict[str, Loss] = {
    "focal": normalized_focal_loss,
    "border": lambda x, t: border_focal_loss(x, t, (t > 0).float()),
    "entropy": binary_cross_entropy,
    "dice": dice_loss,
}


@pytest.mark.parametrize("name", ALL)
def test_samples_do_not_see_each_other(name: str) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(5, 1, 6, 6), (torch.rand(5, 1, 6, 6) > 0.4).float()
    together = ALL[name](logits, target)
    alone = [ALL[name](logits[i : i + 1], target[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("name", ALL)
def test_what_is_ignored_has_no_say(name: str) -> None:
    torch.manual_seed(1)
    logits, target = torch.randn(2, 1, 6, 6), (torch.rand(2, 1, 6, 6) > 0.4).float()
    target[:, :, :2] = -1
    other = logits.clone()
    other[:, :, :2] = 7
    other.requires_grad_()
    loss = ALL[name](other, target)
    torch.testing.assert_close(loss, ALL[name](logits, target))
    loss.sum().backward()
    assert other.grad is not None
    assert not other.grad[:, :, :2].any()
    assert other.grad[:, :, 2:].any()


@pytest.mark.parametrize("name", ALL)
def test_certain_logits_and_one_sided_targets_stay_finite(name: str) -> None:
    """Right and wrong, by far; all object, no object, all ignored."""
    for value in (-1e4, -30.0, 0.0, 30.0, 1e4):
        for label in (-1.0, 0.0, 1.0):
            logits = torch.full((1, 1, 4, 4), value, requires_grad=True)
            loss = ALL[name](logits, torch.full((1, 1, 4, 4), label))
            assert loss.isfinite().all()
            assert loss >= 0
            loss.sum().backward()
            assert logits.grad is not None
            assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", ["focal", "border", "entropy"])
def test_a_hopelessly_wrong_pixel_still_learns(name: str) -> None:
    logits = torch.full((1, 1, 4, 4), -200.0, requires_grad=True)
    ALL[name](logits, torch.ones(1, 1, 4, 4)).sum().backward()
    assert logits.grad is not None
    assert (logits.grad < 0).all()


@pytest.mark.parametrize("name", ALL)
def test_losses_are_float32_in_mixed_precision(name: str) -> None:
    torch.manual_seed(2)
    target = (torch.rand(2, 1, 16, 16) > 0.5).float()
    logits = ((target * 2 - 1) * 9 + torch.randn(2, 1, 16, 16)).bfloat16()  # nearly perfect
    with torch.autocast("cpu", torch.bfloat16):
        mixed = ALL[name](logits, target)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, ALL[name](logits.float(), target), rtol=0, atol=0)


def test_entropy_is_torch_s() -> None:
    torch.manual_seed(3)
    logits, target = torch.randn(3, 1, 8, 8), torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(
        binary_cross_entropy(logits, target).mean(),
        F.binary_cross_entropy_with_logits(logits, target),
    )
