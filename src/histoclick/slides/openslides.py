"""Slides that OpenSlide reads: SVS, TIFF, NDPI, MRXS, SCN, BIF, DICOM and others."""

from __future__ import annotations

import contextlib
from pathlib import Path

import cv2
import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import ImageCms

from histoclick.geometry import Rect
from histoclick.slides.resolution import believable
from histoclick.slides.source import Facts
from histoclick.types import RGB8, HistoclickError

TAPS = 8  # of the filter in _unshifted: the next one would be below a grey level at any shift


class OpenSlideSource:
    """A slide opened by OpenSlide, whose handles are thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._slide = openslide.OpenSlide(path)
        self.sizes: tuple[tuple[int, int], ...] = tuple(self._slide.level_dimensions)
        self._downsamples: tuple[float, ...] = tuple(self._slide.level_downsamples)
        self.facts = _facts(self._slide)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> RGB8:
        """See ``Source``."""
        downsample = self._downsamples[level]
        if downsample.is_integer():
            return self._region(level, x * int(downsample), y * int(downsample), width, height)
        left, top = min(x, TAPS), min(y, TAPS)
        x0, y0 = round((x - left) * downsample), round((y - top) * downsample)
        region = self._region(level, x0, y0, left + width + TAPS, top + height + TAPS)
        region = _unshifted(region, x0 / downsample - (x - left), y0 / downsample - (y - top))
        return np.ascontiguousarray(region[top : top + height, left : left + width])

    def _region(self, level: int, x0: int, y0: int, width: int, height: int) -> RGB8:
        try:
            region = self._slide.read_region((x0, y0), level, (width, height))
        except openslide.OpenSlideError as error:
            with contextlib.suppress(openslide.OpenSlideError):
                self._slide = openslide.OpenSlide(self._path)  # the old handle reads no more
            raise HistoclickError(
                f"{self._path}: damaged near ({x0}, {y0}) px ({error}); copy the slide again from "
                "where it came"
            ) from None
        return _over_white(np.asarray(region))

    def close(self) -> None:
        """See ``Source``."""
        self._slide.close()


def _unshifted(pixels: RGB8, shift_x: float, shift_y: float) -> RGB8:
    """(H, W, 3) uint8 as they are stored, of ``pixels`` that OpenSlide interpolated.

    OpenSlide takes places in whole px of level 0. On a level whose downsample is no whole number
    these fall between its pixels, and it interpolates: with a shift f of less than half a pixel,
    what it gives is (1 - f) times a pixel plus f times its neighbour. That is undone here by the
    inverse of that filter, a geometric series.
    """
    (kernel_x, anchor_x), (kernel_y, anchor_y) = _inverse(shift_x), _inverse(shift_y)
    anchor, border = (anchor_x, anchor_y), cv2.BORDER_REPLICATE
    result = cv2.sepFilter2D(pixels, -1, kernel_x, kernel_y, None, anchor, 0, border)
    return np.asarray(result, np.uint8)


def _inverse(shift: float) -> tuple[NDArray[np.float32], int]:
    """The filter that takes away a linear interpolation by ``shift`` px, and its anchor."""
    share = abs(shift)
    kernel = ((-share / (1 - share)) ** np.arange(TAPS) / (1 - share)).astype(np.float32)
    return (kernel, 0) if shift > 0 else (kernel[::-1].copy(), TAPS - 1)


def _over_white(rgba: NDArray[np.uint8]) -> RGB8:
    """(H, W, 3) uint8 of (H, W, 4) uint8 whose colours are not multiplied by alpha."""
    rgb = np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), np.uint8)
    alpha = rgba[..., 3]
    if alpha.min() < 255:
        share = alpha[..., None].astype(np.float32) / 255
        rgb = np.rint(rgb * share + 255 * (1 - share)).astype(np.uint8)
    return rgb


def _facts(slide: openslide.OpenSlide) -> Facts:
    properties = slide.properties
    edges = [_number(properties.get(f"openslide.bounds-{what}")) for what in _BOUNDS]
    x0, y0, width, height = edges
    mpp_x, mpp_y, notes = believable(
        _number(properties.get(openslide.PROPERTY_NAME_MPP_X)),
        _number(properties.get(openslide.PROPERTY_NAME_MPP_Y)),
    )
    known = x0 is not None and y0 is not None and bool(width) and bool(height)
    return Facts(
        format=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
        mpp_x=mpp_x,
        mpp_y=mpp_y,
        objective_power=_number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
        bounds=Rect(x0 or 0, y0 or 0, width or 0, height or 0) if known else None,
        quickhash=properties.get(openslide.PROPERTY_NAME_QUICKHASH1),
        icc=_profile(slide),
        associated=tuple(slide.associated_images),
        notes=notes,
    )


def _profile(slide: openslide.OpenSlide) -> bytes | None:
    try:
        profile = slide.color_profile
    except (ImageCms.PyCMSError, openslide.OpenSlideError, OSError):
        return None  # a broken one is as good as none
    return profile.tobytes() if profile else None


_BOUNDS = ("x", "y", "width", "height")


def _number(text: str | None) -> float | None:
    """A finite number, if ``text`` is one."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if np.isfinite(value) else None
