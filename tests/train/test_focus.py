"""What FocalClick's refiner is trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from histoclick.models.clickmaps import PADDING, disks
from histoclick.models.focalclick.crops import focus_crop
from histoclick.models.zoom import Roi
from histoclick.train import focus
from histoclick.train.focus import LEAST_SIDE, boxes, draw_focus, look, place, trimap
from histoclick.train.points import next_points
from histoclick.types import Click, Mask


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, NDArray[np.generic]]:
    found: dict[str, NDArray[np.generic]] = {}
    with np.load(shared / "conformance/protocol/focalclick_training_parts.npz") as arrays:
        for key in arrays:
            if key.endswith("__bits"):
                shape = arrays[key.replace("__bits", "__shape")]
                bits = np.unpackbits(arrays[key])[: np.prod(shape)]
                found[key.removesuffix("__bits")] = bits.reshape(shape).astype(bool)
            elif not key.endswith("__shape"):
                found[key] = arrays[key]
    return found


class Legacy:
    """NumPy's old generator, as the reference uses it."""

    def __init__(self, seed: int) -> None:
        self._numpy = np.random.RandomState(seed)
        self._drawn = 0

    def integers(self, *limits: int) -> int:
        # after every click the reference asks for a chance that it then has no use for
        if self._drawn:
            self._numpy.rand()
        self._drawn += 1
        return self._numpy.randint(*limits)


@pytest.mark.parametrize("i", [0, 1])
def test_trimap_is_the_reference_s(i: int, golden: dict[str, NDArray[np.generic]]) -> None:
    np.testing.assert_array_equal(trimap(golden[f"mask{i}"]), golden[f"trimap{i}"])


def test_focus_crop_is_the_reference_s(golden: dict[str, NDArray[np.generic]]) -> None:
    """What the refiner is shown when it predicts, on the masks of the training."""
    for (mask, before), row in zip(
        golden["focus_pred_prev"], golden["focus_table"].tolist(), strict=True
    ):
        y0, y1, x0, x1, y, x, *expected = row
        roi = focus_crop(mask, before, Roi(y0, y1 - 1, x0, x1 - 1), Click(x, y), 1.4)
        assert [roi.y0, roi.y1 + 1, roi.x0, roi.x1 + 1] == expected


def test_points_on_the_crop_are_the_reference_s(golden: dict[str, NDArray[np.generic]]) -> None:
    targets, predicted = golden["np_gt"][:, 0] > 0.5, golden["np_pred"][:, 0] > 0.49
    rois = [Roi(y0, y1 - 1, x0, x1 - 1) for x0, y0, x1, y1 in golden["np_rois_xyxy"].astype(int)]
    torch.testing.assert_close(boxes(rois), torch.from_numpy(golden["np_rois_xyxy"]))
    points = torch.from_numpy(golden["np_points"])
    points = next_points(points, targets, predicted, [Legacy(5)] * 2)
    for name, ours in (
        ("np_points_out_seed5", points),
        ("np_points_focus_out_seed5", place(points, rois, (64, 64))),
    ):
        for drawn, one, theirs in zip(
            golden["np_points_out_seed5"], ours, golden[name], strict=True
        ):
            real = drawn[:, :2].max(1) >= 0
            expected = theirs[real]
            found = one[one[:, 2] >= 0].numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_trimap_is_empty_where_coarse_is_enough() -> None:
    target = np.zeros((64, 64), bool)
    assert not trimap(target).any()
    assert not trimap(~target).any()
    target[16:48, 16:48] = True
    uncertain = trimap(target)
    y, x = np.nonzero(uncertain)
    assert min(y.min(), x.min()) >= 10
    assert max(y.max(), x.max()) < 54
    assert not uncertain[24:40, 24:40].any()
    target[5, 5] = True  # too small for the coarse mask
    assert trimap(target)[3:8, 3:8].all()


def blobs(seed: int, height: int, width: int) -> Mask:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(int(rng.integers(1, 4))):
        row, column = rng.uniform(0, height), rng.uniform(0, width)
        mask |= (y - row) ** 2 + (x - column) ** 2 <= rng.uniform(1, 0.4 * height) ** 2
    return mask


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.sampled_from([64, 96, 131]),
    width=st.sampled_from([64, 100]),
)
def test_a_drawn_crop_lies_in_the_image_and_shows_the_object(
    seed: int, height: int, width: int
) -> None:
    target = blobs(seed, height, width)
    roi = draw_focus(target, np.random.default_rng(seed))
    assert 0 <= roi.y0 <= roi.y1 < height
    assert 0 <= roi.x0 <= roi.x1 < width
    # a shift of less than a third of it leaves a fifth of the smallest crop, even at the border
    assert roi.shape[0] >= int(0.2 * LEAST_SIDE * height)
    assert roi.shape[1] >= int(0.2 * LEAST_SIDE * width)
    if target.sum() >= 10:  # or its outline, which is just outside
        assert target[max(roi.y0 - 3, 0) : roi.y1 + 4].any()
    assert roi == draw_focus(target, np.random.default_rng(seed))


def test_pieces_of_outline_have_outline_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(focus, "OUTLINE", 1.0)
    target = np.zeros((256, 200), bool)
    target[60:200, 60:180] = True
    for seed in range(60):
        roi = draw_focus(target, np.random.default_rng(seed))
        assert 256 / 4 < roi.shape[0] <= 256 / 1.5
        assert 200 / 4 - 1 < roi.shape[1] <= 200 / 1.5
        inside = target[roi.y0 : roi.y1 + 1, roi.x0 : roi.x1 + 1]
        assert 0 < inside.mean() < 1


def test_small_objects_are_shown_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(focus, "OUTLINE", 1.0)
    small = np.zeros((256, 256), bool)
    small[100:150, 100:150] = small[10:15, 10:15] = True
    for i in range(50):
        roi = draw_focus(small, np.random.default_rng(i))
        shown = small[100:150, 100:150][max(roi.y0 - 100, 0) :, max(roi.x0 - 100, 0) :]
        assert shown.size > 0.4 * 2500  # the larger part, at least most of the way
        assert max(roi.shape) <= 1.6 * 50 + 1


@pytest.mark.parametrize("value", [False, True])
def test_one_sided_targets_have_a_crop(value: bool) -> None:
    target = np.full((64, 80), value)
    for seed in range(20):
        roi = draw_focus(target, np.random.default_rng(seed))
        assert roi.shape[0] > 0
        assert roi.shape[1] > 0


def test_a_click_stays_on_what_it_marked() -> None:
    """Looking at the disk of a click, and the disk of the click placed on the crop."""
    rois = [Roi(10, 41, 20, 51), Roi(0, 63, 0, 63)]
    points = torch.tensor([[[20.0, 30.0, 1.0], [-1.0, -1.0, -1.0]]] * 2)
    placed = place(points, rois, (64, 64))
    torch.testing.assert_close(placed[0, 0], torch.tensor([20.0, 20.0, 1.0]))
    torch.testing.assert_close(placed[1], points[1])
    assert (placed[:, 1] == PADDING).all()
    seen = look(disks(points, 64, 64, 3), rois, (64, 64))
    now = disks(placed, 64, 64, 6)
    assert seen.shape == (2, 2, 64, 64)
    both = ((seen[0] > 0.5) & (now[0] > 0.5)).sum() / ((seen[0] > 0.5) | (now[0] > 0.5)).sum()
    assert both > 0.7
    torch.testing.assert_close(seen[1], disks(points, 64, 64, 3)[1])
