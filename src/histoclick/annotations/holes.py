"""Holes in formats that draw them as outlines of their own, beside the one they are cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon, STRtree

from histoclick.annotations.document import Shape
from histoclick.annotations.shapes import Gathering, polygons


@dataclass
class Outline:
    """An object on its way to a shape.

    ``shape``: without its holes. ``cuts``: holes inside it, ``bites``: regions that cross its
    border.
    """

    shape: Shape
    cuts: list[Polygon] = field(default_factory=list)
    bites: list[Polygon | MultiPolygon] = field(default_factory=list)


@dataclass(frozen=True)
class Hole:
    """``owner``: the outline it was drawn for, where the file says so."""

    shape: Polygon | MultiPolygon
    owner: Outline | None = None


def cut(outlines: Sequence[Outline], holes: Sequence[Hole], gathering: Gathering) -> None:
    """Give each hole to its owner or else to all outlines that share area with it."""
    regions = [o for o in outlines if isinstance(o.shape, Polygon | MultiPolygon)]
    shapes = np.array([outline.shape for outline in regions], object)
    shapely.prepare(shapes)  # thousands of holes may lie in one outline
    tree = STRtree(shapes)
    for hole in holes:
        if hole.owner is not None and hole.owner.shape.covers(hole.shape):
            found = [hole.owner]
        else:
            near = [regions[index] for index in np.sort(tree.query(hole.shape))]
            found = [outline for outline in near if _share_area(outline.shape, hole.shape)]
        if not found:
            gathering.tell("left out {} that lie in no object of their class", "", "hole")
        for outline in found:
            if isinstance(hole.shape, Polygon) and outline.shape.covers(hole.shape):
                outline.cuts.append(hole.shape)
            else:
                outline.bites.append(hole.shape)


def _share_area(shape: Shape, other: Shape) -> bool:
    if shape.covers(other):
        return True
    return bool(shape.intersects(other)) and not shape.touches(other)


def shaped(outline: Outline, gathering: Gathering, where: str) -> Shape | None:
    """The shape with its holes; ``None`` if nothing is left.

    All vertices stay as they are, unless holes cross the border or each other.
    """
    shape = outline.shape
    if not (outline.cuts or outline.bites):
        return shape
    if not isinstance(shape, Polygon):
        outline.bites += outline.cuts
    elif outline.cuts:
        rings = [shapely.get_coordinates(hole.exterior) for hole in outline.cuts]
        whole = Polygon(shape.exterior, rings)
        if whole.is_valid:
            shape = whole
        else:  # holes that cross or fill each other
            shape = shape.difference(shapely.union_all(outline.cuts))
            gathering.tell("joined holes that meet, in {}", where)
    if outline.bites:
        shape = shape.difference(shapely.union_all(outline.bites))
        if isinstance(outline.shape, Polygon):
            gathering.tell("cut holes that cross the border out of {}", where)
    if not polygons(shape):
        gathering.skip("no area besides its holes", where)
        return None
    return gathering.mended(shape, where)
