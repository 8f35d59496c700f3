"""Masks and polygons: one into the other, exact on pixel corners, with holes and parts.

Polygons are shapely's. A pixel's corners are whole numbers: the top left pixel covers the square
from (0, 0) to (1, 1). A pixel belongs to a polygon when its centre does.
"""

from histoclick.masks.filling import Painter, Spans, rasterise
from histoclick.masks.simplifying import simplify
from histoclick.masks.tracing import trace

__all__ = ["Painter", "Spans", "rasterise", "simplify", "trace"]
