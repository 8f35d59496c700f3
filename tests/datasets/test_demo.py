"""The demo samples: offline, and outlines that follow the crypts."""

from __future__ import annotations

import itertools
import sys

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from histoclick.datasets.demo import CRYPT, SMALL_CRYPT, corners, demo_samples
from histoclick.datasets.phantom import phantom_patch
from histoclick.types import HistoclickError, Mask, Sample


@pytest.fixture(scope="module")
def crypts() -> list[Sample]:
    pytest.importorskip("skimage")
    return demo_samples(phantoms=0)


def brown(sample: Sample) -> NDArray[np.float64]:
    """(H, W): how much more red than blue, high in DAB, below 0 in haematoxylin and in white."""
    return np.asarray(sample.image[..., 0].astype(float) - sample.image[..., 2])


def signed_distance(mask: Mask) -> NDArray[np.float32]:
    """px, positive inside."""
    inside, outside = (
        cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 5) for region in (mask, ~mask)
    )
    return np.asarray(inside - outside)


def crosses(a: NDArray[np.int32], b: NDArray[np.int32]) -> bool:
    """Whether two segments (2, 2) cross."""

    def side(line: NDArray[np.int32], point: NDArray[np.int32]) -> int:
        (ux, uy), (vx, vy) = line[1] - line[0], point - line[0]
        return int(np.sign(ux * vy - uy * vx))

    return side(a, b[0]) * side(a, b[1]) < 0 and side(b, a[0]) * side(b, a[1]) < 0


@pytest.mark.parametrize("outline", [CRYPT, SMALL_CRYPT])
def test_an_outline_is_a_simple_polygon_in_the_picture(outline: str) -> None:
    points = corners(outline)
    assert 40 <= len(points) <= 80
    assert points.min() >= 0
    assert points.max() < 512
    assert len({(int(x), int(y)) for x, y in points}) == len(points)
    edges = np.stack([points, np.roll(points, -1, axis=0)], axis=1)
    for one, other in itertools.combinations(edges, 2):
        assert not crosses(one, other), (one, other)


def test_the_first_two_are_crypts_of_one_real_picture(crypts: list[Sample]) -> None:
    assert [sample.id for sample in crypts] == ["crypt", "small-crypt"]
    assert [sample.image.shape for sample in crypts] == [(512, 512, 3), (256, 256, 3)]
    assert len({sample.slide for sample in crypts}) == 1
    for sample in crypts:
        assert sample.image.dtype == np.uint8
        assert sample.mask.dtype == np.bool_
        assert sample.mask.shape == sample.image.shape[:2]
        assert 0.1 < sample.mask.mean() < 0.5
        parts, _ = cv2.connectedComponents(sample.mask.astype(np.uint8))
        holes, _ = cv2.connectedComponents((~sample.mask).astype(np.uint8))
        assert parts == 2
        assert holes == 2 or sample.id == "crypt"  # the border of the picture parts the rest


def test_the_lumen_is_inside_and_white(crypts: list[Sample]) -> None:
    lumen = slice(112, 130), slice(330, 340)
    assert crypts[0].mask[lumen].all()
    assert crypts[0].image[lumen].mean() > 200
    assert crypts[0].image[crypts[0].mask].mean() < 160


@pytest.mark.parametrize("index", [0, 1])
def test_the_outline_follows_the_border_of_the_epithelium(crypts: list[Sample], index: int) -> None:
    """Brown just inside, not outside, and the step is larger than 5 px farther in or out."""
    signed, stain = signed_distance(crypts[index].mask), brown(crypts[index])
    # The large crypt touches the next one in the upper left and leaves the picture at the top.
    free = np.ones(stain.shape, bool)
    if crypts[index].id == "crypt":
        free[:5] = free[:150, :300] = False
    steps = {}
    for shift in (-5, 0, 5):
        within = free & (signed > shift) & (signed <= shift + 3)
        without = free & (signed <= shift) & (signed > shift - 3)
        steps[shift] = stain[within].mean() - stain[without].mean()
    assert steps[0] > 15
    assert max(steps, key=lambda shift: steps[shift]) == 0


def test_phantoms_follow_by_seed() -> None:
    pytest.importorskip("skimage")
    samples = demo_samples(seed=5, phantoms=2)
    assert [sample.id for sample in samples[2:]] == ["phantom-00005", "phantom-00006"]
    assert np.array_equal(samples[3].image, phantom_patch(6).image)
    assert len({sample.id for sample in samples}) == 4


def test_bad_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HistoclickError, match="give 0 or more"):
        demo_samples(phantoms=-1)
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(HistoclickError, match="pip install scikit-image"):
        demo_samples(phantoms=0)
