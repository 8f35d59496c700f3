"""Phantom histology: patches that look like tissue in H&E, drawn by code, with exact truth.

One pixel is one micrometre (x10). What a place looks like depends on the seed and on its position
in an endless tissue: noise, fibres and cells are hashed from whole-number positions and never drawn
in sequence, so a `Window` elsewhere shows the same tissue and a slide can be made tile by tile.
The picture is mixed as light is: amounts of haematoxylin and eosin add up to an optical density
(Beer-Lambert; Ruifrok and Johnston 2001 for the idea of stain vectors), then come lens and sensor.

The truth is the tumour: nests and glands of epithelium *with* their lumina and necrosis, as
pathologists outline them. Stroma, septa between glands, fat, vessels, clefts and tears are outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from histoclick.datasets.lattice import (
    Field,
    Line,
    Points,
    Window,
    distance_to,
    remap,
    slope,
    smooth,
    soft_step,
    voronoi,
)  # fmt: skip
from histoclick.types import HistoclickError, Mask, Sample

_MARGIN = 40  # px drawn around a patch and cut off, so that nothing ends at its border
_STREAK = 5  # fibres are 2**5 px long
_SMALLEST = 1500  # px; smaller pieces of tumour or of stroma are merged into the rest


def phantom_patch(seed: int, size_px: int = 400) -> Sample:
    """A patch of phantom tissue and its tumour, the same for the same seed.

    On another processor, rounding may change single values of the image by one grey level.

    ``seed``: 0 or more; every seed is a slide of its own. ``size_px``: side, 200 or more. Returns
    ``image`` (size, size, 3) uint8 RGB and ``mask`` (size, size) bool, 20 % to 80 % of it tumour as
    in the paper's patches. Raises ``HistoclickError`` for other arguments.
    """
    if seed < 0 or size_px < 200:
        raise HistoclickError(
            f"phantom_patch got seed {seed} and size_px {size_px}; "
            "give a seed of 0 or more and a side of 200 px or more"
        )
    rng = np.random.default_rng(seed)
    style = _Style.draw(rng)
    side = size_px + 2 * _MARGIN
    window = Window(seed, -_MARGIN, -_MARGIN, side, side)
    crop = slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN)
    nests = _nests(window, style)
    tumour = _tidy(nests > np.quantile(nests[crop], 1 - style.fraction))
    light = _photograph(window, style, *_section(window, style, tumour))[crop]
    light += style.grain * rng.standard_normal(light.shape, np.float32)
    image = np.clip(np.rint(light), 0, 255).astype(np.uint8)
    return Sample(f"phantom-{seed:05d}", image, tumour[crop].copy(), f"phantom-{seed:05d}")


@dataclass(frozen=True)
class _Style:
    """What differs from block to block and from laboratory to laboratory."""

    fraction: float  # of the patch that is tumour
    glandular: float  # 0 solid nests, 0.5 cribriform, 1 glands
    scale: float  # px, size of the nests
    nucleus: float  # px, half width of a tumour nucleus
    crowding: float  # px between tumour nuclei
    basophilia: float  # haematoxylin of the tumour's cytoplasm
    lymphocytes: float  # -2 few ... 1 half of the stroma
    looseness: float  # -1.4 dense stroma ... 0.6 oedema
    fat: float  # -2.6 none ... -0.4 plenty
    retraction: float  # -3 tumour adheres to the stroma ... 0 torn off by shrinkage
    angle: float  # rad, of the fibres
    haematoxylin: Line  # (3,) RGB optical density (base e) of one unit
    eosin: Line
    lamp: Line  # (3,) RGB of empty glass
    blur: float  # px, standard deviation
    sharpening: float  # by the scanner
    grain: float  # grey levels, standard deviation

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Style:
        """A random one; ``purple`` is a laboratory's eosin, 0 orange ... 1 violet."""
        nucleus, purple = rng.uniform(3.1, 4.6), rng.uniform(0, 1)
        haematoxylin = rng.uniform(0.9, 1.2) * np.array([0.70, 0.96, 0.43 - 0.06 * purple])
        eosin = rng.uniform(0.75, 1.1) * np.array([0.13 + 0.16 * purple, 0.8, 0.4 - 0.15 * purple])
        return cls(
            fraction=rng.uniform(0.28, 0.68),
            glandular=float(rng.choice([0.0, 0.5, 1.0])),
            scale=rng.uniform(110, 190),
            nucleus=nucleus,
            crowding=nucleus * rng.uniform(2.3, 3.0),
            basophilia=rng.uniform(0.12, 0.36),
            lymphocytes=rng.uniform(-2, 1),
            looseness=rng.uniform(-1.4, 0.6),
            fat=rng.uniform(-2.6, -0.4),
            retraction=rng.uniform(-3, -0.3),
            angle=rng.uniform(0, math.pi),
            haematoxylin=haematoxylin.astype(np.float32),
            eosin=eosin.astype(np.float32),
            lamp=(rng.uniform(234, 246) + rng.uniform(-2.5, 2.5, 3)).astype(np.float32),
            blur=rng.uniform(0.45, 0.75),
            sharpening=rng.uniform(0.2, 0.8),
            grain=rng.uniform(1.5, 3.5),
        )


@dataclass(frozen=True)
class _Nuclei:
    """Elliptical nuclei; all but ``cells`` are (N,)."""

    cells: Points
    length: Line  # px, half axis
    width: Line  # px, half axis
    angle: Line  # rad, of the length
    amount: Line  # of stain

    def stain(self, chromatin: Field, rim: float) -> Field:
        """Haematoxylin of every pixel; where nuclei overlap the darker one is seen.

        ``chromatin``: (H, W) noise that bends outlines and clumps the stain. ``rim``: share of the
        stain that sits at the membrane.
        """
        height, width = chromatin.shape
        reach = math.ceil(self.length.max(initial=1) * 1.25)
        dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1, 1)
        row, column = self.cells.at
        rows, columns = row + dy, column + dx  # (pixels of a stamp, N)
        u = (columns - self.cells.x).astype(np.float32)
        v = (rows - self.cells.y).astype(np.float32)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        radius = np.hypot((u * cos + v * sin) / self.length, (v * cos - u * sin) / self.width)
        seen = (radius < 1.4) & (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        cell = np.nonzero(seen)[1]
        pixel = rows[seen] * width + columns[seen]
        clump = chromatin.ravel()[pixel]
        r = radius[seen] + 0.1 * clump
        body = np.clip((1 - r) * self.width[cell] + 0.5, 0, 1) * self.amount[cell]
        canvas = np.zeros(height * width, np.float32)
        np.maximum.at(canvas, pixel, body * (1 - rim + rim * np.clip(r, 0, 1) ** 3 + 0.16 * clump))
        return canvas.reshape(height, width)


def _nests(window: Window, style: _Style) -> Field:
    """High in tumour: smooth noise, lowered along the walls of gland-sized Voronoi cells."""
    _, walls = voronoi(window.points("gland", 0.9 * style.scale), (window.height, window.width))
    nests = window.noise("nest", style.scale) + 0.25 * window.noise("lobe", style.scale / 3.5)
    nests += 1.8 * style.glandular * np.minimum(walls / 13, 1)
    x, y = window.grid  # bent, to hide straight walls and the lattice of the noise
    bend_x, bend_y = window.noise("bend x", 36, 2), window.noise("bend y", 36, 2)
    return remap(nests, x + 11 * bend_x, y + 11 * bend_y) + 0.07 * window.noise("border", 11, 2)


def _tidy(tumour: Mask) -> Mask:
    """Without specks and pinholes smaller than ``_SMALLEST``."""
    for value in (True, False):
        _, label, stats, _ = cv2.connectedComponentsWithStats(
            (tumour == value).astype(np.uint8), connectivity=4
        )
        small = stats[:, cv2.CC_STAT_AREA] < _SMALLEST
        small[0] = False  # label 0 is everything else
        tumour = np.where(small[label], not value, tumour)
    return tumour


def _section(window: Window, style: _Style, tumour: Mask) -> tuple[Field, Field]:
    """Haematoxylin and eosin of every pixel, given where the tumour is."""
    parts = zip(_epithelium(window, style, tumour), _stroma(window, style, tumour), strict=True)
    haematoxylin, eosin = (np.where(tumour, inside, outside) for inside, outside in parts)
    return haematoxylin, eosin


def _flow(window: Window, style: _Style, away: Field) -> tuple[Field, Field]:
    """Direction of the fibres, unit vectors: straight far away, wrapped around the tumour.

    They follow the level lines of a potential, so none begins or ends. ``away``: px to the tumour.
    """
    x, y = window.grid
    ramp = math.cos(style.angle) * x + math.sin(style.angle) * y
    bend = 20 * window.noise("swirl", 130) + 3.5 * window.noise("wave", 30, 2)
    wrap = 20 * np.clip(1 - away / 36, 0, 1) ** 2
    across, along = slope(smooth(ramp + bend + wrap, 2.5))
    norm = np.hypot(across, along) + np.float32(1e-6)
    return -along / norm, across / norm


def _streaks(grain: Field, flow: tuple[Field, Field], grid: tuple[Field, Field]) -> Field:
    """``grain`` smeared along the flow: line integral convolution (Cabral and Leedom 1993).

    Each round averages the picture with itself moved along the flow, then doubles the move.
    """
    x: Field = grid[0] + flow[0]
    y: Field = grid[1] + flow[1]
    for _ in range(_STREAK):
        grain = (grain + remap(grain, x, y)) / 2
        x, y = remap(x, x, y), remap(y, x, y)
    return grain


def _stroma(window: Window, style: _Style, tumour: Mask) -> tuple[Field, Field]:
    """Haematoxylin and eosin outside the tumour: collagen, fat, gaps, vessels and cells."""
    away = distance_to(tumour)
    flow = _flow(window, style, away)
    grain = [window.noise(n, s) for n, s in (("fibre", 1.2), ("bundle", 4), ("gap", 3))]
    streaks = _streaks(np.dstack(grain), flow, window.grid)
    # Averaging along the fibres leaves these deviations, measured.
    fibre, bundle, gap = np.moveaxis(streaks / np.array([0.29, 0.51, 0.45], np.float32), 2, 0)
    fibre = fibre - smooth(fibre, 2.5)
    loose = soft_step(window.noise("loose", 70, 2), 0.4 - style.looseness, 1.6)
    eosin = 0.78 + 0.22 * fibre + 0.14 * bundle + 0.08 * window.noise("collagen", 60)
    eosin = eosin * (1 - 0.4 * loose) + 0.05 * window.noise("grain", 1.3)
    haematoxylin = np.maximum(0.06 + 0.05 * bundle + 0.04 * fibre, 0)

    adipocytes = window.points("adipocyte", 46)
    owner, droplet = voronoi(adipocytes, tumour.shape)
    fat = (window.noise("fat", 130) > -style.fat)[adipocytes.at][owner] & (away > 5)
    droplet = smooth(np.minimum(droplet, np.clip(away - 4, 0, None)), 3)
    cleft = 3 * (window.noise("cleft", 34) + style.retraction) - away
    tear = window.noise("tear", 80) + 0.12 * window.noise("ragged", 7, 2) + 0.35 * gap
    slit = gap + 0.4 * fibre + 1.3 * loose
    gaps = [fat * soft_step(droplet, 2.4), soft_step(cleft, 0, 1.5), soft_step(tear, 3, 0.15)]
    empty = np.maximum.reduce([*gaps, 0.85 * soft_step(slit, 2.6, 0.7)])
    vessel = soft_step(window.noise("vessel", 22), 2.3, 0.15) * (away > 4)
    eosin += vessel * (1.6 + 0.35 * window.noise("erythrocyte", 3) - eosin)

    room = (empty < 0.5) & (away > 3) & ~fat
    nuclei = np.maximum(
        _fibroblasts(window, np.arctan2(flow[1], flow[0]), room),
        _lymphocytes(window, style, room),
    )
    tissue = 1 - empty
    return tissue * haematoxylin + nuclei, tissue * eosin * (1 - 0.5 * np.minimum(nuclei, 1))


def _fibroblasts(window: Window, direction: Field, room: Mask) -> Field:
    """Haematoxylin of thin nuclei that lie along the fibres."""
    cells = window.points("fibroblast", 11)
    chance = (0.5 + 0.25 * window.noise("cellularity", 50)) * room
    cells = cells.where(cells.dice[0] < chance[cells.at])
    _, long, wide, dark, tilt, _ = cells.dice
    length, width = 3 + 6 * long * wide, 1.1 + 1.5 * dark**2
    angle = direction[cells.at] + 0.8 * (tilt - 0.5)
    nuclei = _Nuclei(cells, length, width, angle, amount=0.8 + 0.9 * wide)
    return nuclei.stain(window.noise("chromatin", 2.6), rim=0.1)


def _lymphocytes(window: Window, style: _Style, room: Mask) -> Field:
    """Haematoxylin of small, round, dark nuclei in crowds."""
    cells = window.points("lymphocyte", 7)
    crowd = window.noise("infiltrate", 75) + 0.5 * window.noise("scatter", 22) + style.lymphocytes
    chance = (0.03 + 0.8 * soft_step(crowd, 0.8)) * room
    cells = cells.where(cells.dice[0] < chance[cells.at])
    _, large, long, dark, turn, _ = cells.dice
    size = 2.4 + 0.9 * large
    length, angle = size * (1 + 0.3 * long), 2 * math.pi * turn
    nuclei = _Nuclei(cells, length, size, angle, amount=1.35 + 0.6 * dark)
    return nuclei.stain(window.noise("chromatin", 2.6), rim=0.15)


def _epithelium(window: Window, style: _Style, tumour: Mask) -> tuple[Field, Field]:
    """Haematoxylin and eosin of the tumour: crowded cells, then lumen or, in solid nests, necrosis.

    ``apex`` is the height above the wall of epithelium, px: negative in it, positive in the lumen.
    """
    depth = distance_to(~tumour)
    solid = style.glandular == 0
    apex = depth - 19 - 1.2 * style.nucleus
    apex += 5 * window.noise("apex", 18) + 2 * window.noise("tuft", 6)
    sieve = window.noise("sieve", 80 if solid else 30) + 1.8 * style.glandular - 1.35
    apex = np.minimum(apex, 14 * sieve)
    lumen = soft_step(apex, 0, 2)

    cells = window.points("tumour cell", style.crowding)
    membrane = np.exp(-voronoi(cells, tumour.shape)[1])
    cytoplasm = 1 + 0.13 * window.noise("granule", 2) + 0.2 * window.noise("cell tint", 14)
    eosin = 0.48 * cytoplasm + 0.2 * membrane + 0.2 * np.exp(-np.abs(apex + 1.5) / 1.5)
    haematoxylin = style.basophilia * cytoplasm + 0.06 * membrane

    cells = cells.where((depth[cells.at] > 2.5) & (apex[cells.at] < -5) & (cells.dice[0] < 0.92))
    _, tilt, large, long, dark, special = cells.dice
    basal = np.exp(-depth[cells.at] / 14)  # nuclei at the base stand upright
    inward_x, inward_y = slope(smooth(np.minimum(depth, 30), 3))
    angle = np.arctan2(inward_y, inward_x)[cells.at] + (tilt - 0.5) * (5.6 - 5 * basal)
    size = style.nucleus * (0.7 + 0.6 * large**1.5)
    length = size * (1.08 + 0.35 * long + 0.35 * basal)
    amount = 0.85 + 0.6 * dark + 0.5 * (special > 0.93)
    nuclei = _Nuclei(cells, length, size, angle, amount).stain(window.noise("clump", 1.7), rim=0.45)

    content = (0.72 if solid else 0.04) * (1 + 0.3 * window.noise("content", 4, 2))
    debris = (0.9 if solid else 0.05) * soft_step(window.noise("debris", 3, 2), 1.6, 0.6)
    wall = 1 - lumen
    return (
        wall * (haematoxylin + nuclei) + lumen * debris,
        wall * eosin * (1 - 0.65 * np.minimum(nuclei, 1)) + lumen * content,
    )


def _photograph(window: Window, style: _Style, haematoxylin: Field, eosin: Field) -> Field:
    """(H, W, 3) float32 RGB, grey levels: lamp, section (Beer-Lambert), lens, scanner."""
    thickness = 1 + 0.07 * window.noise("thickness", 140)
    stains = haematoxylin[..., None] * style.haematoxylin + eosin[..., None] * style.eosin
    lamp = (1 + 0.012 * window.noise("lamp", 300))[..., None] * style.lamp
    light = smooth(lamp * np.exp(-thickness[..., None] * stains), style.blur)
    return light + style.sharpening * (light - smooth(light, 1.5))
