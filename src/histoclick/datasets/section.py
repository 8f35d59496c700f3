"""A section of tissue in H&E, drawn by code.

What a place looks like depends on the seed and on its position in an endless tissue: noise, fibres
and cells are hashed from whole-number positions and never drawn in sequence, so a `Window`
elsewhere shows the same tissue and a slide can be made tile by tile. The picture is mixed as light
is: amounts of haematoxylin and eosin add up to an optical density (Beer-Lambert; Ruifrok and
Johnston 2001 for the idea of stain vectors), then come lens and sensor. Lengths are um.
"""

from __future__ import annotations

import numpy as np

from histoclick.datasets.lattice import Field, Window, remap, slope, smooth, soft_step
from histoclick.datasets.nuclei import Nuclei
from histoclick.datasets.stroma import Ground, stroma
from histoclick.datasets.style import Style
from histoclick.types import Mask

_FINE = 0.8  # um per px; finer pictures show more of the stain's texture
ENDLESS = Ground()  # fibrous tissue everywhere


def nests(window: Window, style: Style) -> Field:
    """High in tumour: smooth noise, lowered along the walls of gland-sized Voronoi cells."""
    _, walls = window.voronoi(window.points("gland", 0.9 * style.scale))
    nests = window.noise("nest", style.scale) + 0.25 * window.noise("lobe", style.scale / 3.5)
    nests += 1.8 * style.glandular * np.minimum(walls / 13, 1)
    x, y = window.grid  # bent, to hide straight walls and the lattice of the noise
    reach = np.float32(11 / window.um)
    bend_x, bend_y = window.noise("bend x", 36, 2), window.noise("bend y", 36, 2)
    bent = remap(nests, x + reach * bend_x, y + reach * bend_y)
    return bent + 0.07 * window.noise("border", 11, 2)


def section(
    window: Window, style: Style, tumour: Mask, ground: Ground = ENDLESS
) -> tuple[Field, Field]:
    """Haematoxylin and eosin of every pixel, given where the tumour is."""
    haematoxylin, eosin = stroma(window, style, tumour, ground)
    if tumour.any():
        inside = _epithelium(window, style, tumour)
        haematoxylin = np.where(tumour, inside[0], haematoxylin)
        eosin = np.where(tumour, inside[1], eosin)
    if window.um < _FINE:
        haematoxylin = haematoxylin * (1 + 0.13 * window.noise("fine chromatin", 0.9, 2))
        eosin = eosin * (1 + 0.05 * window.noise("fine fibre", 1.1))
    return haematoxylin, eosin


def _epithelium(window: Window, style: Style, tumour: Mask) -> tuple[Field, Field]:
    """Haematoxylin and eosin of the tumour: crowded cells, then lumen or, in solid nests, necrosis.

    ``apex`` is the height above the wall of epithelium, um: negative in it, positive in the lumen.
    """
    depth = window.distance_to(~tumour)
    solid = style.glandular == 0
    apex = depth - 19 - 1.2 * style.nucleus
    apex += 5 * window.noise("apex", 18) + 2 * window.noise("tuft", 6)
    sieve = window.noise("sieve", 80 if solid else 30) + 1.8 * style.glandular - 1.35
    apex = np.minimum(apex, 14 * sieve)
    lumen = soft_step(apex, 0, 2)

    cells = window.points("tumour cell", style.crowding)
    membrane = np.exp(-window.voronoi(cells)[1])
    cytoplasm = 1 + 0.13 * window.noise("granule", 2) + 0.2 * window.noise("cell tint", 14)
    eosin = 0.48 * cytoplasm + 0.2 * membrane + 0.2 * np.exp(-np.abs(apex + 1.5) / 1.5)
    haematoxylin = style.basophilia * cytoplasm + 0.06 * membrane

    cells = cells.where((depth[cells.at] > 2.5) & (apex[cells.at] < -5) & (cells.dice[0] < 0.92))
    _, tilt, large, long, dark, special = cells.dice
    basal = np.exp(-depth[cells.at] / 14)  # nuclei at the base stand upright
    inward_x, inward_y = slope(window.smooth(np.minimum(depth, 30), 3))
    angle = np.arctan2(inward_y, inward_x)[cells.at] + (tilt - 0.5) * (5.6 - 5 * basal)
    size = style.nucleus * (0.7 + 0.6 * large**1.5)
    length = size * (1.08 + 0.35 * long + 0.35 * basal)
    amount = 0.85 + 0.6 * dark + 0.5 * (special > 0.93)
    shapes = Nuclei(cells, length, size, angle, amount)
    nuclei = shapes.stain(window, window.noise("clump", 1.7), rim=0.45)

    content = (0.72 if solid else 0.04) * (1 + 0.3 * window.noise("content", 4, 2))
    debris = (0.9 if solid else 0.05) * soft_step(window.noise("debris", 3, 2), 1.6, 0.6)
    wall = 1 - lumen
    return (
        wall * (haematoxylin + nuclei) + lumen * debris,
        wall * eosin * (1 - 0.65 * np.minimum(nuclei, 1)) + lumen * content,
    )


def photograph(window: Window, style: Style, haematoxylin: Field, eosin: Field) -> Field:
    """(H, W, 3) float32 RGB, grey levels: lamp, section (Beer-Lambert), lens, scanner."""
    thickness = 1 + 0.07 * window.noise("thickness", 140)
    stains = haematoxylin[..., None] * style.haematoxylin + eosin[..., None] * style.eosin
    lamp = (1 + 0.012 * window.noise("lamp", 300))[..., None] * style.lamp
    light = smooth(lamp * np.exp(-thickness[..., None] * stains), style.blur)
    return light + style.sharpening * (light - smooth(light, 1.5))
