"""Slides for tests: generated, with known pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from histoclick.geometry import Rect
from histoclick.types import RGB8


def noise(height: int, width: int, seed: int = 0) -> RGB8:
    """Blotches with noise on them: nothing repeats, so every shift shows."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3))
    blotches = np.kron(coarse, np.ones((8, 8, 1), np.int64))[:height, :width]
    fine = rng.integers(-40, 41, (height, width, 3))
    return np.clip(blotches + fine, 0, 255).astype(np.uint8)


def shrunk(pixels: RGB8, factor: int) -> RGB8:
    """Means of whole blocks; what is left over at the right and lower border is dropped."""
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return np.rint(blocks.mean((1, 3))).astype(np.uint8)


def write_pyramid(
    path: Path, pixels: RGB8, factors: tuple[int, ...] = (2, 4), **options: object
) -> Path:
    """A tiled TIFF as many converters write it: one directory after the other."""
    options = {"tile": (64, 64), "photometric": "rgb", "compression": "deflate", **options}
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, **options)
        for factor in factors:
            writer.write(shrunk(pixels, factor), subfiletype=1, **options)
    return path


def write_ome(
    path: Path, pixels: RGB8, factors: tuple[int, ...] = (2, 4), metadata: dict | None = None
) -> Path:
    """An OME-TIFF with its levels in sub-directories."""
    options = {"tile": (64, 64), "photometric": "rgb", "compression": "deflate"}
    with tifffile.TiffWriter(path, ome=True) as writer:
        axes = {"axes": "YXS", **(metadata or {})}
        writer.write(pixels, subifds=len(factors), metadata=axes, **options)
        for factor in factors:
            writer.write(shrunk(pixels, factor), subfiletype=1, **options)
    return path


def area_mean(pixels: RGB8, rect: Rect, width: int, height: int) -> NDArray[np.float64]:
    """(height, width, 3): what each new pixel covers of ``pixels``, white outside; no tricks."""
    across = _overlaps(rect.x0, rect.width, width, pixels.shape[1])
    down = _overlaps(rect.y0, rect.height, height, pixels.shape[0])
    inside = np.einsum("hy,yxc,wx->hwc", down, pixels.astype(float), across, optimize=True)
    outside = 1 - np.multiply.outer(down.sum(1), across.sum(1))
    return inside + 255 * outside[..., None]


def _overlaps(start: float, extent: float, count: int, pixels: int) -> NDArray[np.float64]:
    """(count, pixels): the share of each new pixel that lies on each old one."""
    step = extent / count
    shares = np.zeros((count, pixels))
    for new in range(count):
        left, right = start + new * step, start + (new + 1) * step
        for old in range(max(int(left), 0), min(int(right) + 1, pixels)):
            shares[new, old] = max(0.0, min(right, old + 1) - max(left, old)) / step
    return shares
