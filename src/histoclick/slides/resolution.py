"""Microns per pixel, from what files say of them."""

from __future__ import annotations

import math

FINEST_MPP, COARSEST_MPP = 0.01, 20.0  # what slides have, generously
MICRONS = {"inch": 25_400.0, "cm": 10_000.0}


def from_dots(dots: float, unit: str) -> float | None:
    """Microns per px of ``dots`` px per ``unit`` ("inch", "cm"), if they mean anything."""
    if unit not in MICRONS or not (math.isfinite(dots) and dots > 0):
        return None
    return MICRONS[unit] / dots


def believable(
    mpp_x: float | None, mpp_y: float | None
) -> tuple[float | None, float | None, tuple[str, ...]]:
    """The same if a slide can have it, else (None, None, a note that says so).

    Most TIFFs and pictures carry the 72, 96 or 300 dots per inch of a screen or printer, and
    readers pass them on. One direction stands for both.
    """
    mpp_x = mpp_y if mpp_x is None else mpp_x
    mpp_y = mpp_x if mpp_y is None else mpp_y
    if mpp_x is None or mpp_y is None:
        return None, None, ()
    if all(FINEST_MPP <= mpp <= COARSEST_MPP for mpp in (mpp_x, mpp_y)):
        return mpp_x, mpp_y, ()
    dots = f" ({25_400 / mpp_x:.0f} dots per inch)" if mpp_x > COARSEST_MPP else ""
    note = f"the {mpp_x:.4g} um/px in the file{dots} cannot be those of a slide and are not used"
    return None, None, (note,)
