"""Reads, against an exact mean over the areas that pixels cover."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from histoclick.geometry import Rect
from histoclick.slides import Slide, open_slide
from histoclick.slides import slide as slide_module
from histoclick.slides.openslides import OpenSlideSource
from histoclick.slides.tiffs import TiffSource
from histoclick.types import HistoclickError
from madeslides import area_mean, noise, shrunk, write_ome, write_pyramid

WIDTH, HEIGHT = 347, 251  # odd: levels of 173x125 and 86x62 px lack the last pixels


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return noise(HEIGHT, WIDTH)


@pytest.fixture(scope="module", params=["openslide", "tifffile"])
def slide(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pixels
) -> Iterator[Slide]:
    folder = tmp_path_factory.mktemp("slides")
    write = write_pyramid if request.param == "openslide" else write_ome
    opened = open_slide(write(folder / "made.tif", pixels), mpp=0.5)
    kinds = {"openslide": OpenSlideSource, "tifffile": TiffSource}
    assert isinstance(opened.source, kinds[request.param])
    yield opened
    opened.close()


def test_levels_have_whole_factors_where_sizes_are_rounded(slide: Slide) -> None:
    assert [(level.width, level.height) for level in slide.levels] == [
        (347, 251), (173, 125), (86, 62),
    ]  # fmt: skip
    assert [level.downsample for level in slide.levels] == [1, 2, 4]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_read_is_the_mean_of_the_area_of_each_pixel(slide: Slide, pixels, data) -> None:
    """At any place, size and scale; partly and wholly outside."""
    scale = data.draw(st.one_of(st.floats(1, 1.99), st.floats(2, 3.99), st.floats(4, 9)))
    width, height = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    x0 = data.draw(st.floats(-60, WIDTH + 20))
    y0 = data.draw(st.floats(-60, HEIGHT + 20))
    rect0 = Rect(x0, y0, width * scale, height * scale)
    factor = 1 if scale < 2 else 2 if scale < 4 else 4
    read = slide.read(rect0, width, height)
    assert read.shape == (height, width, 3)
    assert read.dtype == np.uint8
    expected = area_mean(_as_level_shows_it(pixels, factor), rect0, width, height)
    # OpenSlide interpolates on levels that it thinks have no whole factor, with 7 bits.
    assert np.abs(read - expected).max() <= (2 if factor == 1 else 4)


def _as_level_shows_it(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Level 0, each block of it in the colour of the level; the level's border goes on."""
    level = shrunk(pixels, factor)
    missing = -HEIGHT % factor and 1, -WIDTH % factor and 1
    level = np.pad(level, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge")
    level = level[: -(-HEIGHT // factor), : -(-WIDTH // factor)]
    return np.kron(level, np.ones((factor, factor, 1), np.uint8))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_levels_that_fit_are_read_as_they_are(slide: Slide, pixels, level: int) -> None:
    factor = 2**level
    for x, y in [(0, 0), (3, 5), (40, 30), (86 // 2, 62 // 2)]:
        rect0 = Rect(x * factor, y * factor, 40 * factor, 30 * factor)
        stored = shrunk(pixels, factor)[y : y + 30, x : x + 40]
        read = slide.read(rect0, 40, 30)
        assert np.abs(read.astype(int) - stored).max() <= (0 if level == 0 else 3)


@pytest.mark.parametrize("scale", [0.4, 1, 1.3, 2, 2.7, 3.999, 4, 4.001, 5.5])
@pytest.mark.parametrize("write", [write_pyramid, write_ome])
def test_a_gradient_is_nowhere_shifted(tmp_path: Path, write, scale: float) -> None:
    """Two grey levels per px of level 0; rounding, twice, hides 0.4 px at most."""
    x, y = np.meshgrid(np.arange(123) + 0.5, np.arange(103) + 0.5)
    path = write(tmp_path / "gradient.tif", np.stack([2 * x, 2 * y, x + y], -1).astype(np.uint8))
    with open_slide(path) as slide:
        for x0, y0 in [(0, 0), (17.25, 21.5), (122 - 60, 100 - 60)]:
            count = int(60 / scale)
            read = slide.read(Rect(x0, y0, count * scale, count * scale), count, count)
            centres = (np.arange(count) + 0.5) * scale
            across, down = np.meshgrid(x0 + centres, y0 + centres)
            shift = read / 2 - np.stack([across, down, (across + down) / 2], -1)
            assert np.abs(shift[1:-1, 1:-1]).max() < 1.3
            assert np.abs(shift[1:-1, 1:-1].mean((0, 1))).max() < 0.45


def test_beyond_level_0_it_is_interpolated(slide: Slide, pixels) -> None:
    read = slide.read(Rect(10, 10, 20, 10), 40, 20).astype(float)
    a, b = pixels[12, 14].astype(float), pixels[12, 15].astype(float)
    below = pixels[13, 14].astype(float), pixels[13, 15].astype(float)
    expected = 0.75 * (0.75 * a + 0.25 * b) + 0.25 * (0.75 * below[0] + 0.25 * below[1])
    assert np.abs(read[5, 9] - expected).max() <= 0.5


def test_outside_is_white(slide: Slide) -> None:
    assert (slide.read(Rect(WIDTH + 1, 0, 100, 100), 50, 50) == 255).all()
    assert (slide.read(Rect(-1000, -1000, 100, 100), 20, 20) == 255).all()
    left = slide.read(Rect(-50, 0, 100, 50), 100, 50)
    assert (left[:, :50] == 255).all()
    assert (left[:, 50:] == slide.read(Rect(0, 0, 50, 50), 50, 50)).all()


def test_never_from_a_coarser_level(tmp_path: Path) -> None:
    path = tmp_path / "told-apart.tif"
    with tifffile.TiffWriter(path) as writer:
        for number, side in enumerate((256, 128, 64)):
            level = np.full((side, side, 3), 50 * number, np.uint8)
            writer.write(level, tile=(64, 64), photometric="rgb", subfiletype=int(number > 0))
    with open_slide(path) as slide:
        for scale, value in [(0.5, 0), (1, 0), (1.98, 0), (2, 50), (3.98, 50), (4, 100), (9, 100)]:
            assert slide.read(Rect(64, 64, 16 * scale, 16 * scale), 16, 16).mean() == value
        # Different in x and y: the finer one decides.
        assert slide.read(Rect(64, 64, 64, 32), 16, 16).mean() == 50


def test_large_regions_are_read_by_parts(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    rect0 = Rect(-20.3, 10.1, 330.7, 200.9)
    sizes = [(57, 31), (1, 1), (1, 40), (60, 1)]
    whole = [slide.read(rect0, *size) for size in sizes]
    largest = []
    read = slide.source.read

    def watched(level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        largest.append(width * height)
        return read(level, x, y, width, height)

    monkeypatch.setattr(slide.source, "read", watched)
    monkeypatch.setattr(slide_module, "MAX_PIXELS", 2000)
    for expected, size in zip(whole, sizes, strict=True):
        parts = slide.read(rect0, *size)
        assert np.abs(parts.astype(int) - expected).max() <= 1
    assert max(largest) <= 4 * 57 * 31


def test_threads_read_the_same(slide: Slide) -> None:
    rects = [Rect(7.5 * n % 200, 11 * n % 150, 90 + n % 7, 80) for n in range(60)]
    alone = [slide.read(rect0, 50, 40) for rect0 in rects]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda rect0: slide.read(rect0, 50, 40), rects))
    assert all((a == b).all() for a, b in zip(alone, together, strict=True))


def test_microns_per_pixel(slide: Slide) -> None:
    assert slide.mpp == 0.5
    assert slide.scale(2) == (4, 4)
    patch = slide.read_at(40, 20, 2, 32)
    assert (patch == slide.read(Rect(40, 20, 128, 128), 32, 32)).all()
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(HistoclickError, match="no resolution"):
            slide.read_at(0, 0, bad, 10)


def test_pixels_that_are_not_square(tmp_path: Path, pixels) -> None:
    path = write_pyramid(
        tmp_path / "flat.tif", pixels, resolution=(1e4 / 0.5, 1e4 / 0.25),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    with open_slide(path) as slide:
        assert (slide.mpp_x, slide.mpp_y) == pytest.approx((0.5, 0.25))
        patch = slide.read_at(0, 0, 1, 30)
        assert np.abs(patch - area_mean(pixels, Rect(0, 0, 60, 120), 30, 30)).max() <= 1


def test_thumbnail(slide: Slide, pixels) -> None:
    thumbnail = slide.thumbnail(40)
    assert thumbnail.shape == (29, 40, 3)
    expected = area_mean(_as_level_shows_it(pixels, 4), Rect(0, 0, WIDTH, HEIGHT), 40, 29)
    assert np.abs(thumbnail - expected).max() <= 3


def test_unknown_microns_are_asked_for(tmp_path: Path, pixels) -> None:
    path = write_pyramid(tmp_path / "silent.tif", pixels)
    with open_slide(path) as slide:
        assert slide.mpp is None
        with pytest.raises(HistoclickError, match=r"silent.tif: does not say .* --mpp"):
            slide.read_at(0, 0, 1, 10)
    with open_slide(path, mpp=0.25) as slide:
        assert slide.mpp == 0.25
        assert slide.notes == ()


def test_contradictions_are_told(tmp_path: Path, pixels) -> None:
    path = write_pyramid(
        tmp_path / "half.tif", pixels, resolution=(20_000, 20_000), resolutionunit="CENTIMETER"
    )
    assert open_slide(path).mpp == pytest.approx(0.5)
    assert open_slide(path, mpp=0.502).notes == ()
    slide = open_slide(path, mpp=0.25)
    assert slide.mpp == 0.25
    assert "0.25 um/px as given" in slide.notes[0]
    with pytest.raises(HistoclickError, match="no resolution"):
        open_slide(path, mpp=-1)


def test_other_processes_open_it_again(slide: Slide) -> None:
    with pickle.loads(pickle.dumps(slide)) as twin:  # noqa: S301 - our own
        assert twin.source is not slide.source
        assert twin.mpp == slide.mpp
        rect0 = Rect(3, 4, 50, 40)
        assert (twin.read(rect0, 25, 20) == slide.read(rect0, 25, 20)).all()


def test_fingerprints_name_the_content(tmp_path: Path, pixels) -> None:
    one = open_slide(write_pyramid(tmp_path / "one.tif", pixels))
    same = open_slide(write_pyramid(tmp_path / "same.tif", pixels))
    other = open_slide(write_pyramid(tmp_path / "other.tif", 255 - pixels))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.fingerprint.startswith("quickhash-1:")
    with open_slide(write_ome(tmp_path / "ome.tif", pixels)) as ome:
        assert ome.fingerprint.startswith("sha256:")
