from __future__ import annotations

import io
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openslide import open_slide as openslide_open
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image

from histoclick.geometry import Rect
from histoclick.server import tiles
from histoclick.slides import open_slide
from served import Server, made_slide


@given(st.integers(1, 300_000), st.integers(1, 300_000), st.data())
def test_tiles_lie_where_openslides_do(width: int, height: int, data: st.DataObject) -> None:
    class Sized:
        dimensions = (width, height)
        level_count = 1
        level_dimensions = (dimensions,)
        level_downsamples = (1.0,)
        properties = MappingProxyType({})

        def get_best_level_for_downsample(self, _: float) -> int:
            return 0

    theirs = DeepZoomGenerator(Sized(), tile_size=tiles.TILE, overlap=tiles.OVERLAP)
    assert tiles.max_level(width, height) == theirs.level_count - 1
    level = data.draw(st.integers(0, theirs.level_count - 1))
    assert tiles.level_size(width, height, level) == theirs.level_dimensions[level]
    columns, rows = theirs.level_tiles[level]
    column = data.draw(st.integers(0, columns - 1))
    row = data.draw(st.integers(0, rows - 1))
    left, right = tiles._span(column, theirs.level_dimensions[level][0])
    top, bottom = tiles._span(row, theirs.level_dimensions[level][1])
    assert (right - left, bottom - top) == theirs.get_tile_dimensions(level, (column, row))
    for beyond in (columns, -1):
        with pytest.raises(IndexError):
            tiles._span(beyond, theirs.level_dimensions[level][0])


@pytest.mark.parametrize("level", [11, 10, 9, 8, 4, 0])
def test_tiles_are_what_the_slide_shows(slides: Path, level: int) -> None:
    with open_slide(slides / "a.tif") as slide:
        scale = 2 ** (11 - level)
        width, height = tiles.level_size(1300, 900, level)
        whole = slide.read(Rect(0, 0, width * scale, height * scale), width, height)
        found = np.zeros_like(whole)
        for column in range(-(-width // 510)):
            for row in range(-(-height // 510)):
                left, top = max(0, column * 510 - 1), max(0, row * 510 - 1)
                tile = tiles.pixels(slide, level, column, row)
                found[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        assert np.array_equal(found, whole)


def test_tiles_look_like_openslides(shared: Path) -> None:
    path = shared / "data/slides/CMU-1-Small-Region.svs"
    theirs = DeepZoomGenerator(openslide_open(path), tile_size=tiles.TILE, overlap=tiles.OVERLAP)
    with open_slide(path) as slide:
        for level, column, row in ((12, 2, 3), (11, 1, 1), (10, 0, 1), (8, 0, 0)):
            ours = tiles.pixels(slide, level, column, row).astype(int)
            tile = np.asarray(theirs.get_tile(level, (column, row))).astype(int)
            assert ours.shape == tile.shape
            assert np.abs(ours - tile).mean() < (1e-9 if level == 12 else 5)


def test_jpegs_are_the_pixels() -> None:
    ramp = np.arange(0, 200, dtype=np.uint8)
    picture = np.stack([np.tile(ramp, (64, 1)), np.full((64, 200), 90), np.full((64, 200), 30)], -1)
    seen = np.asarray(Image.open(io.BytesIO(tiles.jpeg(picture.astype(np.uint8))))).astype(int)
    assert np.abs(seen - picture).max() < 8


def test_tiles_are_kept_by_browsers(standing: Server) -> None:
    id_ = standing.id_of("a.tif")
    reply = standing.client.get(f"/api/slides/{id_}/slide_files/10/1_0.jpeg")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "image/jpeg"
    with standing.library.open(id_) as slide:
        assert reply.content == tiles.jpeg(tiles.pixels(slide, 10, 1, 0))
    known = {"If-None-Match": reply.headers["etag"]}
    again = standing.client.get(f"/api/slides/{id_}/slide_files/10/1_0.jpeg", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    other = standing.client.get(f"/api/slides/{id_}/slide_files/10/0_0.jpeg", headers=known)
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("tile", "status"),
    [
        ("11/2_1", 200), ("11/3_0", 404), ("11/0_2", 404), ("12/0_0", 404), ("99/0_0", 404),
        ("-1/0_0", 404), ("0/0_0", 200), ("1/0_1", 404), ("11/0_0_0", 404), ("11/a_0", 404),
        ("11/99999999999999999999_0", 404), ("11/" + "9" * 4000 + "_0", 404),
        ("11/" + "9" * 9000 + "_0", 404),
    ],
)  # fmt: skip
def test_tiles_that_do_not_exist(standing: Server, tile: str, status: int) -> None:
    reply = standing.client.get(f"/api/slides/{standing.id_of('a.tif')}/slide_files/{tile}.jpeg")
    assert reply.status_code in (status, 422) if status == 404 else reply.status_code == status


def test_the_descriptor_and_the_thumbnail(standing: Server) -> None:
    id_ = standing.id_of("a.tif")
    text = standing.client.get(f"/api/slides/{id_}/slide.dzi").text
    for part in ('Width="1300"', 'Height="900"', 'TileSize="510"', 'Overlap="1"'):
        assert part in text
    reply = standing.client.get(f"/api/slides/{id_}/thumbnail.jpeg")
    assert Image.open(io.BytesIO(reply.content)).size == (512, 354)


def test_the_cache_is_bounded_in_bytes() -> None:
    cache = tiles.TileCache(max_bytes=100)
    for number in range(30):
        cache.put(str(number), bytes(30))
        cache.put("0", bytes(31))
        assert cache.nbytes <= 100
    assert cache.get("0") == bytes(31)
    assert cache.get("29") is not None
    assert cache.get("26") is None


def test_a_picture_without_levels_is_shown_as_well(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (4500, 3500), (10, 200, 30)).save(path, compress_level=1)
    with open_slide(path) as slide:
        small = tiles.pixels(slide, 7, 0, 0)
    assert small.shape == (55, 71, 3)
    assert (small[:54, :70] == (10, 200, 30)).all()


def test_nothing_but_slides_is_served(standing: Server, slides: Path) -> None:
    made_slide(slides.parent / "secret" / "s.tif", 64, 64)
    for id_ in ("..", "../secret", "%2e%2e%2fsecret", "a.tif", "..%5c", "x" * 16, "0" * 16):
        for rest in ("", "/slide.dzi", "/thumbnail.jpeg", "/slide_files/0/0_0.jpeg"):
            reply = standing.client.get(f"/api/slides/{id_}{rest}")
            assert reply.status_code in (404, 422)
    for path in (
        "/assets/../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/pages.py",
        "//etc/passwd",
    ):
        assert standing.client.get(path).status_code == 404


def test_one_tile_has_one_address(standing: Server) -> None:
    path = f"/api/slides/{standing.id_of('a.tif')}/slide_files"
    tags = {
        standing.client.get(f"{path}/{tile}.jpeg").headers["ETag"]
        for tile in ("9/0_0", "09/000_0", "0000009/0_0000")
    }
    assert len(tags) == 1
    assert standing.client.head("/api/info").status_code == 200
