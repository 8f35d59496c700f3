"""What is not tumour: collagen, fat, gaps, vessels, lymphoid tissue and their cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from histoclick.datasets.lattice import (
    Field,
    Window,
    remap,
    slope,
    soft_step,
)  # fmt: skip
from histoclick.datasets.nuclei import Nuclei
from histoclick.datasets.style import Style
from histoclick.types import Mask

Amount: TypeAlias = Field | np.float32  # (H, W), or one number for everywhere

_STREAK = 32  # um, length of fibres
_FAR = np.float32(1e6)  # um, farther than anything reaches
_SEEN = np.float32(90)  # um; farther from the capsule there is nothing of it
_NONE = np.float32(0)


@dataclass(frozen=True)
class Ground:
    """Which tissue lies where around the tumour: as it stands, fibrous tissue without end.

    ``inside``: um to the glass, negative on it. ``capsule``: um to the middle of the capsule of a
    lymph node, positive on the node's side. ``lymphoid``: 0 fibrous tissue ... 1 crowded
    lymphocytes. ``germinal``: 0 ... 1 centre of a follicle. ``fat``, ``loose``: added to what the
    style says.
    """

    inside: Amount = _FAR
    capsule: Amount = _FAR
    lymphoid: Amount = _NONE
    germinal: Amount = _NONE
    fat: Amount = _NONE
    loose: Amount = _NONE

    @property
    def fibrous(self) -> Field:
        """0 ... 1 in the capsule."""
        near = np.minimum(np.abs(self.capsule), _SEEN)
        return np.asarray(np.exp(-((near / 11) ** 2)) - np.exp(-((_SEEN / 11) ** 2)))


def stroma(window: Window, style: Style, tumour: Mask, ground: Ground) -> tuple[Field, Field]:
    """Haematoxylin and eosin outside the tumour."""
    away = window.distance_to(tumour)
    flow = _flow(window, style, away, ground)
    grain = [window.noise(n, s) for n, s in (("fibre", 1.2), ("bundle", 4), ("gap", 3))]
    streaks = _streaks(window, np.dstack(grain), flow)
    # Averaging along the fibres leaves these deviations, measured.
    fibre, bundle, gap = np.moveaxis(streaks / np.array([0.29, 0.51, 0.45], np.float32), 2, 0)
    fibre = fibre - window.smooth(fibre, 2.5)
    loose = soft_step(window.noise("loose", 70, 2), 0.4 - style.looseness - ground.loose, 1.6)
    loose = loose * (1 - ground.fibrous)
    plain = 1 - 0.55 * ground.lymphoid  # few fibres between lymphocytes
    eosin = 0.78 + 0.22 * fibre * plain + 0.14 * bundle * plain
    eosin += 0.08 * window.noise("collagen", 60)
    eosin = eosin * (1 - 0.4 * loose) + 0.05 * window.noise("grain", 1.3)
    eosin = eosin * (1 - 0.4 * ground.lymphoid) + 0.3 * ground.fibrous
    haematoxylin = np.maximum(0.06 + 0.05 * bundle + 0.04 * fibre, 0) + 0.1 * ground.lymphoid

    adipocytes = window.points("adipocyte", 46)
    owner, droplet = window.voronoi(adipocytes)
    fat = (window.noise("fat", 130) + ground.fat > -style.fat)[adipocytes.at][owner] & (away > 5)
    fat &= np.abs(ground.capsule) > 14
    droplet = window.smooth(np.minimum(droplet, np.clip(away - 4, 0, None)), 3)
    droplet = np.minimum(droplet, np.abs(ground.capsule) - 14)
    cleft = 3 * (window.noise("cleft", 34) + style.retraction) - away
    tear = window.noise("tear", 80) + 0.12 * window.noise("ragged", 7, 2) + 0.35 * gap
    slit = gap + 0.4 * fibre + 1.3 * loose - ground.lymphoid
    gaps = [fat * soft_step(droplet, 2.4), soft_step(cleft, 0, 1.5), soft_step(tear, 3, 0.15)]
    glass = soft_step(-ground.inside - 3 * window.noise("rim", 14, 3), 0, 2)
    empty = np.maximum.reduce([*gaps, glass, 0.85 * soft_step(slit, 2.6, 0.7)])
    vessel = soft_step(window.noise("vessel", 22), 2.3, 0.15) * (away > 4)
    eosin += vessel * (1.6 + 0.35 * window.noise("erythrocyte", 3) - eosin)

    room = (empty < 0.5) & (away > 3) & ~fat
    nuclei = np.maximum(
        _fibroblasts(window, np.arctan2(flow[1], flow[0]), room, ground),
        _lymphocytes(window, style, room, ground),
    )
    tissue = 1 - empty
    return tissue * haematoxylin + nuclei, tissue * eosin * (1 - 0.5 * np.minimum(nuclei, 1))


def _flow(window: Window, style: Style, away: Field, ground: Ground) -> tuple[Field, Field]:
    """Direction of the fibres, unit vectors: straight far away, wrapped around the tumour.

    They follow the level lines of a potential, so none begins or ends. ``away``: um to the tumour.
    """
    x, y = window.grid
    ramp = math.cos(style.angle) * x + math.sin(style.angle) * y
    bend = 20 * window.noise("swirl", 130) + 3.5 * window.noise("wave", 30, 2)
    wrap = 20 * np.clip(1 - away / 36, 0, 1) ** 2 + 60 * (np.tanh(ground.capsule / 30) - 1)
    across, along = slope(window.smooth(ramp * np.float32(window.um) + bend + wrap, 2.5))
    norm = np.hypot(across, along) + np.float32(1e-6)
    return -along / norm, across / norm


def _streaks(window: Window, grain: Field, flow: tuple[Field, Field]) -> Field:
    """``grain`` smeared along the flow: line integral convolution (Cabral and Leedom 1993).

    Each round averages the picture with itself moved along the flow, then doubles the move.
    """
    x: Field = window.grid[0] + flow[0]
    y: Field = window.grid[1] + flow[1]
    for _ in range(round(math.log2(_STREAK / window.um))):
        grain = (grain + remap(grain, x, y)) / 2
        x, y = remap(x, x, y), remap(y, x, y)
    return grain


def _fibroblasts(window: Window, direction: Field, room: Mask, ground: Ground) -> Field:
    """Haematoxylin of thin nuclei that lie along the fibres."""
    cells = window.points("fibroblast", 11)
    chance = (0.5 + 0.25 * window.noise("cellularity", 50)) * room * (1 - 0.8 * ground.lymphoid)
    cells = cells.where(cells.dice[0] < chance[cells.at])
    _, long, wide, dark, tilt, _ = cells.dice
    length, width = 3 + 6 * long * wide, 1.1 + 1.5 * dark**2
    angle = direction[cells.at] + 0.8 * (tilt - 0.5)
    nuclei = Nuclei(cells, length, width, angle, amount=0.8 + 0.9 * wide)
    return nuclei.stain(window, window.noise("chromatin", 2.6), rim=0.1)


def _lymphocytes(window: Window, style: Style, room: Mask, ground: Ground) -> Field:
    """Haematoxylin of small, round, dark nuclei in crowds."""
    cells = window.points("lymphocyte", 7)
    crowd = window.noise("infiltrate", 75) + 0.5 * window.noise("scatter", 22) + style.lymphocytes
    crowd = crowd * (1 - ground.lymphoid) + 3 * ground.lymphoid - 3 * ground.fibrous
    chance = 0.03 + 0.8 * soft_step(crowd, 0.8) + 0.12 * ground.lymphoid - 0.4 * ground.germinal
    germinal = np.broadcast_to(ground.germinal, room.shape)
    chance = chance * room
    cells = cells.where(cells.dice[0] < chance[cells.at])
    _, large, long, dark, turn, _ = cells.dice
    size = (2.4 + 0.9 * large) * (1 + 0.4 * germinal[cells.at])
    length, angle = size * (1 + 0.3 * long), 2 * math.pi * turn
    amount = (1.35 + 0.6 * dark) * (1 - 0.45 * germinal[cells.at])
    nuclei = Nuclei(cells, length, size, angle, amount)
    return nuclei.stain(window, window.noise("chromatin", 2.6), rim=0.15)
