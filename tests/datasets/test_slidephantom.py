"""Phantom slides: the same for the same seed, without seams, with truth that is in the picture."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from histoclick.datasets import slidephantom, specimen
from histoclick.datasets.lattice import Window
from histoclick.datasets.phantomslides import write_phantom_slide
from histoclick.datasets.slidephantom import PhantomSlide
from histoclick.types import RGB8, HistoclickError

UNMIX = np.linalg.pinv(np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]))  # published stains
HOLED = 2  # a seed whose tumour has holes


def drawn(slide: PhantomSlide) -> RGB8:
    return np.concatenate(list(slide.bands()))


def truth_mask(slide: PhantomSlide) -> NDArray[np.bool_]:
    return np.concatenate(list(slide.masks())) > 0


@pytest.fixture(scope="module")
def slide() -> PhantomSlide:
    return PhantomSlide(HOLED, 1000, 900, 1.0)


@pytest.fixture(scope="module")
def picture(slide: PhantomSlide) -> RGB8:
    return drawn(slide)


def optical_density(image: RGB8) -> NDArray[np.float64]:
    """(H, W, 3), base e, against white 245."""
    return -np.log(np.maximum(image, 1) / 245.0)


def test_the_same_seed_gives_the_same_truth(slide: PhantomSlide) -> None:
    assert PhantomSlide(HOLED, 1000, 900, 1.0).truth == slide.truth
    assert PhantomSlide(HOLED + 1, 1000, 900, 1.0).truth != slide.truth


@pytest.mark.parametrize("mpp", [0.1, 0.23, 0.25, 0.3, 0.5, 1.0, 1.9])
def test_a_slide_has_the_size_asked_for(monkeypatch: pytest.MonkeyPatch, mpp: float) -> None:
    def light(self: PhantomSlide, window: Window, margin: int) -> NDArray[np.float32]:
        return np.full((window.height, window.width, 3), window.um * 100, np.float32)

    monkeypatch.setattr(PhantomSlide, "_light", light)
    monkeypatch.setattr(slidephantom, "_BLOCK", 300.0)
    width, height = round(1003 / mpp), round(917 / mpp)
    slide = PhantomSlide(1, width, height, mpp)
    bands = list(slide.bands())
    assert sum(map(len, bands)) == height
    assert {(band.shape[1:], band.dtype) for band in bands} == {((width, 3), np.dtype(np.uint8))}
    assert sum(map(len, slide.masks())) == height
    um = np.mean([band.mean() for band in bands]) / 100
    assert um == pytest.approx(max(mpp, 0.4), rel=0.95)  # drawn at 0.4 to 0.8 um, or as coarse
    assert max(mpp, 0.4) - 0.01 < um


def test_blocks_show_no_borders(
    slide: PhantomSlide, picture: RGB8, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn in other blocks it is the same picture, but for a few pixels."""
    monkeypatch.setattr(slidephantom, "_BLOCK", 384.0)
    other = PhantomSlide(HOLED, 1000, 900, 1.0)
    rows = list(itertools.islice(other.bands(), 12))  # two rows of blocks
    differ = np.abs(np.concatenate(rows).astype(int) - picture[: 12 * 64]).max(axis=2) > 3
    assert differ.mean() < 0.003


def test_bands_are_drawn_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def row(self: PhantomSlide, index: int) -> RGB8:
        calls.append(index)
        side = self._side + 2 * slidephantom._CONTEXT
        return np.zeros((side, self.width + side, 3), np.uint8)

    monkeypatch.setattr(PhantomSlide, "_row", row)
    tall = PhantomSlide(0, 1600, 20_000, 0.5)
    bands = iter(tall.bands())
    done = 0
    for y in range(0, 20_000, 2000):
        while done < y:
            band = next(bands)
            assert len(band) <= 128
            done += len(band)
        assert len(calls) <= done // tall._side + 1


def test_the_coarse_picture_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specimen, "_SIDE", 250)
    wide = PhantomSlide(0, 16_000, 4000, 0.25)
    assert wide._specimen.inside.shape == (125, 500)
    assert wide.truth.annotations


@pytest.mark.parametrize("mpp", [0.5, 2.0])
def test_a_speck_of_tissue_in_a_block_can_be_drawn(mpp: float) -> None:
    slide = PhantomSlide(HOLED, round(1000 / mpp), round(1000 / mpp), mpp)
    inside = np.full_like(slide._specimen.inside, -100)
    margin = math.ceil(slidephantom._MARGIN / slide._um)
    for speck in (0, -1):
        inside[speck, speck] = 10
        bare = dataclasses.replace(slide._specimen, inside=inside)
        object.__setattr__(slide, "_specimen", bare)
        window = Window(slide.seed, -margin, -margin, *(slide.width + 2 * margin,) * 2, slide._um)
        assert np.isfinite(slide._light(window, margin)).all()


def test_masks_are_the_outlines(slide: PhantomSlide) -> None:
    """Pixel by pixel, by another library."""
    mask = truth_mask(slide)
    y, x = np.mgrid[: slide.height, : slide.width] + 0.5
    expected = np.zeros_like(mask)
    for annotation in slide.truth.annotations:
        expected |= shapely.contains_xy(annotation.shape, x, y)
    assert np.array_equal(mask, expected)
    for rows in (1, 77, 5000):
        assert np.array_equal(np.concatenate(list(slide.masks(rows))) > 0, mask)


@pytest.mark.parametrize("seed", range(0, 16, 2))
def test_outlines_are_tidy(seed: int) -> None:
    slide = PhantomSlide(seed, 3000, 4200, 0.5)
    shapes = [annotation.shape for annotation in slide.truth.annotations]
    assert shapes
    assert all(shape.geom_type == "Polygon" and shape.is_valid for shape in shapes)
    assert min(shape.area for shape in shapes) > 2000 / 0.5**2
    holes = [shapely.Polygon(ring) for shape in shapes for ring in shape.interiors]
    assert all(hole.area > 1500 / 0.5**2 for hole in holes)
    coordinates = shapely.get_coordinates(shapes)
    assert np.allclose(coordinates, np.round(coordinates, 2), atol=1e-9)
    assert coordinates.min() > 0
    assert np.all(coordinates.max(axis=0) < (3000, 4200))
    # Formats that paint holes last would lose an island inside one.
    assert not any(hole.contains(shape) for hole in holes for shape in shapes)
    assert shapely.union_all(shapes).area == pytest.approx(sum(s.area for s in shapes), rel=1e-6)


def test_there_are_holes_islands_and_lesions() -> None:
    slides = [PhantomSlide(seed, 3500, 3500, 1.0) for seed in range(6)]
    areas = [[a.shape.area for a in slide.truth.annotations] for slide in slides]
    holes = [sum(len(a.shape.interiors) for a in slide.truth.annotations) for slide in slides]
    assert sum(count > 0 for count in holes) >= 4
    assert sum(max(area) > 250_000 for area in areas) >= 4
    assert sum(min(area) < 25_000 for area in areas) >= 4


def test_the_scale_does_not_move_the_tumour(slide: PhantomSlide) -> None:
    fine = PhantomSlide(HOLED, 4000, 3600, 0.25)
    for coarse_, fine_ in zip(slide.truth.annotations, fine.truth.annotations, strict=True):
        scaled = shapely.transform(fine_.shape, lambda xy: xy / 4)
        assert scaled.symmetric_difference(coarse_.shape).area < 0.002 * coarse_.shape.area


def test_the_outline_is_where_the_picture_changes(slide: PhantomSlide, picture: RGB8) -> None:
    """The step of the picture's stains is largest over the outline itself, holes included."""
    mask = truth_mask(slide)
    stains = cv2.GaussianBlur(optical_density(picture) @ UNMIX, (0, 0), 1.5)
    signed = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    signed -= cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    steps = {}
    for shift in (-10, -5, 0, 5, 10):
        within = stains[(signed > shift) & (signed <= shift + 6)].mean(axis=0)
        without = stains[(signed <= shift) & (signed > shift - 5)].mean(axis=0)
        steps[shift] = np.abs(within - without).sum()
    assert max(steps, key=lambda shift: steps[shift]) == 0, steps


def test_glass_is_white_and_tissue_is_not(slide: PhantomSlide, picture: RGB8) -> None:
    density = cv2.GaussianBlur(optical_density(picture).sum(axis=2), (0, 0), 8)
    assert np.median(density[truth_mask(slide)]) > 0.5
    border = np.concatenate([picture[:20].reshape(-1, 3), picture[:, :20].reshape(-1, 3)])
    assert np.median(border, axis=0).min() > 225
    assert 0.15 < (density > 0.15).mean() < 0.75


def test_fine_slides_are_sharper_than_an_enlargement(slide: PhantomSlide) -> None:
    fine = PhantomSlide(HOLED, 4000, 3600, 0.25)
    row = fine._enlarged(fine._block(0, 0))
    small = cv2.resize(row, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    blurred = cv2.resize(small, row.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    grey, blurred_grey = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (row, blurred))
    sharp, dull = (cv2.Laplacian(image, cv2.CV_32F).std() for image in (grey, blurred_grey))
    assert sharp > 1.5 * dull


@pytest.mark.parametrize(
    ("seed", "width", "height", "mpp", "told"),
    [
        (-1, 2000, 2000, 1.0, "seed -1"),
        (0, 2000, 2000, 0.05, "0.05 um per px"),
        (0, 2000, 2000, 4.0, "4.0 um per px"),
        (0, 2000, 2000, float("nan"), "nan um per px"),
        (0, 3000, 5000, 0.25, "3200 px or more"),
    ],
)
def test_impossible_slides_are_refused(
    seed: int, width: int, height: int, mpp: float, told: str
) -> None:
    with pytest.raises(HistoclickError, match=told):
        PhantomSlide(seed, width, height, mpp)


@pytest.mark.slow
def test_a_large_slide_needs_little_memory(tmp_path: Path) -> None:
    import resource

    write_phantom_slide(PhantomSlide(2, 30_000, 30_000, 0.25), tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_500_000  # kB, with this process
