"""An open label image: numbers, whatever its pixels are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from histoclick.geometry import Rect
from histoclick.rasters.legend import LabelClass, Legend
from histoclick.rasters.source import Indices, Pixels, RasterSource, told
from histoclick.types import HistoclickError, Labels

MAX_COLOURS = 64
_PORTION = 2**22  # px looked at together


class LabelImage:
    """Closed at the end of a ``with``; not for several threads at once.

    ``width``, ``height``: px. ``legend``: what the file says of its values.
    """

    def __init__(self, path: Path, source: RasterSource) -> None:
        self._path, self._source = path, source
        self.width, self.height = source.width, source.height
        self.legend = source.legend
        self._value_of: NDArray[np.uint8] | None = None
        if source.channels >= 3:
            try:
                self._value_of, self.legend = self._colours()
            except BaseException:
                source.close()
                raise

    def bands(self, rows: int = 256) -> Iterator[tuple[int, NDArray[Any]]]:
        """The whole image from top to bottom: y0 and (h, ``width``) uint8 or uint16, h <= rows."""
        for y0 in range(0, self.height, rows):
            yield y0, self._values(*self._rows(y0, rows))

    def read(self, rect0: Rect, width: int, height: int) -> Labels:
        """(``height``, ``width``) values at the centres of a grid over ``rect0``, 0 beyond."""
        found: Labels = np.zeros((height, width), np.uint16)
        x = np.floor(rect0.x0 + (np.arange(width) + 0.5) * (rect0.width / width))
        y = np.floor(rect0.y0 + (np.arange(height) + 0.5) * (rect0.height / height))
        columns = np.flatnonzero((x >= 0) & (x < self.width))
        rows = np.flatnonzero((y >= 0) & (y < self.height))
        if len(columns) and len(rows):
            found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = self._values(
                y[rows].astype(np.int64), x[columns].astype(np.int64)
            )
        return found

    def close(self) -> None:
        """Let the file go."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, y0: int, rows: int) -> tuple[Indices, Indices]:
        """Full rows, as rows and columns."""
        return np.arange(y0, min(y0 + rows, self.height)), np.arange(self.width)

    def _values(self, rows: Indices, columns: Indices) -> NDArray[Any]:
        """(rows, columns) uint8 or uint16."""
        with told(self._path):
            pixels = self._source.pick(rows, columns)
        if self._value_of is not None:
            return self._value_of[_packed(pixels)]
        if pixels.ndim == 3:  # numbers with opacity
            pixels = pixels[..., 0] * (pixels[..., 1] > 0)
        if pixels.dtype == np.bool_:
            return pixels.view(np.uint8)
        if pixels.dtype in (np.uint8, np.uint16):
            return pixels
        low, high = pixels.min(), pixels.max()
        if low < 0 or high > np.iinfo(np.uint16).max:
            raise HistoclickError(
                f"{self._path}: has values from {low} to {high}; a mask has classes from 0 to 65535"
            )
        return pixels.astype(np.uint16)

    def _colours(self) -> tuple[NDArray[np.uint8], Legend]:
        """(2**24,) the value of every colour, from a walk through the whole image."""
        seen = np.zeros(2**24, np.bool_)
        step = max(1, _PORTION // self.width)
        for y0 in range(0, self.height, step):
            with told(self._path):
                pixels = self._source.pick(*self._rows(y0, step))
            seen[_packed(pixels)] = True
            seen[0] = False
            if np.count_nonzero(seen) > MAX_COLOURS:
                raise HistoclickError(
                    f"{self._path}: has more than {MAX_COLOURS} colours, so it is a picture; give a"
                    " mask with one number, or one colour, for each class"
                )
        value_of = np.zeros(2**24, np.uint8)
        colours = np.flatnonzero(seen)
        value_of[colours] = np.arange(1, len(colours) + 1)
        classes = {
            value: LabelClass(f"#{colour:06x}", (colour >> 16, colour >> 8 & 255, colour & 255))
            for value, colour in enumerate(colours.tolist(), 1)
        }
        return value_of, Legend(classes, self.legend.mpp)


def _packed(pixels: Pixels) -> NDArray[np.int32]:
    """(h, w) one number for each colour; what is fully transparent is black."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    packed = red << 16 | green << 8 | blue
    return packed * (pixels[..., 3] > 0) if pixels.shape[2] == 4 else packed
