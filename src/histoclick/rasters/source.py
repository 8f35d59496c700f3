"""Pixels of a file, whatever its format."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray

from histoclick.rasters.legend import Legend
from histoclick.types import HistoclickError

Indices = NDArray[np.int64]
Pixels = NDArray[Any]
# What readers raise over damaged files, which may hold anything.
DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, SyntaxError,
    TypeError, ValueError, struct.error, tifffile.TiffFileError,
)  # fmt: skip


class RasterSource(Protocol):
    """``channels``: 1 numbers, 2 with opacity, 3 RGB, 4 with opacity. ``width``, ``height``: px."""

    width: int
    height: int
    channels: int
    legend: Legend

    def pick(self, rows: Indices, columns: Indices) -> Pixels:
        """(rows, columns) or (rows, columns, channels) pixels, for rows and columns in order."""
        ...

    def close(self) -> None:
        """Let the file go."""
        ...


def cut(pixels: Pixels, rows: Indices, columns: Indices) -> Pixels:
    """Some rows and columns of pixels; without a copy if they lie side by side."""
    for axis, index in enumerate((rows, columns)):
        if index[-1] - index[0] == len(index) - 1:
            some = slice(int(index[0]), int(index[-1]) + 1)
            pixels = pixels[some] if axis == 0 else pixels[:, some]
        else:
            pixels = np.take(pixels, index, axis)
    return pixels


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Errors of readers, as a sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise HistoclickError(
            f"{path}: cannot be read ({reason}); check or copy it again"
        ) from None
    except DAMAGE as error:
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise HistoclickError(
            f"{path}: damaged or of an unknown kind ({reason}); export it again"
        ) from None
