"""Regions of interest against the reference's geometry and against counting pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

import golden
from histoclick.models.zoom import Roi, ZoomRule, fit, object_roi
from histoclick.types import Click

SHAPE = (40, 60)


@pytest.fixture(scope="module")
def arrays(shared: Path) -> dict[str, NDArray[Any]]:
    return golden.arrays(shared / "conformance/protocol/zoom_geometry.npz")


@st.composite
def rois(draw: st.DrawFn) -> Roi:
    """Inside an image of ``SHAPE``."""
    ends = [sorted(draw(st.tuples(*[st.integers(0, side - 1)] * 2))) for side in SHAPE]
    return Roi(*ends[0], *ends[1])


class TestRoi:
    def test_reference(self, arrays: dict[str, NDArray[Any]]) -> None:
        for row in arrays["table"].tolist():
            roi, other = Roi(*map(int, row[:4])), Roi(*map(int, row[14:18]))
            expanded = roi.expand(row[4], row[5])
            assert expanded == Roi(*map(int, row[6:10]))
            assert expanded.clamp((400, 400)) == Roi(*map(int, row[10:14]))
            assert roi.iou(other) == pytest.approx(row[18], abs=1e-12)
            assert roi.holds([Click(other.x0, other.y0)]) == bool(row[19])

    @pytest.mark.parametrize("case", ["a", "b", "c"])
    def test_what_is_seen_of_it(self, arrays: dict[str, NDArray[Any]], case: str) -> None:
        *bounds, height, width = arrays[f"roi_{case}_args"].tolist()
        rule = ZoomRule(height if width < 0 else (height, width))
        roi, maps = Roi(*bounds), torch.from_numpy(arrays["roi_in"])
        size = rule.resized(roi)
        seen = F.interpolate(roi.crop(maps), size, mode="bilinear", align_corners=True)
        np.testing.assert_allclose(seen, arrays[f"roi_{case}"], rtol=0, atol=1e-6)

    @given(rois(), rois())
    def test_iou_is_that_of_rows_times_that_of_columns(self, one: Roi, other: Roi) -> None:
        def ratio(a: set[int], b: set[int]) -> float:
            # without a gap the hull is the union; with one, nothing is shared
            return len(a & b) / (max(a | b) - min(a | b) + 1)

        rows = ratio({*range(one.y0, one.y1 + 1)}, {*range(other.y0, other.y1 + 1)})
        columns = ratio({*range(one.x0, one.x1 + 1)}, {*range(other.x0, other.x1 + 1)})
        assert one.iou(other) == pytest.approx(rows * columns)

    @given(rois())
    def test_paste_undoes_crop(self, roi: Roi) -> None:
        maps = torch.rand(2, 1, *SHAPE) + 1
        pasted = roi.paste(roi.crop(maps), SHAPE)
        inside = torch.zeros(SHAPE, dtype=torch.bool)
        inside[roi.y0 : roi.y1 + 1, roi.x0 : roi.x1 + 1] = True
        assert roi.crop(maps).shape[2:] == roi.shape
        assert torch.equal(pasted, maps * inside)

    @given(rois())
    def test_places_its_corner_on_the_corner(self, roi: Roi) -> None:
        assert roi.place(Click(roi.x0, roi.y0, False), (30, 50)) == Click(0, 0, False)
        assert roi.place(Click(roi.x1 + 1, roi.y1 + 1), (30, 50)) == Click(50, 30)

    def test_holds_no_click_on_its_last_row_or_column(self) -> None:
        roi = Roi(10, 20, 30, 50)
        assert roi.holds([Click(30, 10), Click(49.9, 19.9), Click(0, 0, positive=False)])
        assert not roi.holds([Click(50, 15)])
        assert not roi.holds([Click(40, 20)])

    def test_the_whole_image(self) -> None:
        assert Roi.whole(SHAPE).shape == SHAPE


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 1024))
def test_fit_keeps_the_longest_side(height: int, width: int, side: int) -> None:
    short, long = sorted(fit((height, width), side))
    exact = min(height, width) * side / max(height, width)
    assert long == side
    assert short == 1 or abs(short - exact) <= 0.5 + 1e-9


def test_fit_rounds_half_to_even() -> None:
    assert fit((5, 10), 5) == (2, 5)
    assert fit((7, 10), 5) == (4, 5)


class TestObject:
    @given(rois(), rois())
    def test_bounds(self, one: Roi, other: Roi) -> None:
        mask = torch.zeros(SHAPE, dtype=torch.bool)
        one.crop(mask)[:] = True
        other.crop(mask)[:] = True
        found = object_roi(mask, [])
        rows, columns = np.nonzero(mask.numpy())
        assert found == Roi(rows.min(), rows.max(), columns.min(), columns.max())

    def test_reaches_for_positive_clicks(self) -> None:
        mask = torch.zeros(SHAPE, dtype=torch.bool)
        mask[10:20, 10:20] = True
        clicks = [Click(30, 15), Click(12, 25.7), Click(50, 2, positive=False)]
        assert object_roi(mask, clicks) == Roi(10, 26, 10, 30)

    def test_a_click_on_the_edge_of_the_last_pixel_is_on_it(self) -> None:
        mask = torch.ones(SHAPE, dtype=torch.bool)
        assert object_roi(mask, [Click(59.5, 39.5)]) == Roi.whole(SHAPE)

    def test_an_empty_mask_is_none_whatever_was_clicked(self) -> None:
        assert object_roi(torch.zeros(SHAPE, dtype=torch.bool), [Click(3, 3)]) is None


def square(y: int, x: int, side: int = 60, shape: tuple[int, int] = (400, 400)) -> Tensor:
    """Probabilities of an object."""
    found = torch.full(shape, 0.1)
    found[y : y + side, x : x + side] = 0.9
    return found


class TestRule:
    rule = ZoomRule()
    clicks = (Click(120, 120), Click(10, 300, positive=False))

    def test_sees_the_whole_image_at_the_first_click(self) -> None:
        assert self.rule.next_roi(square(100, 100), self.clicks[:1], None) is None

    def test_zooms_in_on_the_object(self) -> None:
        # 60 px from 100 to 159, centre 129.5, at least 200 px, halves to even
        roi = self.rule.next_roi(square(100, 100), self.clicks, None)
        assert roi == Roi(30, 230, 30, 230)
        close = ZoomRule(min_side=0).next_roi(square(100, 100), self.clicks, None)
        assert close == Roi(88, 172, 88, 172)  # 1.4 x

    def test_keeps_the_region_while_it_fits(self) -> None:
        roi = Roi(40, 240, 40, 240)
        assert self.rule.next_roi(square(110, 110), self.clicks, roi) is roi

    def test_moves_for_a_positive_click_outside(self) -> None:
        roi = Roi(40, 240, 40, 240)
        outside = (*self.clicks, Click(300, 120))
        moved = self.rule.next_roi(square(110, 110), outside, roi)
        assert moved is not None
        assert moved.holds(outside)
        negative = (*self.clicks, Click(300, 120, positive=False))
        assert self.rule.next_roi(square(110, 110), negative, roi) is roi

    def test_moves_when_the_object_has_become_another(self) -> None:
        roi, clicks = Roi(0, 60, 0, 60), (Click(20, 20), Click(10, 300, positive=False))
        found = self.rule.next_roi(square(0, 0, 250), clicks, roi)
        assert found == Roi(0, 300, 0, 300)

    def test_forgets_the_region_when_the_object_has_vanished(self) -> None:
        empty = torch.zeros(400, 400)
        assert self.rule.next_roi(empty, self.clicks, Roi(40, 240, 40, 240)) is None
        always = ZoomRule((448, 448), skip_clicks=-1)
        assert always.next_roi(empty, self.clicks, None) == Roi.whole((400, 400))

    def test_the_threshold_itself_is_outside(self) -> None:
        assert self.rule.next_roi(torch.full((400, 400), 0.5), self.clicks, None) is None

    def test_resizes_to_a_longest_side_or_a_fixed_size(self) -> None:
        assert ZoomRule(400).resized(Roi(0, 99, 0, 199)) == (200, 400)
        assert ZoomRule((448, 440)).resized(Roi(0, 99, 0, 199)) == (448, 440)

    def test_says_what_it_does(self) -> None:
        assert str(self.rule) == "to 400 px, from click 2 on, expansion 1.4, at least 200 px"
        always = ZoomRule((448, 448), skip_clicks=-1)
        assert str(always).startswith("to 448 x 448 px, always")
