"""What is too large to be worked on at once."""

from __future__ import annotations

import numpy as np
import shapely

from histoclick.session import Book, Grid, Stroke
from histoclick.session.actions import Work
from histoclick.types import HistoclickError

MAX_STROKE_PX = 64_000_000  # working px that the surroundings of a stroke may have
MAX_STROKE_ROWS = 4_000_000  # working px, of all pieces of a stroke together
MAX_OBJECT_PX = 256_000_000  # working px around an outline from a file, when work on it begins


def check_extent(work: Work, book: Book) -> None:
    """Raise ``HistoclickError`` for what would take more pixels than can be painted in a moment."""
    item = book.objects.get(work.object or 0)
    mpp = item.mpp if item is not None and item.mpp is not None else work.mpp
    grid = Grid.of(book.slide, max(mpp, book.slide.mpp or 1.0))

    def pixels(x0: float, y0: float, x1: float, y1: float) -> float:
        across = min((x1 - x0) / grid.scale_x + 1, grid.width)
        return across * min((y1 - y0) / grid.scale_y + 1, grid.height)

    if isinstance(work, Stroke):
        x0, y0, x1, y1 = shapely.MultiPoint(work.points).bounds
        r = work.radius
        heights = np.abs(np.diff([y for _, y in work.points])) + 2 * r
        rows = np.minimum(heights / grid.scale_y + 1, grid.height).sum()
        if pixels(x0 - r, y0 - r, x1 + r, y1 + r) > MAX_STROKE_PX or rows > MAX_STROKE_ROWS:
            raise HistoclickError("the stroke covers too much at this um/px; zoom out")
    shape = item.imported if item is not None and item.grid is None else None
    if shape is not None and pixels(*shape.bounds) > MAX_OBJECT_PX:
        raise HistoclickError("the object is too large to be worked on at this um/px; zoom out")
