"""FocalClick's parts, and its segmenter around a network of closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import golden
import toy
from histoclick.clicks import next_click
from histoclick.models.clickmaps import disks
from histoclick.models.focalclick.crops import focus_crop, progressive_merge
from histoclick.models.focalclick.network import Coarse
from histoclick.models.focalclick.refiner import Refined
from histoclick.models.focalclick.roialign import roi_align
from histoclick.models.focalclick.segmenter import FocalClickSegmenter
from histoclick.models.zoom import Roi
from histoclick.types import RGB8, BatchSegmenter, Box, Click, Mask, Prediction, Prompt

Arrays = dict[str, NDArray[Any]]


class ToyNetwork(nn.Module):
    """The closed form of the reference's toy: clicks blurred into blobs."""

    def forward(self, image: Tensor, before: Tensor, points: Tensor) -> Coarse:
        return Coarse(toy.logits(image, before, points), image, None)

    def refine(self, image: Tensor, points: Tensor, coarse: Coarse, boxes: Tensor) -> Refined:
        height, width = image.shape[2:]
        positive, negative = disks(points, height, width, 5).chunk(2, 1)
        before = roi_align(coarse.logits, boxes, (height, width))
        logits = before + 2 * toy.blur(positive, 41) - 2 * toy.blur(negative, 41)
        return Refined(logits + 0.6 - image.mean(1, keepdim=True), before, before)


def segmenter_of(**options: Any) -> FocalClickSegmenter:
    network: Any = ToyNetwork()
    return FocalClickSegmenter(network, **options)


def disk(row: int, column: int, radius: int, shape: tuple[int, int] = (120, 160)) -> Mask:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


NOTHING = np.zeros((120, 160), bool)


@pytest.fixture(scope="module")
def picture() -> RGB8:
    return np.random.default_rng(1).integers(90, 220, (120, 160, 3), np.uint8)


class TestRoiAlign:
    def brute(self, grid: NDArray[Any], box: list[float], size: tuple[int, int]) -> NDArray[Any]:
        """Sample by sample, of one channel; boxes with an extent."""
        height, width = grid.shape
        x0, y0, x1, y1 = (value - 0.5 for value in box)
        high, wide = (y1 - y0) / size[0], (x1 - x0) / size[1]
        down, across = int(np.ceil(high)), int(np.ceil(wide))
        out = np.zeros(size)
        for i, j in np.ndindex(*size):
            for m, n in np.ndindex(down, across):
                y, x = y0 + (i + (m + 0.5) / down) * high, x0 + (j + (n + 0.5) / across) * wide
                if not (-1 <= y <= height and -1 <= x <= width):
                    continue
                y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
                top, left = min(int(y), height - 2), min(int(x), width - 2)
                corner, (v, u) = grid[top : top + 2, left : left + 2], (y - top, x - left)
                out[i, j] += np.array([1 - v, v]) @ corner @ np.array([1 - u, u])
        return out / (down * across)

    @pytest.mark.parametrize(
        "box", [[2.0, 1.5, 9.25, 7.0], [0.0, 0.0, 11.0, 9.0], [-6.0, 2.0, 18.0, 3.5]]
    )
    @pytest.mark.parametrize("size", [(3, 4), (16, 13)])
    def test_agrees_with_the_definition(self, box: list[float], size: tuple[int, int]) -> None:
        grid = np.random.default_rng(0).normal(size=(9, 11))
        found = roi_align(torch.from_numpy(grid)[None, None], torch.tensor([box]).double(), size)
        np.testing.assert_allclose(found[0, 0], self.brute(grid, box, size), atol=1e-12)

    def test_a_box_without_extent_is_zero(self) -> None:
        boxes = torch.tensor([[3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 4.0, 4.0]])
        found = roi_align(torch.ones(2, 2, 5, 5), boxes, (4, 4))
        assert not found[0].any()
        assert (found[1] == 1).all()

    @pytest.mark.parametrize(
        ("name", "scale"), [("out_scale1_16x16_aligned", 1), ("out_scale0.25_20x24_aligned", 0.25)]
    )
    def test_reference(self, shared: Path, name: str, scale: float) -> None:
        arrays = golden.arrays(shared / "conformance/focalclick/roi_align_and_merge.npz")
        rois = torch.from_numpy(arrays["rois"])
        maps = torch.from_numpy(arrays["input"])[rois[:, 0].long()]
        found = roi_align(maps, rois[:, 1:], arrays[name].shape[2:], scale)
        np.testing.assert_allclose(found, arrays[name], rtol=0, atol=1e-5)


class TestFocusCrop:
    whole = Roi.whole((120, 160))

    def test_is_around_the_object_at_first(self) -> None:
        crop = focus_crop(disk(60, 80, 20), NOTHING, self.whole, Click(80, 60), 1.4)
        assert crop == Roi(31, 87, 51, 107)  # 41 px of 60 +- 20, times 1.4, its end excluded

    def test_is_around_the_change_that_was_clicked(self) -> None:
        before = disk(60, 50, 30)
        mask = before | disk(60, 120, 24) | disk(15, 80, 10)
        crop = focus_crop(mask, before, self.whole, Click(120, 60), 1.0)
        assert crop == Roi(35, 83, 95, 143)

    def test_is_around_the_click_where_the_change_is_thin(self) -> None:
        before = disk(60, 80, 40)
        mask = before & ~disk(60, 116, 4)
        crop = focus_crop(mask, before, self.whole, Click(116, 60, positive=False), 1.0)
        assert crop == Roi(43, 75, 99, 131)  # 0.2 of 80 px each way

    def test_stays_inside_the_target(self) -> None:
        target = Roi(50, 70, 60, 90)
        crop = focus_crop(disk(60, 80, 20), NOTHING, target, Click(80, 60), 1.4)
        assert crop == target

    def test_a_mask_of_a_few_pixels_is_no_object(self) -> None:
        crop = focus_crop(disk(60, 80, 1), NOTHING, self.whole, Click(80, 60), 1.4)
        assert crop == self.whole

    def test_is_the_target_where_the_change_lies_outside_of_it(self) -> None:
        before, target = disk(100, 140, 5) | disk(40, 40, 30), Roi(5, 75, 5, 75)
        crop = focus_crop(disk(40, 40, 30), before, target, Click(140, 100, positive=False), 1.4)
        assert crop == target


class TestProgressiveMerge:
    before = disk(60, 60, 30)

    def test_takes_only_what_is_connected_with_the_click(self) -> None:
        grown = self.before | disk(60, 95, 15)
        merged = progressive_merge(grown | disk(10, 150, 8), self.before, Click(100, 60))
        np.testing.assert_array_equal(merged, grown)

    def test_gives_up_only_what_is_connected_with_the_click(self) -> None:
        dented = self.before & ~disk(60, 90, 12)
        merged = progressive_merge(
            dented & ~disk(60, 40, 5), self.before, Click(85, 60, positive=False)
        )
        np.testing.assert_array_equal(merged, dented)

    def test_reference(self, shared: Path) -> None:
        arrays = golden.arrays(shared / "conformance/focalclick/roi_align_and_merge.npz")
        for (row, column), expected in zip(arrays["pm_points"], arrays["pm_out"], strict=True):
            click = Click(int(column), int(row))
            merged = progressive_merge(arrays["pm_pred"], arrays["pm_prev"], click)
            np.testing.assert_array_equal(merged, expected)


CLICKS = (Click(80, 60), Click(20, 20, positive=False), Click(100, 70), Click(60, 90))


def steps(segmenter: FocalClickSegmenter, image: RGB8, clicks: tuple[Click, ...]) -> list[Any]:
    """Every answer, one click after the other."""
    encoded, prompt, answers = segmenter.encode(image), Prompt(), [None]
    for click in clicks:
        prompt = prompt.add(click)
        answers.append(segmenter.predict(encoded, prompt, answers[-1]))
    return answers[1:]


class TestSegmenter:
    def test_answers_many_users_at_once(self) -> None:
        assert isinstance(segmenter_of(), BatchSegmenter)

    def test_keeps_no_state(self, picture: RGB8) -> None:
        segmenter = segmenter_of()
        first = steps(segmenter, picture, CLICKS)
        kept = [answer.memory.probabilities.copy() for answer in first]
        steps(segmenter, picture[::-1].copy(), CLICKS[::-1])
        again = segmenter.predict(segmenter.encode(picture), Prompt(CLICKS[:3]), first[1])
        np.testing.assert_array_equal(again.logits, first[2].logits)
        for answer, probabilities in zip(first, kept, strict=True):
            np.testing.assert_array_equal(answer.memory.probabilities, probabilities)

    def test_a_batch_answers_as_one_by_one(self, picture: RGB8) -> None:
        segmenter = segmenter_of()
        images = [picture, picture[:90, :70].copy(), picture]
        prompts = [Prompt(CLICKS[:1]), Prompt(CLICKS[1:2]), Prompt(CLICKS)]
        previous = [None, Prediction.of_mask(disk(30, 30, 12, (90, 70))), None]
        encoded = segmenter.encode_batch(images)
        together = segmenter.predict_batch(encoded, prompts, previous)
        for answer, *user in zip(together, encoded, prompts, previous, strict=True):
            alone = segmenter.predict(*user)
            assert (alone.memory.target, alone.memory.focus) == (
                answer.memory.target,
                answer.memory.focus,
            )
            np.testing.assert_allclose(answer.logits, alone.logits, rtol=0, atol=1e-5)
        assert segmenter.predict_batch([], [], []) == []

    def test_logits_are_finite_and_positive_on_the_mask(self, picture: RGB8) -> None:
        for answer in steps(segmenter_of(), picture, CLICKS):
            assert np.isfinite(answer.logits).all()
            assert answer.logits.dtype == np.float32
            np.testing.assert_array_equal(
                answer.mask, answer.memory.probabilities > np.float32(0.49)
            )

    def test_late_clicks_change_the_focus_crop_only(self, picture: RGB8) -> None:
        clicks = tuple(Click(80 + 2 * i, 60, positive=i % 2 == 0) for i in range(11))
        *_, tenth, late = steps(segmenter_of(), picture, clicks)
        rest = np.ones(picture.shape[:2], bool)
        rest[late.memory.focus.y0 : late.memory.focus.y1 + 1] = False
        before, after = tenth.memory.probabilities, late.memory.probabilities
        assert rest.any()
        np.testing.assert_allclose(after[rest], before[rest], atol=1e-6)
        assert np.abs(after[~rest] - before[~rest]).max() > 0.01

    def test_looks_at_the_whole_image_when_the_object_has_vanished(self, picture: RGB8) -> None:
        segmenter = segmenter_of()
        first, _ = steps(segmenter, picture, CLICKS[:2])
        empty = Prediction(np.full(picture.shape[:2], -1, np.float32), first.memory)
        answer = segmenter.predict(segmenter.encode(picture), Prompt(CLICKS[:3]), empty)
        assert answer.memory.target == Roi.whole((120, 160))

    def test_merges_for_those_who_began_with_a_mask(self, picture: RGB8) -> None:
        begun, click = Prediction.of_mask(disk(60, 40, 30)), Click(110, 60)
        answers = {}
        for merge in ("initial", "always", "never"):
            segmenter = segmenter_of(merge=merge)
            encoded = segmenter.encode(picture)
            one = segmenter.predict(encoded, Prompt((click,)), begun)
            two = segmenter.predict(encoded, Prompt((click, Click(115, 66))), one)
            zero = segmenter.predict(encoded, Prompt((click,)))
            answers[merge] = (one, two, zero)
        initial, always, never = answers.values()
        lost = begun.mask & ~never[0].mask
        assert lost.any()  # else there is nothing to merge
        for i in (0, 1):
            assert (initial[i].mask >= begun.mask).all()
            np.testing.assert_array_equal(initial[i].logits, always[i].logits)
        np.testing.assert_array_equal(
            np.abs(initial[0].logits[lost]), np.abs(never[0].logits[lost])
        )
        np.testing.assert_array_equal(initial[2].logits, never[2].logits)

    def test_does_not_take_what_it_does_not_understand(self, picture: RGB8) -> None:
        segmenter = segmenter_of()
        encoded = segmenter.encode(picture)
        with pytest.raises(ValueError, match="clicks only"):
            segmenter.predict(encoded, Prompt(CLICKS, Box(0, 0, 5, 5)))
        with pytest.raises(ValueError, match="outside the image"):
            segmenter.predict(encoded, Prompt((Click(160, 3),)))
        with pytest.raises(ValueError, match="the image's size"):
            segmenter.predict(encoded, Prompt(CLICKS), Prediction.of_mask(disk(3, 3, 2, (20, 20))))

    def test_takes_clicks_on_the_edge(self, picture: RGB8) -> None:
        edge = (Click(159.5, 119.5), Click(-0.5, -0.5, positive=False), Click(159.5, -0.5))
        assert steps(segmenter_of(), picture, edge)[-1].logits.shape == (120, 160)


@pytest.fixture(scope="module")
def inputs(shared: Path) -> Arrays:
    return golden.arrays(shared / "conformance/inputs/inputs.npz")


@pytest.fixture(scope="module")
def arrays(shared: Path) -> Arrays:
    return golden.arrays(shared / "conformance/focalclick/toy_predictor.npz")


class TestToy:
    """The predictor's geometry against the reference's, whatever the network."""

    @pytest.mark.parametrize("injected", [False, True])
    @pytest.mark.parametrize("image", ["A", "B"])
    def test_clicks(self, arrays: Arrays, inputs: Arrays, image: str, injected: bool) -> None:
        segmenter = segmenter_of(merge="never")
        encoded, prompt = segmenter.encode(inputs[f"image_{image}"]), Prompt()
        name, previous = image, None
        if injected:
            name, previous = f"{image}_injected", Prediction.of_mask(inputs[f"object_{image}"])
        for n, (row, column, positive) in enumerate(arrays[f"{name}_clicks"].tolist(), start=1):
            prompt = prompt.add(Click(column, row, bool(positive)))
            if injected and n == 1:
                continue
            previous = segmenter.predict(encoded, prompt, previous)
            golden.agrees(arrays, f"{name}_prob_{n}", previous.memory.probabilities, 3, 1e-4)
            np.testing.assert_array_equal(previous.mask, arrays[f"{name}_mask_{n}"])
            for which, roi in (
                ("focus", previous.memory.focus),
                ("global", previous.memory.target),
            ):
                found = [roi.y0, roi.y1 + 1, roi.x0, roi.x1 + 1]
                expected = (
                    arrays[f"{name}_{which}_rois"][n - 2]
                    if injected
                    else arrays[f"{name}_x_{n}_{which}_roi"]
                )
                assert found == expected.tolist(), (n, which)

    @pytest.mark.parametrize("case", ["eval", "evalinit"])
    @pytest.mark.parametrize("image", ["A", "B"])
    def test_evaluation(self, arrays: Arrays, inputs: Arrays, image: str, case: str) -> None:
        segmenter, truth = segmenter_of(), inputs[f"object_{image}"]
        encoded, prompt, previous = segmenter.encode(inputs[f"image_{image}"]), Prompt(), None
        if case == "evalinit":
            previous = Prediction.of_mask(np.roll(truth, (25, -30), (0, 1)))
        clicks, ious = arrays[f"{image}_{case}_clicks"], arrays[f"{image}_{case}_ious"]
        for (row, column, positive), iou in zip(clicks.tolist(), ious, strict=True):
            seen = np.zeros_like(truth) if previous is None else previous.mask
            click = next_click(truth, seen, prompt.clicks)
            assert (click.y, click.x, click.positive) == (row, column, bool(positive))
            prompt = prompt.add(click)
            previous = segmenter.predict(encoded, prompt, previous)
            both = (previous.mask & truth).sum() / (previous.mask | truth).sum()
            assert both == pytest.approx(iou, abs=1e-6)
