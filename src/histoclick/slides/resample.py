"""Resampling of pictures: exact area averages at any fraction of a pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from histoclick.geometry import Rect
from histoclick.types import RGB8


def resample(pixels: RGB8, rect: Rect, width: int, height: int) -> RGB8:
    """(``height``, ``width``, 3) uint8: what ``rect`` of ``pixels`` looks like at that size.

    ``pixels``: (H, W, 3) uint8. ``rect``: in px of ``pixels``, pixel-corner, fractions allowed.
    Where an axis shrinks, each new pixel is the mean of the area that it covers; where it grows,
    values are interpolated between the centres of pixels. Beyond the border the border goes on.
    """
    rows = _weights(rect.y0, rect.height, height, pixels.shape[0])
    columns = _weights(rect.x0, rect.width, width, pixels.shape[1])
    flat = pixels.reshape(pixels.shape[0], -1).astype(np.float32)
    half = (rows @ flat).reshape(height, -1, 3).transpose(1, 0, 2)
    whole = (columns @ np.ascontiguousarray(half).reshape(-1, height * 3)).reshape(width, height, 3)
    result: RGB8 = np.ascontiguousarray(np.rint(whole).astype(np.uint8).transpose(1, 0, 2))
    return result


def _weights(start: float, extent: float, count: int, pixels: int) -> csr_array:
    """(``count``, ``pixels``) float32, rows sum to 1: which old pixel counts how much in a new."""
    scale = extent / count
    edges = start + scale * np.arange(count + 1)
    if scale >= 1:
        left, right = edges[:-1, None], edges[1:, None]
        first = np.floor(left)
        places = first + np.arange(int(np.ceil((right - first).max())))
        shares = np.minimum(places + 1, right) - np.maximum(places, left)
        weights: NDArray[np.float64] = np.maximum(shares, 0) / scale
    else:
        centres = (edges[:-1] + edges[1:])[:, None] / 2 - 0.5
        first = np.floor(centres)
        places = first + np.arange(2)
        weights = 1 - np.abs(centres - places)
    columns = np.clip(places, 0, pixels - 1).astype(np.int32)
    starts = np.arange(0, columns.size + 1, columns.shape[1], dtype=np.int32)
    data = weights.astype(np.float32).ravel()
    return csr_array((data, columns.ravel(), starts), shape=(count, pixels))
