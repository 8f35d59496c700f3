"""Slides that OpenSlide reads: SVS, TIFF, NDPI, MRXS, SCN, BIF, DICOM and others."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import openslide
from numpy.typing import NDArray

from histoclick.geometry import Rect
from histoclick.slides.source import Facts
from histoclick.types import RGB8, HistoclickError


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
        corner = round(x * downsample), round(y * downsample)
        try:
            region = self._slide.read_region(corner, level, (width, height))
        except openslide.OpenSlideError as error:
            raise HistoclickError(
                f"{self._path}: damaged near ({corner[0]}, {corner[1]}) px ({error}); copy the "
                "slide again from where it came"
            ) from None
        return _over_white(np.asarray(region))

    def close(self) -> None:
        """See ``Source``."""
        self._slide.close()


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
    known = x0 is not None and y0 is not None and bool(width) and bool(height)
    return Facts(
        format=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
        mpp_x=_number(properties.get(openslide.PROPERTY_NAME_MPP_X)),
        mpp_y=_number(properties.get(openslide.PROPERTY_NAME_MPP_Y)),
        objective_power=_number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
        bounds=Rect(x0 or 0, y0 or 0, width or 0, height or 0) if known else None,
        quickhash=properties.get(openslide.PROPERTY_NAME_QUICKHASH1),
        associated=tuple(slide.associated_images),
    )


_BOUNDS = ("x", "y", "width", "height")


def _number(text: str | None) -> float | None:
    """A finite number, if ``text`` is one."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if np.isfinite(value) else None
