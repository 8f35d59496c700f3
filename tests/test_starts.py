from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from histoclick.metrics import iou
from histoclick.starts import HIGH, LOW, Corrupted, Folder
from histoclick.types import HistoclickError, Sample


def sample_of(mask: np.ndarray, id_: str = "p") -> Sample:
    return Sample(id_, np.zeros((*mask.shape, 3), np.uint8), mask, "s")


@st.composite
def objects(draw: st.DrawFn) -> np.ndarray:
    """One to three ellipses of ordinary size, as patches hold them, maybe cut by the border."""
    height, width = draw(st.integers(96, 220)), draw(st.integers(96, 220))
    ys, xs = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(draw(st.integers(1, 3))):
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        a, b = draw(st.integers(20, 80)), draw(st.integers(20, 80))
        mask |= ((ys - y) / a) ** 2 + ((xs - x) / b) ** 2 <= 1
    return mask


@settings(max_examples=60, deadline=None)
@given(mask=objects(), seed=st.integers(0, 2**31), id_=st.text("abc", max_size=3))
def test_corrupted_masks_are_half_right_to_mostly_right(
    mask: np.ndarray, seed: int, id_: str
) -> None:
    before = mask.copy()
    start = Corrupted(seed).mask(sample_of(mask, id_))
    assert LOW <= iou(mask, start) <= HIGH
    assert (start.shape, start.dtype) == (mask.shape, np.bool_)
    np.testing.assert_array_equal(mask, before)
    np.testing.assert_array_equal(Corrupted(seed).mask(sample_of(mask, id_)), start)


def test_seed_and_patch_decide() -> None:
    mask = np.zeros((100, 100), bool)
    mask[20:80, 30:70] = True
    found = {
        Corrupted(seed).mask(sample_of(mask, id_)).tobytes() for seed in range(3) for id_ in "ab"
    }
    assert len(found) == 6


@pytest.mark.parametrize("side", [1, 2, 5])
def test_of_a_speck_something_is_made_all_the_same(side: int) -> None:
    mask = np.zeros((40, 40), bool)
    mask[10 : 10 + side, 10 : 10 + side] = True
    assert Corrupted().mask(sample_of(mask)).shape == mask.shape


def test_everything_can_be_corrupted_too() -> None:
    mask = np.ones((60, 80), bool)
    assert LOW <= iou(mask, Corrupted().mask(sample_of(mask))) <= HIGH


def test_masks_of_a_folder(tmp_path: Path) -> None:
    mask = np.zeros((40, 50), bool)
    mask[5:20, 7:30] = True
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "p.png")
    start = Folder(tmp_path)
    np.testing.assert_array_equal(start.mask(sample_of(~mask)), mask)
    facts = start.facts
    assert facts["start"] == "masks from a folder"
    assert len(facts["start_sha256"]) == 64
    with pytest.raises(HistoclickError, match=r"q\.png: no mask to start patch 'q' from"):
        start.mask(sample_of(mask, "q"))
    with pytest.raises(HistoclickError, match="50x40 px, but the patch has 40x50"):
        start.mask(sample_of(mask.T))
    Image.fromarray(~mask).save(tmp_path / "q.png")
    assert Folder(tmp_path).facts != facts
    with pytest.raises(HistoclickError, match="no such folder"):
        Folder(tmp_path / "none").facts  # noqa: B018
