"""Label images of many makers, and files that are none."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from histoclick import rasters
from histoclick.geometry import Rect
from histoclick.pyramids import write_pyramid
from histoclick.rasters import LabelClass, Legend, open_raster, write_png
from histoclick.types import HistoclickError

Labels = NDArray[Any]
NOISE = np.random.default_rng(0).integers(0, 4, (70, 90)).astype(np.uint8)
COLOURS = np.array([[0, 0, 0], [0, 0, 255], [0, 255, 0], [255, 0, 0]], np.uint8)
LEGEND = Legend({1: LabelClass("Tumör", (200, 0, 0)), 2: LabelClass(""), 3: LabelClass(None)}, 0.25)


def tiff(path: Path, image: Labels, **tags: Any) -> None:
    kinds = {key: tags.pop(key) for key in ("byteorder", "bigtiff") if key in tags}
    with tifffile.TiffWriter(path, **kinds) as file:
        file.write(image, photometric=tags.pop("photometric", "minisblack"), **tags)


def check(path: Path, expected: Labels) -> None:
    """All of it in bands of any height, windows of it at any scale."""
    height, width = expected.shape
    with open_raster(path) as image:
        assert (image.width, image.height) == (width, height)
        for rows in (1, 17, 64, 1000):
            bands = list(image.bands(rows))
            assert [y for y, _ in bands] == list(range(0, height, rows))
            assert np.array_equal(np.concatenate([band for _, band in bands]), expected)
            assert all(band.dtype in (np.uint8, np.uint16) for _, band in bands)
        window = image.read(Rect(10, 20, 30, 40), 30, 40)
        assert window.dtype == np.uint16
        assert np.array_equal(window, expected[20:60, 10:40])
        assert np.array_equal(image.read(Rect(0, 0, 60, 60), 20, 20), expected[1:60:3, 1:60:3])
        beyond = image.read(Rect(-20, -10, 40, 200), 20, 100)
        assert np.array_equal(beyond[5:40, 10:], expected[1::2, 1:20:2])
        assert not beyond[:5].any()
        assert not beyond[:, :10].any()
        assert not beyond[40:].any()
        assert not image.read(Rect(500, 500, 5, 5), 5, 5).any()


TIFFS: dict[str, dict[str, Any]] = {
    "plain": {},
    "strips": {"rowsperstrip": 16},
    "deflate in strips": {"compression": "deflate", "rowsperstrip": 7},
    "deflate as a whole": {"compression": "deflate", "rowsperstrip": 70},
    "predictor": {"compression": "deflate", "predictor": True},
    "lzw in tiles": {"compression": "lzw", "tile": (64, 64)},
    "zstd in tiles": {"compression": "zstd", "tile": (16, 32)},
    "tiles": {"tile": (128, 64)},
    "one tile": {"tile": (80, 96)},
    "packbits": {"compression": "packbits"},
    "big endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
}


@pytest.mark.parametrize("kind", TIFFS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.int64])
def test_tiffs(tmp_path: Path, kind: str, dtype: type) -> None:
    image = (NOISE.astype(np.int64) * (1 if dtype is np.uint8 else 300)).astype(dtype)
    if "predictor" in TIFFS[kind] and dtype is np.int64:
        image = image.astype(np.uint8)
    tiff(tmp_path / "mask.tif", image, **TIFFS[kind])
    check(tmp_path / "mask.tif", image)


@pytest.mark.parametrize("compression", [None, "group3", "group4", "tiff_lzw", "packbits"])
def test_bilevel_tiffs(tmp_path: Path, compression: str | None) -> None:
    Image.fromarray(NOISE > 1).save(tmp_path / "mask.tif", compression=compression)
    check(tmp_path / "mask.tif", NOISE > 1)


def test_white_is_one_in_either_kind_of_bilevel_tiff(tmp_path: Path) -> None:
    tiff(tmp_path / "mask.tif", NOISE > 1, photometric="miniswhite")
    check(tmp_path / "mask.tif", NOISE <= 1)


def test_pngs_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    for image in (NOISE, NOISE > 1, NOISE.astype(np.uint16) * 300):
        Image.fromarray(image).save(path)
        check(path, image)
    for bits in (2, 4, 8):
        palette = Image.fromarray(NOISE)
        palette.putpalette(COLOURS.tobytes())
        palette.save(path, bits=bits)
        check(path, NOISE)
        with open_raster(path) as opened:
            assert opened.legend.classes[3] == LabelClass(None, (255, 0, 0))


def test_pngs_of_few_bits_are_not_stretched(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    for depth, image in ((2, NOISE), (4, NOISE * 5)):
        path.write_bytes(png(image, depth))
        check(path, image)


def png(image: Labels, depth: int, size: tuple[int, int] | None = None) -> bytes:
    """Grey of few bits, which Pillow does not write."""
    height, width = size or image.shape
    bits = (image[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    packed = np.packbits(bits.reshape(len(image), -1), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def test_every_colour_is_a_class(tmp_path: Path) -> None:
    rgb = COLOURS[NOISE]
    clear = np.full((*NOISE.shape, 1), 255, np.uint8)
    clear[:10] = 0
    for name, image, expected in (
        ("rgb.png", rgb, NOISE),
        ("rgb.tif", rgb, NOISE),
        ("rgba.png", np.concatenate([rgb, clear], 2), NOISE * (clear[..., 0] > 0)),
        ("la.png", np.concatenate([NOISE[..., None], clear], 2), NOISE * (clear[..., 0] > 0)),
    ):
        Image.fromarray(image).save(tmp_path / name)
        check(tmp_path / name, expected)
    with open_raster(tmp_path / "rgb.png") as opened:
        assert opened.legend.classes == {
            1: LabelClass("#0000ff", (0, 0, 255)),
            2: LabelClass("#00ff00", (0, 255, 0)),
            3: LabelClass("#ff0000", (255, 0, 0)),
        }
    tiff(tmp_path / "tiles.tif", rgb, photometric="rgb", compression="lzw", tile=(32, 32))
    check(tmp_path / "tiles.tif", NOISE)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("heights", [[70], [1, 69], [33, 0, 37]])
def test_what_is_written_here(tmp_path: Path, dtype: type, heights: list[int]) -> None:
    image = (NOISE.astype(np.int64) * (1 if dtype is np.uint8 else 20_000)).astype(dtype)
    bands = np.split(image, np.cumsum(heights)[:-1])
    write_png(tmp_path / "a.png", 90, 70, bands, LEGEND)
    write_pyramid(tmp_path / "a.tif", 90, 70, bands, description=LEGEND.text(), tile_px=16)
    for name in ("a.png", "a.tif"):
        check(tmp_path / name, image)
        with open_raster(tmp_path / name) as opened:
            assert opened.legend == LEGEND
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), image)


names = st.one_of(st.none(), st.text(max_size=5))
colours = st.one_of(st.none(), st.tuples(*[st.integers(0, 255)] * 3))


@given(
    st.builds(
        Legend,
        st.dictionaries(st.integers(0, 65535), st.builds(LabelClass, names, colours), max_size=4),
        st.one_of(st.none(), st.floats(1e-3, 100)),
    )
)
def test_legends_come_back(legend: Legend) -> None:
    assert legend.text().isascii()
    assert Legend.of(legend.text()) == legend


@pytest.mark.parametrize(
    "text",
    [
        None, 3, "", "scanned on Monday", '{"shape": [3, 4]}', '{"classes": 3}', '{"classes"',
        '{"classes": {"a": {}}}', '{"classes": {"1": {"colour": "red"}}}', '{"classes": {"1": 2}}',
        '{"classes": ' * 100_000, '{"classes": {}, "mpp": "fine"}', '{"classes": "' + "x" * 2**23,
    ],
    ids=range(13),
)  # fmt: skip
def test_other_texts_are_no_legends(text: object) -> None:
    assert Legend.of(text) == Legend()


def refused(path: Path, match: str) -> None:
    """When opened, or at the latest when read."""
    with pytest.raises(HistoclickError, match=match), open_raster(path) as image:
        for _ in image.bands():
            pass


def test_smaller_copies_are_levels_and_other_pages_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    for second, good in (
        (NOISE[::2, ::2], True),
        (NOISE[::3, ::3], True),
        (NOISE, False),
        (NOISE[::2], False),
        (NOISE[:30, :80], False),
    ):
        with tifffile.TiffWriter(path) as file:
            file.write(NOISE)
            file.write(second)
        if good:
            check(path, NOISE)
        else:
            refused(path, r"mask\.tif: its page 2 \(\d+x\d+ px\) is no smaller copy")


PICTURE = np.random.default_rng(1).integers(0, 255, (70, 90, 3)).astype(np.uint8)
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "picture.png": (lambda path: Image.fromarray(PICTURE).save(path), "more than 64 colours"),
    "picture.tif": (lambda path: Image.fromarray(PICTURE).save(path), "more than 64 colours"),
    "float.tif": (lambda path: tiff(path, NOISE / 2), "whole numbers"),
    "negative.tif": (lambda path: tiff(path, NOISE.astype(np.int16) - 2), "values from -2 to 1"),
    "large.tif": (lambda path: tiff(path, NOISE.astype(np.uint32) * 2**20), "from 0 to 3145728"),
    "jpeg.tif": (lambda path: tiff(path, NOISE, compression="jpeg"), "may change values"),
    "rgb16.tif": (
        lambda path: tiff(path, PICTURE.astype(np.uint16), photometric="rgb"),
        "3 channels of uint16",
    ),
    "planes.tif": (
        lambda path: tiff(path, PICTURE.transpose(2, 0, 1), photometric="rgb", planarconfig=2),
        "lie one after the other",
    ),
    "inverted.tif": (lambda path: tiff(path, NOISE, photometric="miniswhite"), "MINISWHITE"),
    "text.png": (lambda path: path.write_text("mask"), "neither a PNG nor a TIFF"),
    "empty.tif": (lambda path: path.write_bytes(b""), "neither a PNG nor a TIFF"),
    "head.png": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "damaged"),
    "head.tif": (lambda path: path.write_bytes(b"II*\0"), "damaged"),
    "animation.png": (
        lambda path: Image.fromarray(NOISE).save(
            path, save_all=True, append_images=[Image.fromarray(NOISE[::-1].copy())]
        ),
        "animation",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_label_image_is_refused(tmp_path: Path, name: str) -> None:
    make, sentence = REFUSED[name]
    make(tmp_path / name)
    refused(tmp_path / name, rf"{name}: .*{sentence}")


def test_missing_files_are_told(tmp_path: Path) -> None:
    refused(tmp_path / "no.png", "No such file")
    refused(tmp_path, "Is a directory")


def test_png_bombs_are_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    for size, depth in (((100_000, 100_000), 1), ((30_000, 10_000), 16), ((2**31 - 1, 1), 8)):
        path.write_bytes(png(np.zeros((1, 1), np.uint16), depth, size))
        refused(path, "save it as a tiled TIFF")


@pytest.mark.parametrize("width", [89, 91, 200, 10_000])
def test_a_png_that_lies_about_its_size(tmp_path: Path, width: int) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(png(NOISE, 8, (70, width)))
    if width > 90:
        refused(path, "cannot be read|damaged")
    else:
        with open_raster(path) as image:
            assert image.width == width


def retagged(path: Path, code: int, value: int) -> None:
    """Change a number in the first directory of a TIFF."""
    with tifffile.TiffFile(path) as file:
        tag = file.pages[0].tags[code]
        offset, kind = tag.valueoffset, {3: "<H", 4: "<I"}[int(tag.dtype)]
    data = bytearray(path.read_bytes())
    struct.pack_into(kind, data, offset, value)
    path.write_bytes(data)


WIDTH, HEIGHT, OFFSET, ROWS_PER_STRIP, COUNT, TILE_WIDTH = 256, 257, 273, 278, 279, 322


@pytest.mark.parametrize(
    ("kind", "code", "value", "sentence"),
    [
        ("plain", HEIGHT, 71, "holds"),
        ("plain", HEIGHT, 60_000, "holds"),
        ("plain", WIDTH, 50_000, "holds"),
        ("plain", COUNT, 100, "holds fewer"),
        ("plain", OFFSET, 2**31, "ends before its last pixel"),
        ("strips", HEIGHT, 60_000, "holds 5 of 3750"),
        ("strips", ROWS_PER_STRIP, 1, "holds 5 of 70"),
        ("deflate as a whole", HEIGHT, 71, ""),
        ("deflate as a whole", WIDTH, 60_000, ""),
        ("deflate as a whole", ROWS_PER_STRIP, 2, "holds 1 of 35"),
        ("lzw in tiles", HEIGHT, 60_000, "holds 4 of"),
        ("lzw in tiles", WIDTH, 129, "holds 4 of 6"),
        ("lzw in tiles", TILE_WIDTH, 2**15, ""),
    ],
)
def test_a_tiff_that_lies_about_its_size(
    tmp_path: Path, kind: str, code: int, value: int, sentence: str
) -> None:
    path = tmp_path / "mask.tif"
    tiff(path, NOISE, **TIFFS[kind])
    retagged(path, code, value)
    refused(path, rf"mask\.tif: .*{sentence}")


def test_deflate_bombs_are_not_inflated(tmp_path: Path) -> None:
    """A tile that would be 256 MB gives as many pixels as a tile has, or an error."""
    path = tmp_path / "mask.tif"
    bomb = zlib.compressobj(9)
    data = b"".join(bomb.compress(bytes(2**20)) for _ in range(2**8)) + bomb.flush()
    with tifffile.TiffWriter(path) as file:
        file.write(iter([data]), shape=(64, 64), dtype=np.uint8, tile=(64, 64), compression=8)
    with open_raster(path) as image:
        try:
            bands = list(image.bands())
        except HistoclickError:
            return
    assert sum(band.size for _, band in bands) == 64 * 64


def test_large_pieces_and_images_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mask.tif"
    tiff(path, NOISE, compression="deflate", rowsperstrip=70)
    monkeypatch.setattr("histoclick.rasters.tiff.SEGMENT_BYTES", 6000)
    refused(path, "save it with tiles of 512 px")
    tiff(path, NOISE)
    check(path, NOISE)  # as it lies in the file, it need not be decoded
    monkeypatch.setattr("histoclick.rasters.tiff.MAX_PX", 6000)
    refused(path, "which cannot be")


def test_tiles_that_are_left_out_are_background(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    with tifffile.TiffWriter(path) as file:
        tile = np.full((16, 16), 7, np.uint8)
        file.write(
            iter([tile, None, None, tile]), shape=(32, 32), dtype=np.uint8, tile=(16, 16),
            compression="deflate",
        )  # fmt: skip
    with open_raster(path) as image:
        ((_, found),) = image.bands()
    assert np.array_equal(found, np.kron([[7, 0], [0, 7]], np.ones((16, 16))))


def test_large_pngs_are_looked_at_in_portions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(NOISE).save(tmp_path / "mask.png")
    monkeypatch.setattr("histoclick.rasters.png._PORTION", 500)
    check(tmp_path / "mask.png", NOISE)


@pytest.mark.parametrize("name", ["mask.png", "strips.tif", "tiles.tif"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_files_are_read_or_refused(
    tmp_path: Path, name: str, damage: list[tuple[float, int]]
) -> None:
    path = tmp_path / name
    if name == "mask.png":
        write_png(path, 90, 70, [NOISE], LEGEND)
    else:
        tiff(path, NOISE, **TIFFS["strips" if "strips" in name else "lzw in tiles"])
    data = bytearray(path.read_bytes())
    for place, value in damage:  # mostly in the tables at the beginning
        data[int(place**3 * (len(data) - 1))] = value
    path.write_bytes(data)
    with contextlib.suppress(HistoclickError), open_raster(path) as image:
        bands = [band for _, band in image.bands()]
        assert sum(map(len, bands)) == image.height


def test_is_raster() -> None:
    assert rasters.is_raster(b"\x89PNG\r\n\x1a\n...")
    assert rasters.is_raster(b"MM\0*")
    assert not rasters.is_raster(b"{}")
