"""What a slide is, and what about it will make trouble."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from histoclick.geometry import Rect
from histoclick.slides.slide import Slide

LARGE = 20_000_000  # px: beyond, a slide of one level is slow to look at
COARSE_STEP = 10.0  # between levels: beyond, reads in between take a hundred times the pixels
OBJECTIVE_SLACK = 1.7  # scanners put lenses behind the objective, but hardly a factor of two


def describe(slide: Slide) -> dict[str, Any]:
    """Facts for people and scripts: plain numbers, strings, lists and dicts.

    Sizes in px, ``mpp`` in um per px of level 0, ``bounds`` as [x, y, width, height] in px of
    level 0.
    """
    facts = slide.facts
    bounds = slide.bounds
    return {
        "format": facts.format,
        "width": slide.width,
        "height": slide.height,
        "levels": [
            {
                "width": level.width,
                "height": level.height,
                "downsample": round(level.downsample, 6),
            }
            for level in slide.levels
        ],
        "mpp_x": slide.mpp_x,
        "mpp_y": slide.mpp_y,
        "objective_power": slide.objective_power,
        "bounds": [bounds.x0, bounds.y0, bounds.width, bounds.height],
        "icc_profile": facts.icc is not None,
        "associated": list(facts.associated),
        "bytes": slide.path.stat().st_size,
        "fingerprint": slide.fingerprint,
    }


def problems(slide: Slide) -> list[str]:
    """A sentence for everything that will surprise somebody, worst first; empty if nothing will."""
    found = []
    if slide.mpp is None:
        found.append(slide.question)
    found += slide.notes
    found += _of_levels(slide)
    if slide.bounds != Rect(0, 0, slide.width, slide.height):
        x, y = slide.bounds.x0, slide.bounds.y0
        found.append(
            f"was scanned only in {slide.bounds.width:g}x{slide.bounds.height:g} px at ({x:g}, "
            f"{y:g}); QuPath counts from there, so its coordinates are smaller by ({x:g}, {y:g})"
        )
    if slide.mpp and slide.objective_power:
        ratio = slide.mpp * slide.objective_power / 10
        if not 1 / OBJECTIVE_SLACK < ratio < OBJECTIVE_SLACK:
            found.append(
                f"its {slide.mpp:.4g} um/px do not go with its objective power of "
                f"{slide.objective_power:g}, which suggests {10 / slide.objective_power:.3g}; find "
                "out which is right"
            )
    if slide.mpp_x and slide.mpp_y and abs(slide.mpp_x / slide.mpp_y - 1) > 0.01:
        found.append(
            f"its pixels are not square ({slide.mpp_x:.4g} x {slide.mpp_y:.4g} um); patches are "
            "stretched to square ones"
        )
    return found


def _of_levels(slide: Slide) -> list[str]:
    if slide.width * slide.height <= LARGE:
        return []
    if len(slide.levels) == 1:
        return [
            f"has {slide.width}x{slide.height} px and no smaller levels, so overviews read all of "
            "it; convert it to a pyramidal TIFF if that is too slow"
        ]
    last = slide.levels[-1]
    steps = [after.downsample / before.downsample for before, after in pairwise(slide.levels)]
    if last.width * last.height > LARGE or max(steps) > COARSE_STEP:
        return ["lacks levels in between, so some magnifications are slow to read"]
    return []
