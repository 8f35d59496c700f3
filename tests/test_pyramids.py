"""Pyramids: readers find the levels, their scale and their pixels; memory stays small."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile
from numpy.typing import NDArray

from histoclick.pyramids import write_pyramid


def picture(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth enough for JPEG."""
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 6)
    return np.asarray(cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX)).astype(np.uint8)


def labels(width: int, height: int, values: list[int]) -> NDArray[np.intp]:
    grey = picture(width, height)[..., 0]
    return np.asarray(values)[np.digitize(grey, [110, 140])]


def read(path: Path, level: int = 0) -> NDArray[np.uint8]:
    """As OpenSlide sees it."""
    with openslide.OpenSlide(path) as slide:
        view = slide.read_region((0, 0), level, slide.level_dimensions[level])
    pixels = np.asarray(view)
    assert pixels[..., 3].min() == 255
    return pixels[..., :3]


def halved_slowly(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    height, width = image.shape[:2]
    rows = [
        [image[y : y + 2, x : x + 2].mean(axis=(0, 1)) for x in range(0, width, 2)]
        for y in range(0, height, 2)
    ]
    return np.asarray(rows)


def commonest(block: NDArray[np.uint8]) -> int:
    counts = {value: (block == value).sum() for value in block.ravel().tolist()}
    return max(counts, key=lambda value: counts[value])  # the first in a draw


@pytest.mark.parametrize("mpp", [0.25, 0.2431, 1.0])
def test_openslide_finds_levels_scale_and_pixels(tmp_path: Path, mpp: float) -> None:
    image = picture(1101, 803)
    file = tmp_path / "Schnitt ä.tif"
    write_pyramid(file, 1101, 803, [image], mpp=mpp, description="a phantom, 1 px = 1 um")
    with openslide.OpenSlide(file) as slide:
        assert slide.level_dimensions == ((1101, 803), (551, 402), (276, 201), (138, 101))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(mpp, rel=1e-6)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(mpp, rel=1e-6)
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert slide.properties["openslide.comment"] == "a phantom, 1 px = 1 um"
    assert np.abs(read(file).astype(int) - image).mean() < 4
    mean = image.reshape(-1, 3).mean(axis=0)
    for level in (1, 2, 3):
        assert read(file, level).reshape(-1, 3).mean(axis=0) == pytest.approx(mean, abs=1)


def test_a_pyramid_of_one_tile_has_one_level(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tif", 256, 31, [picture(256, 31)])
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert slide.level_dimensions == ((256, 31),)
        assert "openslide.mpp-x" not in slide.properties


def test_tifffile_sees_one_series_of_levels(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tif", 1501, 703, [picture(1501, 703)], tile_px=128, mpp=0.5)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert len(file.series) == 1
        shapes = [level.shape for level in file.series[0].levels]
        assert shapes == [(703, 1501, 3), (352, 751, 3), (176, 376, 3), (88, 188, 3), (44, 94, 3)]
        assert [page.is_reduced for page in file.pages] == [False, True, True, True, True]
        per_cm = [page.tags["XResolution"].value for page in file.pages]
        assert [1e4 * b / a for a, b in per_cm] == pytest.approx(
            [0.5 * 1501 / width for width in (1501, 751, 376, 188, 94)]
        )


@pytest.mark.parametrize("compression", ["deflate", "lzw"])
def test_lossless_levels_are_means_of_four(tmp_path: Path, compression: str) -> None:
    image = picture(95, 61)
    file = tmp_path / "a.tif"
    write_pyramid(file, 95, 61, [image], compression=compression, tile_px=32)  # type: ignore[arg-type]
    assert np.array_equal(read(file), image)
    finer: NDArray[np.uint8] = image
    for level in (1, 2):
        coarser = read(file, level)
        assert np.abs(coarser - halved_slowly(finer)).max() <= 0.5
        finer = coarser


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_labels_stay_labels(
    tmp_path: Path, kind: type[np.uint8 | np.uint16], compression: str | None
) -> None:
    image = labels(301, 333, [0, 7, 255 if kind is np.uint8 else 60000]).astype(kind)
    file = tmp_path / "a.tif"
    write_pyramid(file, 301, 333, [image], compression=compression, tile_px=64)  # type: ignore[arg-type]
    with tifffile.TiffFile(file) as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
    assert levels[0].dtype == kind
    assert np.array_equal(levels[0], image)
    for finer, coarser in itertools.pairwise(levels):
        for y, x in np.random.default_rng(0).integers(0, coarser.shape, (200, 2)):
            assert coarser[y, x] == commonest(finer[2 * y : 2 * y + 2, 2 * x : 2 * x + 2])
    if kind is np.uint8:
        assert np.array_equal(read(file)[..., 0], image)


def test_bands_of_any_height_give_the_same_file(tmp_path: Path) -> None:
    image = picture(301, 333)
    files = []
    for cuts in ([], [1], [64, 65, 66, 200], [100, 100, 300], list(range(1, 333, 7))):
        file = tmp_path / f"{len(files)}.tif"
        finished: list[int] = []
        write_pyramid(file, 301, 333, np.split(image, cuts), tile_px=64, progress=finished.append)
        assert finished == [64, 64, 64, 64, 64, 13]
        files.append(file.read_bytes())
    assert len(set(files)) == 1


@pytest.mark.parametrize(
    ("bands", "told"),
    [
        ([], "end before"),
        ([picture(40, 49)], "end before 50 rows"),
        ([picture(40, 50), picture(40, 1)], "do not fit"),
        ([picture(41, 50)], "do not fit"),
        ([np.zeros((50, 40), np.int32)], "int32"),
        ([np.zeros((50, 40, 3), np.uint16)], "uint16"),
    ],
)
def test_bands_that_do_not_fit_leave_the_old_file(
    tmp_path: Path, bands: list[NDArray[np.uint8]], told: str
) -> None:
    file = tmp_path / "a.tif"
    file.write_bytes(b"old")
    with pytest.raises(ValueError, match=told):
        write_pyramid(file, 40, 50, bands, tile_px=16)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_labels_are_not_written_as_jpeg(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="jpeg would change labels"):
        write_pyramid(tmp_path / "a.tif", 9, 9, [np.zeros((9, 9), np.uint8)], compression="jpeg")


def test_memory_holds_rows_of_tiles_not_the_slide(tmp_path: Path) -> None:
    side, tall = 1024, 16384

    def bands() -> Iterator[NDArray[np.uint8]]:
        for y in range(0, tall, 128):
            yield np.full((128, side, 3), y % 251, np.uint8)

    write_pyramid(tmp_path / "a.tif", 64, 64, [picture(64, 64)])  # what is loaded once
    tracemalloc.start()
    try:
        write_pyramid(tmp_path / "a.tif", side, tall, bands(), tile_px=128)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.1 * side * tall * 3
