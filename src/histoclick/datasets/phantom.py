"""Phantom histology: patches that look like tissue in H&E, drawn by code, with exact truth.

One pixel is one micrometre (x10). The truth is the tumour: nests and glands of epithelium *with*
their lumina and necrosis, as pathologists outline them. Stroma, septa between glands, fat, vessels,
clefts and tears are outside.
"""

from __future__ import annotations

import cv2
import numpy as np

from histoclick.datasets.lattice import Window
from histoclick.datasets.section import nests, photograph, section
from histoclick.datasets.style import Style
from histoclick.types import HistoclickError, Mask, Sample

_MARGIN = 40  # px drawn around a patch and cut off, so that nothing ends at its border
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
    style = Style.draw(rng)
    side = size_px + 2 * _MARGIN
    window = Window(seed, -_MARGIN, -_MARGIN, side, side)
    crop = slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN)
    field = nests(window, style)
    tumour = _tidy(field > np.quantile(field[crop], 1 - style.fraction))
    light = photograph(window, style, *section(window, style, tumour))[crop]
    light += style.grain * rng.standard_normal(light.shape, np.float32)
    image = np.clip(np.rint(light), 0, 255).astype(np.uint8)
    return Sample(f"phantom-{seed:05d}", image, tumour[crop].copy(), f"phantom-{seed:05d}")


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
