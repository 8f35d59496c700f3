"""Phantom histology: patches that look like tissue in H&E, drawn by code, with exact truth.

One pixel is one micrometre (x10). What a place looks like is a function of the seed and of its
position in an endless tissue: noise, streaks and cells are hashed from integer positions, never
drawn in sequence. So a `_Window` anywhere else shows the same tissue, and slides can be made tile
by tile. The picture is mixed as light is: amounts of haematoxylin and eosin add up to an optical
density (Beer-Lambert), then come lamp, lens and sensor.

The truth is the tumour: nests and glands of epithelium *with* their lumina, as pathologists outline
them. Stroma, fat, vessels and tears are outside, also where they cut into the tumour.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from histoclick.types import RGB8, Mask, Sample

Field = NDArray[np.float32]  # (H, W), one value per pixel of a window
Line = NDArray[np.float32]  # (N,), one value per cell
_MARGIN = 40  # px; nothing in the picture depends on what is farther away


@dataclass(frozen=True)
class _Window:
    """A rectangle of the tissue: its top left corner and its size, px (= um)."""

    seed: int
    x0: int
    y0: int
    width: int
    height: int

    @cached_property
    def grid(self) -> tuple[Field, Field]:
        """x and y of every pixel in the window's own frame."""
        y, x = np.mgrid[: self.height, : self.width].astype(np.float32)
        return x, y

    def dice(self, name: str, ix: NDArray[np.int64], iy: NDArray[np.int64]) -> NDArray[np.float32]:
        """One number in [0, 1) for each lattice position, the same in every window (splitmix64)."""
        key = np.uint64(zlib.crc32(name.encode()) + (self.seed << 32) & 2**64 - 1)
        z = np.asarray(ix, np.int64).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = z + np.asarray(iy, np.int64).astype(np.uint64) * np.uint64(0xD1B54A32D192ED03) ^ key
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(40)).astype(np.float32) / 2**24

    def noise(self, name: str, scale: float, octaves: int = 1) -> Field:
        """Smooth noise about 0 with deviation 1, details of ``scale`` px (B-spline lattice)."""
        total = np.zeros((self.height, self.width), np.float32)
        for octave in range(octaves):
            step = scale / 2**octave
            rows, ys = _spline(self.y0, self.height, step)
            columns, xs = _spline(self.x0, self.width, step)
            knots = self.dice(f"{name}{octave}", xs[None, :], ys[:, None]) - 0.5
            total += (rows @ knots @ columns.T) * (7.2 / 2**octave)
        return total / np.float32(np.sqrt(sum(4.0**-octave for octave in range(octaves))))

    def points(self, name: str, spacing: float) -> _Points:
        """One point somewhere in each square of a lattice of ``spacing`` px."""
        ys = np.arange(self.y0 // spacing - 1, (self.y0 + self.height) // spacing + 2)
        xs = np.arange(self.x0 // spacing - 1, (self.x0 + self.width) // spacing + 2)
        iy, ix = (a.ravel().astype(np.int64) for a in np.meshgrid(ys, xs, indexing="ij"))
        dice = np.stack([self.dice(f"{name}{k}", ix, iy) for k in range(8)])
        x = (ix + 0.5 + (dice[6] - 0.5) * 0.9) * spacing - self.x0
        y = (iy + 0.5 + (dice[7] - 0.5) * 0.9) * spacing - self.y0
        inside = (x >= 0) & (y >= 0) & (x < self.width - 1) & (y < self.height - 1)
        return _Points(x, y, dice[:6]).where(inside)


@dataclass(frozen=True)
class _Points:
    """Cells: position ``x``, ``y`` (N,) in px of the window and six dice (6, N) in [0, 1) each."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    dice: NDArray[np.float32]

    @property
    def at(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of the pixel each is in."""
        return np.rint(self.y).astype(np.int64), np.rint(self.x).astype(np.int64)

    def where(self, keep: NDArray[np.bool_]) -> _Points:
        return _Points(self.x[keep], self.y[keep], self.dice[:, keep])


@lru_cache(maxsize=256)
def _spline(start: int, count: int, step: float) -> tuple[Field, NDArray[np.int64]]:
    """Cubic B-spline weights (count, knots) of pixels ``start...`` and the knots' lattice index."""
    at = (start + np.arange(count)) / step
    knots = np.arange(int(np.floor(at[0])) - 1, int(np.floor(at[-1])) + 3)
    t = np.abs(at[:, None] - knots[None, :])
    near, far = 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6
    return np.where(t < 1, near, far).astype(np.float32), knots.astype(np.int64)


def _step(values: Field, edge: float = 0.0, softness: float = 1.0) -> Field:
    """0 below ``edge``, 1 above, linear over ``softness`` about it."""
    return np.clip((values - edge) / softness + 0.5, 0, 1)


def _remap(image: Field, x: Field, y: Field) -> Field:
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _outside_distance(region: Mask) -> Field:
    """px from each pixel to the nearest pixel of ``region``."""
    return cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, 5)


def _cell_walls(window: _Window, name: str, spacing: float) -> Field:
    """px to the nearest wall of the Voronoi cells of ``points(name, spacing)``."""
    empty = np.ones((window.height, window.width), np.uint8)
    empty[window.points(name, spacing).at] = 0
    _, cell = cv2.distanceTransformWithLabels(
        empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    wall = np.zeros(cell.shape, bool)
    wall[:, 1:] |= cell[:, 1:] != cell[:, :-1]
    wall[1:] |= cell[1:] != cell[:-1]
    return _outside_distance(wall)


def _streaks(grain: Field, flow_x: Field, flow_y: Field, doublings: int) -> Field:
    """``grain`` smeared over ``2**doublings`` px along the flow: line integral convolution.

    Each round averages the picture with itself moved along the flow, then doubles the move.
    """
    y, x = np.mgrid[: grain.shape[0], : grain.shape[1]].astype(np.float32)
    to_x, to_y = x + flow_x, y + flow_y
    for _ in range(doublings):
        grain = (grain + _remap(grain, to_x, to_y)) / 2
        to_x, to_y = _remap(to_x, to_x, to_y), _remap(to_y, to_x, to_y)
    return grain / grain.std((0, 1))


def _nuclei(
    cells: _Points,
    half: tuple[Line, Line],
    angle: Line,
    amount: Line,
    chromatin: Field,
    rim: float,
) -> Field:
    """Haematoxylin of elliptical nuclei, (H, W); where they overlap the darker one is seen.

    ``half``: (N,) half length and half width, px. ``angle`` of the length, ``amount`` of stain:
    (N,). ``chromatin``: (H, W) noise that bends outlines and clumps the stain. ``rim``: share of
    the stain that sits at the membrane.
    """
    length, width = half
    canvas = np.zeros(chromatin.shape, np.float32)
    reach = int(np.ceil(length.max(initial=1) * 1.25))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1, 1)
    row, column = cells.at
    rows, columns = row + dy, column + dx
    u, v = (columns - cells.x).astype(np.float32), (rows - cells.y).astype(np.float32)
    cos, sin = np.cos(angle), np.sin(angle)
    r = np.hypot((u * cos + v * sin) / length, (v * cos - u * sin) / width)
    seen = (r < 1.4) & (rows >= 0) & (rows < canvas.shape[0])
    seen &= (columns >= 0) & (columns < canvas.shape[1])
    owner = np.nonzero(seen)[1]
    pixel = rows[seen] * canvas.shape[1] + columns[seen]
    clump = chromatin.ravel()[pixel]
    r = r[seen] + 0.1 * clump
    body = np.clip((1 - r) * width[owner] + 0.5, 0, 1) * amount[owner]
    stain = body * (1 - rim + rim * np.clip(r, 0, 1) ** 3 + 0.16 * clump)
    np.maximum.at(canvas.reshape(-1), pixel, stain)
    return canvas


@dataclass(frozen=True)
class _Style:
    """What differs from block to block and from laboratory to laboratory."""

    fraction: float  # of the patch that is tumour
    glandular: float  # 0 solid nests, 0.5 cribriform, 1 separate glands
    scale: float  # px, size of the nests
    nucleus: float  # px, half width of a tumour nucleus
    crowding: float  # px between tumour nuclei
    basophilia: float  # haematoxylin of the tumour's cytoplasm
    lymphocytes: float  # -2 none ... 1 half of the stroma
    looseness: float  # of the stroma
    fat: float  # -3 none ... 0
    angle: float  # of the fibres
    haematoxylin: NDArray[np.float64]  # (3,) optical density of one unit, RGB
    eosin: NDArray[np.float64]
    lamp: NDArray[np.float64]  # (3,) RGB of empty glass
    blur: float  # px
    grain: float  # grey levels

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Style:
        h_gain, e_gain = rng.uniform(0.9, 1.2), rng.uniform(0.75, 1.1)
        blue = rng.uniform(0, 1)
        nucleus = rng.uniform(3.1, 4.6)
        return cls(
            fraction=rng.uniform(0.28, 0.66),
            glandular=float(rng.choice([0.0, 0.5, 1.0])),
            scale=rng.uniform(110, 190),
            nucleus=nucleus,
            crowding=nucleus * rng.uniform(2.3, 3.0),
            basophilia=rng.uniform(0.12, 0.36),
            lymphocytes=rng.uniform(-2, 0.7),
            looseness=rng.uniform(-1.4, 0.6),
            fat=rng.uniform(-2.6, -0.4),
            angle=rng.uniform(0, np.pi),
            haematoxylin=h_gain * np.array([0.70, 0.96, 0.45 - 0.08 * blue]),
            eosin=e_gain * np.array([0.13 + 0.16 * blue, 0.80, 0.40 - 0.15 * blue]),
            lamp=rng.uniform(234, 246) + rng.uniform(-2.5, 2.5, 3),
            blur=rng.uniform(0.55, 0.85),
            grain=rng.uniform(1.5, 3.5),
        )


def _tumour(window: _Window, style: _Style) -> Mask:
    """Nests where smooth noise is high, parted into glands along walls of big Voronoi cells."""
    x, y = window.grid
    walls = _remap(
        _cell_walls(window, "gland", 0.62 * style.scale),
        x + 11 * window.noise("bend x", 36, 2),
        y + 11 * window.noise("bend y", 36, 2),
    )
    field = window.noise("nest", style.scale) + 0.25 * window.noise("lobe", style.scale / 3.5)
    field += 0.07 * window.noise("border", 11, 2)
    field += 2.6 * style.glandular * np.minimum(walls / 14, 1)
    inner = field[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return _tidy(field > np.quantile(inner, 1 - style.fraction))


def _tidy(mask: Mask, smallest: int = 900) -> Mask:
    """Without specks and pinholes of less than ``smallest`` px."""
    for value in (True, False):
        _, label, stats, _ = cv2.connectedComponentsWithStats(
            (mask == value).astype(np.uint8), connectivity=4
        )
        small = stats[:, cv2.CC_STAT_AREA] < smallest
        small[0] = False
        mask = np.where(small[label], not value, mask)
    return mask


def _flow(window: _Window, style: _Style, away: Field) -> tuple[Field, Field]:
    """Direction of the fibres, unit vectors x and y: straight far away, wrapped round the tumour.

    They run along the level lines of a potential, so they never end.
    """
    x, y = window.grid
    potential = math.cos(style.angle) * x + math.sin(style.angle) * y
    potential += 20 * window.noise("swirl", 130) + 3 * window.noise("wave", 30)
    potential += 40 * np.exp(-away / 30)
    potential = cv2.GaussianBlur(potential, (0, 0), 4)
    gx, gy = cv2.Sobel(potential, cv2.CV_32F, 1, 0), cv2.Sobel(potential, cv2.CV_32F, 0, 1)
    norm = np.hypot(gx, gy) + 1e-6
    return -gy / norm, gx / norm


def _stroma(window: _Window, style: _Style, mask: Mask) -> tuple[Field, Field]:
    """Haematoxylin and eosin of everything that is not tumour."""
    away = _outside_distance(mask)
    flow_x, flow_y = _flow(window, style, away)
    grain = np.dstack([window.noise(n, s) for n, s in (("fibre", 1.2), ("bundle", 4), ("gap", 3))])
    streaks = _streaks(grain, flow_x, flow_y, 5)
    fine, bundle, gap = np.moveaxis(streaks, 2, 0)
    fine = fine - cv2.GaussianBlur(fine, (0, 0), 2.5)

    loose = _step(window.noise("loose", 70, 2) + style.looseness, 0.4, 1.6)
    eosin = (0.78 + 0.22 * fine + 0.14 * bundle + 0.08 * window.noise("collagen", 60)) * (1 - 0.4 * loose)
    eosin += 0.05 * window.noise("grain", 1.3)
    haematoxylin = np.maximum(0.06 + 0.05 * bundle + 0.04 * fine, 0)

    fat = _step(window.noise("fat", 150) + style.fat + 0.1 * window.noise("ragged", 16), 0, 0.05) * (away > 6)
    droplet = cv2.GaussianBlur(_cell_walls(window, "adipocyte", 50), (0, 0), 2.5)
    tear = window.noise("tear", 80) + 0.12 * window.noise("ragged", 7, 2) + 0.35 * gap
    retraction = _step(window.noise("retraction", 28), 1.1, 0.3) * (away < 3.5)
    empty = np.maximum.reduce(
        [
            fat * _step(droplet, 2.6, 1.2),
            _step(tear, 3.0, 0.15),
            0.9 * retraction,
            0.85 * _step(gap + 0.4 * fine, 2.6 - 1.3 * loose, 0.7),
        ]
    )
    vessel = _step(window.noise("vessel", 26), 2.4, 0.2) * (away > 4) * (1 - empty)
    eosin = eosin * (1 - vessel) + vessel * (1.3 + 0.3 * window.noise("erythrocyte", 3.5))

    spindles = window.points("fibroblast", 12)
    row, column = spindles.at
    keep = (empty < 0.4) & (away > 2) & (fat < 0.5)
    spindles = spindles.where(keep[row, column] & (spindles.dice[0] < 0.5))
    _, a, b, c, d, _ = spindles.dice
    along = np.arctan2(flow_y, flow_x)[spindles.at] + 0.5 * (a - 0.5)
    chromatin = window.noise("chromatin", 2.6)
    nuclei = _nuclei(spindles, (4 + 5 * b, 1.2 + 1.2 * c), along, 0.8 + 0.6 * d, chromatin, 0.1)

    round_ = window.points("lymphocyte", 7.0)
    crowd = window.noise("infiltrate", 75) + 0.5 * window.noise("scatter", 22) + style.lymphocytes
    chance = (0.03 + 0.8 * _step(crowd, 0.8, 1.0)) * (empty < 0.6) * (away > 3) * (1 - 0.8 * fat)
    round_ = round_.where(round_.dice[0] < chance[round_.at])
    _, a, b, c, d, _ = round_.dice
    size = 2.4 + 0.9 * a
    lymphocytes = _nuclei(
        round_, (size * (1 + 0.3 * b), size), 7 * c, 1.25 + 0.6 * d, chromatin, 0.15
    )
    nuclei = np.maximum(nuclei, lymphocytes)
    inside = 1 - empty
    return inside * haematoxylin + nuclei, inside * eosin * (1 - 0.5 * np.minimum(nuclei, 1))


def _epithelium(window: _Window, style: _Style, mask: Mask) -> tuple[Field, Field]:
    """Haematoxylin and eosin of the tumour: cells in a wall, then lumen or necrosis."""
    depth = _outside_distance(~mask)
    solid = style.glandular == 0
    wall = 60.0 if solid else 19 + 1.2 * style.nucleus
    apex = depth - wall + 5 * window.noise("apex", 18) + 2 * window.noise("tuft", 6)
    if style.glandular == 0.5:
        apex = np.minimum(apex, 14 * (window.noise("sieve", 24) - 0.35))
    lumen = _step(apex, 0, 2)
    basal = np.minimum(depth, 30)
    basal = cv2.GaussianBlur(basal, (0, 0), 3)
    inward = np.arctan2(cv2.Sobel(basal, cv2.CV_32F, 0, 1), cv2.Sobel(basal, cv2.CV_32F, 1, 0))

    membrane = np.exp(-_cell_walls(window, "tumour cell", style.crowding) / 1.0)
    cytoplasm = 1 + 0.13 * window.noise("granule", 2) + 0.2 * window.noise("cell tint", 14)
    eosin = 0.48 * cytoplasm + 0.2 * membrane
    haematoxylin = style.basophilia * cytoplasm + 0.06 * membrane

    cells = window.points("tumour cell", style.crowding)
    at = cells.at
    cells = cells.where((depth[at] > 2.5) & (apex[at] < -5) & (cells.dice[0] < 0.92))
    at = cells.at
    _, a, b, c, d, e = cells.dice
    palisade = np.exp(-depth[at] / 14)
    angle = inward[at] + (a - 0.5) * (0.6 + 5 * (1 - palisade))
    size = style.nucleus * (0.7 + 0.6 * b**1.5)
    length = size * (1.08 + 0.35 * c + 0.35 * palisade)
    amount = 0.7 + 0.5 * d + 0.5 * (e > 0.93)
    nuclei = _nuclei(cells, (length, size), angle, amount, window.noise("chromatin", 2.2), 0.5)
    nucleoli = cells.where(e < 0.5)
    dot = np.full(nucleoli.x.shape, 1.1, np.float32)
    nuclei = np.maximum(nuclei, _nuclei(nucleoli, (dot, dot), dot, dot, 0 * depth, 0))

    content = (0.55 if solid else 0.04) * (1 + 0.5 * window.noise("content", 5, 2))
    debris = (0.8 if solid else 0.0) * _step(window.noise("debris", 2.4), 2.0, 0.6)
    inside = 1 - lumen
    return (
        inside * (haematoxylin + nuclei) + lumen * debris,
        inside * eosin * (1 - 0.45 * np.minimum(nuclei, 1)) + lumen * content,
    )


def _photograph(
    haematoxylin: Field, eosin: Field, style: _Style, window: _Window
) -> NDArray[np.float32]:
    """(H, W, 3) RGB light after the section: Beer-Lambert, then the lens."""
    thickness = (1 + 0.07 * window.noise("thickness", 140))[..., None]
    density = haematoxylin[..., None] * style.haematoxylin.astype(np.float32)
    density += eosin[..., None] * style.eosin.astype(np.float32)
    lamp = style.lamp.astype(np.float32) * (1 + 0.012 * window.noise("lamp", 300))[..., None]
    return cv2.GaussianBlur(lamp * np.exp(-thickness * density), (0, 0), style.blur)


def phantom_patch(seed: int, size_px: int = 400) -> Sample:
    """One patch."""
    rng = np.random.default_rng(seed)
    style = _Style.draw(rng)
    side = size_px + 2 * _MARGIN
    window = _Window(seed, -_MARGIN, -_MARGIN, side, side)
    mask = _tumour(window, style)
    parts = zip(_stroma(window, style, mask), _epithelium(window, style, mask), strict=True)
    haematoxylin, eosin = (np.where(mask, inside, outside) for outside, inside in parts)
    crop = slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN)
    light = _photograph(haematoxylin, eosin, style, window)[crop]
    light += style.grain * rng.standard_normal(light.shape, np.float32)
    image = np.clip(np.rint(light), 0, 255).astype(np.uint8)
    return Sample(f"phantom-{seed:05d}", image, mask[crop], f"phantom-{seed:05d}")
