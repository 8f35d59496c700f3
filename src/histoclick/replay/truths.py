"""What objects should have been: annotations of somebody else, one file for each slide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from histoclick.annotations import Canvas, read
from histoclick.slides import open_slide
from histoclick.types import HistoclickError


def areas(folder: Path, slide: Mapping[str, Any]) -> NDArray[Any] | None:
    """(n,) polygons of the file in ``folder`` that is named as the slide, px of level 0.

    ``None`` if there is none. Raises ``HistoclickError`` for several, and for unreadable ones.
    """
    path = Path(slide["path"])
    names = {each for text in (slide["name"], path.name) for each in (text, Path(text).stem)}
    names |= {name.removesuffix(".ome") for name in names}
    try:
        files = [file for file in sorted(folder.iterdir()) if file.is_file()]
    except OSError as error:
        raise HistoclickError(f"{folder}: {error.strerror}; give a folder (--truth)") from None
    found = [file for file in files if file.stem in names]
    if len(found) > 1:
        raise HistoclickError(
            f"{folder}: {found[0].name} and {found[1].name} may both be the truth of slide "
            f"{slide['name']}; keep one of them there"
        )
    if not found:
        return None
    document = read(found[0], _canvas(slide))
    shapes = [each.shape for each in document.annotations]
    kept = [shape for shape in shapes if isinstance(shape, Polygon | MultiPolygon)]
    polygons = np.empty(len(kept), object)
    polygons[:] = kept
    return polygons


def _canvas(slide: Mapping[str, Any]) -> Canvas:
    """Of the slide itself, which knows its bounds, or else as the store remembers it."""
    path = Path(slide["path"])
    try:
        with open_slide(path) as opened:
            if (opened.width, opened.height) == (slide["width"], slide["height"]):
                return Canvas.of(opened)
    except HistoclickError:  # it was moved: only QuPath files of some scanners need more
        pass
    return Canvas(slide["width"], slide["height"], slide["mpp"], name=path.name)
