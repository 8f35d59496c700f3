"""Phantom patches: the same for the same seed, exact truth, and stained like tumour in stroma."""

from __future__ import annotations

import itertools
import subprocess
import sys

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from histoclick.datasets.lattice import Window
from histoclick.datasets.phantom import phantom_patch
from histoclick.datasets.section import nests, section
from histoclick.datasets.style import Style
from histoclick.types import HistoclickError, Mask, Sample

# Published stain vectors (Ruifrok and Johnston 2001), not the ones the phantom mixes with.
UNMIX = np.linalg.pinv(np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]))


@pytest.fixture(scope="module")
def patches() -> list[Sample]:
    return [phantom_patch(seed) for seed in range(16)]


def optical_density(sample: Sample) -> NDArray[np.float64]:
    """(H, W, 3), base e, against white 245."""
    return -np.log(np.maximum(sample.image, 1) / 245.0)


def haematoxylin(sample: Sample) -> NDArray[np.float64]:
    return np.asarray((optical_density(sample) @ UNMIX)[..., 0])


def distance_inside(region: Mask) -> NDArray[np.float32]:
    return np.asarray(cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 5))


@pytest.mark.parametrize("size", [200, 333])
def test_a_patch_has_the_size_asked_for(size: int) -> None:
    sample = phantom_patch(3, size)
    assert sample.image.shape == (size, size, 3)
    assert sample.image.dtype == np.uint8
    assert sample.mask.shape == (size, size)
    assert sample.mask.dtype == np.bool_
    assert sample.id == sample.slide == "phantom-00003"


def test_the_same_seed_gives_the_same_patch(patches: list[Sample]) -> None:
    again = phantom_patch(7)
    assert np.array_equal(again.image, patches[7].image)
    assert np.array_equal(again.mask, patches[7].mask)


def test_no_two_seeds_are_alike(patches: list[Sample]) -> None:
    assert len({sample.id for sample in patches}) == len(patches)
    small = [cv2.resize(p.image, (50, 50), interpolation=cv2.INTER_AREA) for p in patches]
    grey = [image.mean(axis=2).ravel() for image in small]
    for (i, one), (j, other) in itertools.combinations(enumerate(grey), 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.6, (i, j)
        assert (patches[i].mask != patches[j].mask).mean() > 0.1, (i, j)


def test_a_fifth_to_four_fifths_are_tumour(patches: list[Sample]) -> None:
    fractions = [sample.mask.mean() for sample in patches]
    fractions += [phantom_patch(seed, 200).mask.mean() for seed in range(100, 120)]
    assert min(fractions) >= 0.2
    assert max(fractions) <= 0.8
    assert np.std(fractions) > 0.05


def test_tumour_takes_more_haematoxylin_than_stroma(patches: list[Sample]) -> None:
    """In most patches; crowds of lymphocytes outweigh the tumour in a few, as in lymph nodes."""
    ratios = []
    for sample in patches:
        stain, tissue = haematoxylin(sample), optical_density(sample).sum(axis=2) > 0.35
        inside, outside = stain[sample.mask & tissue], stain[~sample.mask & tissue]
        ratios.append(inside.mean() / outside.mean())
    assert np.mean(np.array(ratios) > 1) >= 0.8
    assert np.median(ratios) > 1.25


def test_the_outline_is_where_the_stain_changes(patches: list[Sample]) -> None:
    """Nowhere else: the step of haematoxylin is largest over the outline itself."""
    for sample in patches:
        signed = distance_inside(sample.mask) - distance_inside(~sample.mask)
        stain = haematoxylin(sample)
        steps = {}
        for shift in (-8, 0, 8):
            within = (signed > shift) & (signed <= shift + 6)
            without = (signed <= shift) & (signed > shift - 4)
            steps[shift] = stain[within].mean() - stain[without].mean()
        assert max(steps, key=lambda shift: steps[shift]) == 0, sample.id


def test_lumina_belong_to_the_tumour() -> None:
    glands = phantom_patch(100)
    empty = optical_density(glands).sum(axis=2) < 0.2
    deep = distance_inside(glands.mask) > 30
    assert (empty & deep).sum() > 2000


def test_the_tissue_is_a_function_of_position() -> None:
    """Two windows on one slide show the same cells where they overlap."""
    style = Style.draw(np.random.default_rng(2))
    amounts = []
    for x0, y0 in ((-200, 30), (-100, 90)):
        window = Window(2, x0, y0, 480, 460)
        tumour = nests(window, style) > 0.9
        assert 0.1 < tumour.mean() < 0.9
        top, left, edge = 90 - y0, -100 - x0, 100  # windows see their own border as the end
        view = slice(top + edge, top + 400 - edge), slice(left + edge, left + 380 - edge)
        amounts.append(np.stack([part[view] for part in section(window, style, tumour)]))
    assert amounts[0].std() > 0.2
    assert (np.abs(amounts[0] - amounts[1]) > 0.01).mean() < 0.01


@pytest.mark.parametrize("scale", [1.3, 8.0, 40.0])
def test_noise_is_standardised(scale: float) -> None:
    noise = Window(1, -50, 70, 900, 900).noise("test", scale, octaves=2)
    assert abs(noise.mean()) < 0.15
    assert abs(noise.std() - 1) < 0.1


@pytest.mark.parametrize(("seed", "size"), [(-1, 400), (0, 199)])
def test_bad_arguments_are_refused(seed: int, size: int) -> None:
    with pytest.raises(HistoclickError, match="phantom_patch got seed"):
        phantom_patch(seed, size)


def test_importing_the_datasets_is_light() -> None:
    code = (
        "import sys, histoclick.datasets.demo, histoclick.datasets.phantom;"
        "print(sorted({'torch', 'skimage', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.strip() == "[]"
