"""A mask as large as a slide, of which only the parts with something in them are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon
from shapely.affinity import affine_transform

from histoclick.masks import trace
from histoclick.session.windows import Grid, Window
from histoclick.types import Mask

TILE = 256  # px
FULL = np.packbits(np.ones((TILE, TILE), bool)).tobytes()  # most tiles of a large object


@dataclass(frozen=True)
class SparseMask:
    """Pixels of one object, in working px; changing it makes another one that shares its tiles.

    ``tiles``: (column, row) -> (TILE, TILE) pixels as bits, row by row, those with a pixel only.
    Many objects are kept, each after several actions: as bytes they would be most of the memory.
    """

    tiles: Mapping[tuple[int, int], bytes] = field(default_factory=dict)

    @property
    def area(self) -> int:
        """Number of pixels."""
        return sum(int.from_bytes(tile).bit_count() for tile in self.tiles.values())

    @classmethod
    def of(cls, tiles: Mapping[tuple[int, int], Mask]) -> SparseMask:
        """From (TILE, TILE) bool by (column, row)."""
        return cls({place: _packed(tile) for place, tile in tiles.items() if tile.any()})

    def tile(self, place: tuple[int, int]) -> Mask:
        """(TILE, TILE) bool at (column, row), to be written to."""
        return _pixels(self.tiles.get(place))

    def replaced(self, window: Window, pixels: Mask) -> SparseMask:
        """The same with ``pixels``, (window.height, window.width) bool, in a window."""
        tiles = dict(self.tiles)
        for column, row, part in _cover(window):
            tile = _pixels(tiles.pop((column, row), None))
            inside = pixels[
                part.y - window.y : part.y1 - window.y, part.x - window.x : part.x1 - window.x
            ]
            tile[
                part.y - row * TILE : part.y1 - row * TILE,
                part.x - column * TILE : part.x1 - column * TILE,
            ] = inside
            if tile.any():
                tiles[column, row] = _packed(tile)
        return SparseMask(tiles)

    def crop(self, window: Window) -> Mask:
        """(window.height, window.width) bool."""
        pixels = np.zeros((window.height, window.width), bool)
        for column, row, part in _cover(window):
            if (tile := self.tiles.get((column, row))) is not None:
                pixels[
                    part.y - window.y : part.y1 - window.y, part.x - window.x : part.x1 - window.x
                ] = _pixels(tile)[
                    part.y - row * TILE : part.y1 - row * TILE,
                    part.x - column * TILE : part.x1 - column * TILE,
                ]
        return pixels

    def outline(self, grid: Grid) -> Polygon | MultiPolygon | None:
        """The exact outline, in px of level 0, with all its holes and parts; ``None`` if empty."""
        if not self.tiles:
            return None
        left, right = (pick(column for column, _ in self.tiles) for pick in (min, max))
        top = min(row for _, row in self.tiles)
        polygons = trace(self._bands(left, right), name="the object").get(1, [])
        matrix = (
            grid.scale_x, 0, 0, grid.scale_y,
            left * TILE * grid.scale_x, top * TILE * grid.scale_y,
        )  # fmt: skip
        shape = polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)
        placed: Polygon | MultiPolygon = affine_transform(shape, matrix)
        return placed if shapely.is_valid(placed) else shapely.make_valid(placed)

    def _bands(self, left: int, right: int) -> Iterator[Mask]:
        """The pixels from top to bottom, a row of tiles at a time."""
        rows = [row for _, row in self.tiles]
        for row in range(min(rows), max(rows) + 1):
            band = np.zeros((TILE, (right - left + 1) * TILE), bool)
            for column in range(left, right + 1):
                if (tile := self.tiles.get((column, row))) is not None:
                    band[:, (column - left) * TILE : (column - left + 1) * TILE] = _pixels(tile)
            yield band


def _packed(tile: Mask) -> bytes:
    return FULL if tile.all() else np.packbits(tile).tobytes()


def _pixels(tile: bytes | None) -> Mask:
    """(TILE, TILE) bool, to be written to."""
    if tile is None:
        return np.zeros((TILE, TILE), bool)
    return np.unpackbits(np.frombuffer(tile, np.uint8)).reshape(TILE, TILE).view(np.bool_)


def _cover(window: Window) -> Iterator[tuple[int, int, Window]]:
    """Column and row of every tile that a window meets, and what they have in common."""
    for row in range(window.y // TILE, (window.y1 - 1) // TILE + 1):
        for column in range(window.x // TILE, (window.x1 - 1) // TILE + 1):
            part = window.meet(Window(column * TILE, row * TILE, TILE, TILE))
            assert part is not None
            yield column, row, part
