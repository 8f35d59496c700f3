"""Nuclei: ellipses of haematoxylin with clumped chromatin and bent outlines."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from histoclick.datasets.lattice import Field, Line, Points, Whole, Window

_STAMPS = 256  # drawn at once
_REACH = 1.4  # of an ellipse's radius: chromatin bends outlines outwards


@dataclass(frozen=True)
class Nuclei:
    """Elliptical nuclei; all but ``cells`` are (N,)."""

    cells: Points
    length: Line  # um, half axis
    width: Line  # um, half axis
    angle: Line  # rad, of the length
    amount: Line  # of stain

    def stain(self, window: Window, chromatin: Field, rim: float) -> Field:
        """Haematoxylin of every pixel; where nuclei overlap the darker one is seen.

        ``chromatin``: (H, W) noise that bends outlines and clumps the stain. ``rim``: share of the
        stain that sits at the membrane.
        """
        canvas = np.zeros(chromatin.shape, np.float32)
        most = math.ceil(1.25 * self.length.max(initial=1) / window.um)
        by_size = np.argsort(self.length)  # small ones need small stamps
        for start in range(0, len(by_size), _STAMPS):
            some = by_size[start : start + _STAMPS]
            reach = math.ceil(_REACH * self.length[some[-1]] / window.um) + 1
            self._stamp(canvas, some, min(reach, most), window.um, chromatin, rim)
        return canvas

    def _stamp(
        self, canvas: Field, some: Whole, reach: int, um: float, chromatin: Field, rim: float
    ) -> None:
        """Draw ``some``, given by index, in squares of ``reach`` px around their centres."""
        height, width = canvas.shape
        dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1, 1)
        cells = self.cells.where(some)
        row, column = cells.at
        rows, columns = row + dy, column + dx  # (pixels of a stamp, N)
        u = ((columns - cells.x) * um).astype(np.float32)
        v = ((rows - cells.y) * um).astype(np.float32)
        angle, long, wide = self.angle[some], self.length[some], self.width[some]
        cos, sin = np.cos(angle), np.sin(angle)
        radius = np.hypot((u * cos + v * sin) / long, (v * cos - u * sin) / wide)
        seen = (radius < _REACH) & (rows >= 0) & (rows < height)
        seen &= (columns >= 0) & (columns < width)
        cell = np.nonzero(seen)[1]
        pixel = rows[seen] * width + columns[seen]
        clump = chromatin.ravel()[pixel]
        r = radius[seen] + 0.1 * clump
        body = np.clip((1 - r) * (wide[cell] / um) + 0.5, 0, 1) * self.amount[some][cell]
        stain = body * (1 - rim + rim * np.clip(r, 0, 1) ** 3 + 0.16 * clump)
        np.maximum.at(canvas.ravel(), pixel, stain)
