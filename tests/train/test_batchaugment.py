"""Augmentation of tensors: as the one of arrays, sample by sample, and nothing where nothing is
asked for."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fakes import make_samples
from histoclick.train import augment
from histoclick.train.batchaugment import (
    Augmentation,
    Change,
    blur,
    compress,
    draw_change,
    move,
    recolour,
    restain,
)
from histoclick.train.d4 import d4

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
NOTHING = Augmentation(turn=False, scale=(1, 1), stained=0, blurred=0, compressed=0)
EVERYTHING = Augmentation(stained=1, blurred=0.5, compressed=0.5)


def batch(count: int = 3, side: int = 64, device: str = "cpu") -> tuple[Tensor, Tensor]:
    samples = make_samples(count, side)
    images = np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2)
    masks = np.stack([sample.mask for sample in samples])[:, None]
    tensors = torch.from_numpy(images.astype(np.float32) / 255), torch.from_numpy(masks)
    return tensors[0].to(device), tensors[1].to(device)


def changes(rule: Augmentation, count: int, step: int = 0) -> list[Change]:
    return [draw_change(rule, np.random.default_rng([7, step, i])) for i in range(count)]


def to_levels(image: Tensor) -> np.ndarray:
    """(3, H, W) 0..1 to (H, W, 3) uint8."""
    return (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def test_nothing_asked_for_is_nothing_done() -> None:
    images, masks = batch()
    drawn = changes(NOTHING, 3)
    assert all(dataclasses.replace(change, origin=Change.origin) == Change() for change in drawn)
    moved, moved_masks = move(images, masks, drawn, 64)
    torch.testing.assert_close(moved, images, rtol=0, atol=2e-5)
    assert torch.equal(moved_masks, masks)
    torch.testing.assert_close(recolour(images, drawn), images, rtol=0, atol=2e-6)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_changes_are_in_their_ranges_and_seeded(seed: int) -> None:
    rule = Augmentation(stained=0.5)
    change = draw_change(rule, np.random.default_rng(seed))
    assert change == draw_change(rule, np.random.default_rng(seed))
    assert change.view in range(8)
    assert rule.scale[0] <= change.scale <= rule.scale[1]
    assert all(0 <= each < 1 for each in change.origin)
    assert all(rule.stain[0] <= each <= rule.stain[1] for each in change.stain)
    assert all(abs(each) <= rule.shift for each in change.shift)
    assert change.blur_px == 0 or rule.blur_px[0] <= change.blur_px <= rule.blur_px[1]
    assert change.quality == 0 or rule.quality[0] <= change.quality <= rule.quality[1]
    assert not (change.blur_px and change.quality)


def test_chances_are_met() -> None:
    drawn = [draw_change(Augmentation(), np.random.default_rng(i)) for i in range(2000)]
    assert np.mean([change.stain != Change.stain for change in drawn]) == pytest.approx(
        0.8, abs=0.04
    )
    assert np.mean([change.blur_px > 0 for change in drawn]) == pytest.approx(0.2, abs=0.04)
    assert np.mean([change.quality > 0 for change in drawn]) == pytest.approx(0.2, abs=0.04)
    views = np.bincount([change.view for change in drawn], minlength=8) / 2000
    np.testing.assert_allclose(views, 1 / 8, atol=0.035)
    assert np.median([change.scale for change in drawn]) == pytest.approx(
        np.sqrt(0.75 * 1.4), abs=0.03
    )


@pytest.mark.parametrize("device", DEVICES)
def test_samples_do_not_depend_on_their_batch(device: str) -> None:
    images, masks = batch(4, device=device)
    drawn = changes(EVERYTHING, 4)
    moved, moved_masks = move(images, masks, drawn, 48)
    together = recolour(moved, drawn)
    for i in range(4):
        one, mask = move(images[i : i + 1], masks[i : i + 1], drawn[i : i + 1], 48)
        torch.testing.assert_close(one[0], moved[i], rtol=0, atol=1e-6)
        assert torch.equal(mask[0], moved_masks[i])
        alone = recolour(moved[i : i + 1], drawn[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=2e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_types_and_ranges(device: str) -> None:
    images, masks = batch(device=device)
    before = images.clone()
    drawn = changes(EVERYTHING, 3)
    with torch.autocast(device, torch.bfloat16):
        moved, moved_masks = move(images, masks, drawn, 40)
        seen = recolour(moved, drawn)
    assert torch.equal(images, before)
    assert seen.shape == (3, 3, 40, 40)
    assert seen.dtype == torch.float32
    assert 0 <= seen.min() <= seen.max() <= 1
    assert moved_masks.shape == (3, 1, 40, 40)
    assert moved_masks.dtype == torch.bool
    assert not torch.equal(seen, moved)
    torch.testing.assert_close(seen, recolour(moved, drawn), rtol=0, atol=0)
    labels = torch.arange(3 * 64 * 64, dtype=torch.int32, device=device).view(3, 1, 64, 64)
    moved_labels = move(images, labels, drawn, 40)[1]
    assert moved_labels.dtype == torch.int32
    assert all(torch.isin(moved_labels[i], labels[i]).all() for i in range(3))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(90, 140), (64, 64), (40, 50)]),
    size=st.sampled_from([64, 48]),
)
def test_mask_and_image_move_together(seed: int, shape: tuple[int, int], size: int) -> None:
    mask = torch.zeros(1, 1, *shape, dtype=torch.uint8)
    mask[..., 12:32, 15:40] = 1
    images = mask.float().expand(-1, 3, -1, -1)
    drawn = [draw_change(Augmentation(scale=(0.5, 2.0)), np.random.default_rng(seed))]
    moved, moved_mask = move(images, mask, drawn, size)
    assert moved.shape == (1, 3, size, size)
    agreement = ((moved[:, :1] > 0.5) == (moved_mask > 0)).float().mean()
    assert agreement > 0.97


def test_a_crop_at_scale_one_is_a_view_of_the_pixels() -> None:
    images = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    for i in range(10):
        drawn = changes(Augmentation(scale=(1, 1)), 2, step=i)
        moved, _ = move(images, images[:, :1], drawn, 16)
        for crop, image, change in zip(moved, images, drawn, strict=True):
            x, y = round(change.origin[0] * 14), round(change.origin[1] * 4)
            expected = d4(image[:, y : y + 16, x : x + 16], change.view)
            torch.testing.assert_close(crop, expected, rtol=0, atol=2e-5)


def test_scale_is_output_pixels_per_input_pixel() -> None:
    """Twin: what OpenCV's resize makes of the whole image."""
    image = torch.from_numpy(make_samples(1, 40)[0].image.astype(np.float32) / 255)
    for scale in (0.8, 1.0, 1.5, 2.0):
        size = int(40 * scale)
        moved, _ = move(
            image.permute(2, 0, 1)[None], torch.zeros(1, 1, 40, 40), [Change(scale=scale)], size
        )
        twin = cv2.resize(image.numpy(), (size, size), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(moved[0].permute(1, 2, 0), twin, atol=1e-4)


def test_what_is_missing_is_mirrored() -> None:
    image = torch.rand(1, 3, 10, 12, generator=torch.Generator().manual_seed(1))
    moved, _ = move(image, image[:, :1], [Change(scale=1.0, origin=(0.0, 0.0))], 16)
    twin = cv2.copyMakeBorder(image[0].permute(1, 2, 0).numpy(), 0, 6, 0, 4, cv2.BORDER_REFLECT)
    np.testing.assert_allclose(moved[0].permute(1, 2, 0), twin, atol=2e-5)


def test_stains_are_those_of_the_arrays() -> None:
    images, _ = batch()
    rng = np.random.default_rng(0)
    stains = np.exp(rng.uniform(-0.32, 0.3, (3, 3))).astype(np.float32)
    shifts = rng.uniform(-0.06, 0.06, (3, 3)).astype(np.float32)
    changed = restain(images, stains, shifts)
    for image, found, stain, shift in zip(images, changed, stains, shifts, strict=True):
        twin = augment.restain(to_levels(image), stain, shift)  # cuts fractions off
        difference = found.permute(1, 2, 0).numpy() * 255 - twin
        assert difference.min() > -0.02
        assert difference.max() < 1.02


def test_a_stain_that_is_not_there_can_be_changed_without_effect() -> None:
    """A colour of pure haematoxylin stays when eosin and DAB are multiplied."""
    density = 0.5 * augment.HED[0]
    pure = torch.from_numpy((256 * 10**-density - 1) / 255).float().view(1, 3, 1, 1)
    others = restain(pure, np.array([[1, 1.3, 0.8]], np.float32), np.zeros((1, 3), np.float32))
    torch.testing.assert_close(others, pure, rtol=0, atol=1e-5)
    more = restain(pure, np.array([[1.3, 1, 1]], np.float32), np.zeros((1, 3), np.float32))
    expected = (256 * 10 ** -(1.3 * density) - 1) / 255
    np.testing.assert_allclose(more.view(3), expected, atol=1e-5)
    assert (more < pure).all()


def test_blur_is_opencv_s() -> None:
    images, _ = batch()
    sigmas = np.array([0, 0.7, 1.5], np.float32)
    blurred = blur(images, sigmas)
    assert torch.equal(blurred[0], images[0])
    for i in (1, 2):
        side = 2 * int(np.ceil(3 * sigmas[i])) + 1
        array = images[i].permute(1, 2, 0).numpy()
        twin = cv2.GaussianBlur(array, (side, side), float(sigmas[i]))
        np.testing.assert_allclose(blurred[i].permute(1, 2, 0), twin, atol=1e-5)


def test_compression_is_jpeg_s() -> None:
    images, _ = batch()
    images = (images * 255).round() / 255
    seen = compress(images, [0, 95, 35])
    assert torch.equal(seen[0], images[0])
    errors = (seen - images).square().mean((1, 2, 3)).sqrt()
    assert 0 < errors[1] < errors[2] < 0.15
    # what was red stays red: channels are not exchanged on the way
    red = torch.tensor([0.9, 0.2, 0.1]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    torch.testing.assert_close(compress(red, [90]), red, rtol=0, atol=0.02)
