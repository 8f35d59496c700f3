"""Endless random fields: noise, points and cells as functions of a seed and a position.

Everything is hashed from whole-number positions and nothing is drawn in sequence, so two windows
that overlap agree where they do (up to what filters see beyond a border).
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from histoclick.types import Mask

Field = NDArray[np.floating[Any]]  # (H, W), one value per pixel of a window
Line = NDArray[np.floating[Any]]  # (N,), one value per cell
Whole = NDArray[np.int64]

_NOWHERE = np.float32(1e9)  # px, to a region that is empty
_MANY = 1024  # px, side of a window from which most weights are zero


@dataclass(frozen=True)
class Points:
    """Cells: ``x``, ``y`` (N,) in px of the window, and six ``dice`` (6, N) in [0, 1) each."""

    x: Line
    y: Line
    dice: Field

    @property
    def at(self) -> tuple[Whole, Whole]:
        """Row and column of the pixel each is in."""
        return np.rint(self.y).astype(np.int64), np.rint(self.x).astype(np.int64)

    def where(self, keep: NDArray[np.bool_] | Whole) -> Points:
        """Those with ``keep``: (N,) bool, or their indices."""
        return Points(self.x[keep], self.y[keep], self.dice[:, keep])


@dataclass(frozen=True)
class Window:
    """A rectangle of the tissue ``seed``: its top left corner and its size, px of ``um``."""

    seed: int
    x0: int
    y0: int
    width: int
    height: int
    um: float = 1.0

    @cached_property
    def grid(self) -> tuple[Field, Field]:
        """X and y of every pixel, in px of the window."""
        y, x = np.mgrid[: self.height, : self.width].astype(np.float32)
        return x, y

    def dice(self, name: str, ix: Whole, iy: Whole) -> Field:
        """A number in [0, 1) for each whole-number position, by splitmix64: no state, no order."""
        key = (zlib.crc32(name.encode()) + (self.seed << 32)) % 2**64
        z = ix.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z + iy.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)) ^ np.uint64(key)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(40)).astype(np.float32) / np.float32(2**24)

    def noise(self, name: str, scale: float, octaves: int = 1) -> Field:
        """Smooth noise, mean 0, deviation 1, with details of ``scale`` um and finer octaves."""
        total = np.zeros((self.height, self.width), np.float32)
        for octave in range(octaves):
            rows, ys = _spline(self.y0, self.height, scale / 2**octave / self.um)
            columns, xs = _spline(self.x0, self.width, scale / 2**octave / self.um)
            knots = self.dice(f"{name}{octave}", xs[None, :], ys[:, None]) - np.float32(0.5)
            # A B-spline keeps 0.479 of white noise's variance along each axis; dice have 1 / 12.
            total += _tensor(rows, knots, columns) * np.float32(7.23 / 2**octave)
        return total / np.float32(math.sqrt(sum(0.25**octave for octave in range(octaves))))

    def points(self, name: str, spacing: float) -> Points:
        """One point somewhere in each square of a lattice of ``spacing`` um."""
        spacing /= self.um
        ys = np.arange(self.y0 // spacing - 1, (self.y0 + self.height) // spacing + 2)
        xs = np.arange(self.x0 // spacing - 1, (self.x0 + self.width) // spacing + 2)
        iy, ix = (a.ravel().astype(np.int64) for a in np.meshgrid(ys, xs, indexing="ij"))
        dice = np.stack([self.dice(f"{name}{k}", ix, iy) for k in range(8)])
        x = (ix + 0.05 + 0.9 * dice[6]) * spacing - self.x0
        y = (iy + 0.05 + 0.9 * dice[7]) * spacing - self.y0
        inside = (x >= 0) & (y >= 0) & (x < self.width - 1) & (y < self.height - 1)
        return Points(x, y, dice[:6]).where(inside)

    def smooth(self, image: Field, deviation: float) -> Field:
        """Gaussian blur of ``deviation`` um."""
        return smooth(image, deviation / self.um)

    def distance_to(self, region: Mask) -> Field:
        """Um from each pixel to the nearest one of ``region``."""
        far = cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, 5)
        return np.minimum(far, _NOWHERE) * np.float32(self.um)

    def voronoi(self, points: Points) -> tuple[Whole, Field]:
        """The Voronoi cells of ``points``: (H, W) index of the owner, um to the nearest wall."""
        empty = np.ones((self.height, self.width), np.uint8)
        empty[points.at] = 0
        _, label = cv2.distanceTransformWithLabels(
            empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        owner = np.zeros(label.max() + 1, np.int64)
        owner[label[points.at]] = np.arange(len(points.x))
        wall = np.zeros(label.shape, bool)
        wall[:, 1:] |= label[:, 1:] != label[:, :-1]
        wall[1:] |= label[1:] != label[:-1]
        return owner[label], self.distance_to(wall)


@lru_cache(maxsize=256)
def _spline(start: int, count: int, step: float) -> tuple[Any, Whole]:
    """Cubic B-spline weights (count, knots) of the pixels from ``start``, and the knots' index.

    Of many pixels as a sparse matrix: four knots weigh on each.
    """
    at = (start + np.arange(count)) / step
    knots = np.arange(math.floor(at[0]) - 1, math.floor(at[-1]) + 3, dtype=np.int64)
    if count <= _MANY:
        return _weights(np.abs(at[:, None] - knots[None, :])).astype(np.float32), knots
    first = np.floor(at).astype(np.int64) - 1
    weights = _weights(np.abs(at[:, None] - first[:, None] - np.arange(4))).astype(np.float32)
    index = first[:, None] - knots[0] + np.arange(4)
    ends = np.arange(0, 4 * count + 1, 4)
    return csr_array((weights.ravel(), index.ravel(), ends), (count, len(knots))), knots


def _weights(t: Field) -> Field:
    """Of knots at distance ``t``."""
    near, far = 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6
    return np.where(t < 1, near, far)


def _tensor(rows: Any, knots: Field, columns: Any) -> Field:
    """``knots`` spread over the pixels."""
    if isinstance(columns, np.ndarray):
        return np.asarray(rows @ knots @ columns.T)
    # Two sparse products from the left: the other way round they are slow.
    return np.asarray(rows @ np.ascontiguousarray((columns @ np.ascontiguousarray(knots.T)).T))


def soft_step(
    values: Field | np.float32, edge: float | Field | np.float32 = 0.0, softness: float = 1.0
) -> Field:
    """0 below ``edge``, 1 above, linear over ``softness`` between."""
    return np.asarray(np.clip((values - edge) / softness + 0.5, 0, 1))


def remap(image: Field, x: Field, y: Field) -> Field:
    """``image`` looked up at ``x``, ``y`` (px), bilinear."""
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def smooth(image: Field, deviation: float) -> Field:
    """Gaussian blur of ``deviation`` px."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), deviation))


def slope(image: Field) -> tuple[Field, Field]:
    """How fast it grows to the right and downwards, up to a common factor."""
    x, y = (cv2.Sobel(image, cv2.CV_32F, *axes) for axes in ((1, 0), (0, 1)))
    return np.asarray(x), np.asarray(y)
