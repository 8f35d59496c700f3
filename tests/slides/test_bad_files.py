"""Files that are damaged, lie, or attack: one sentence, in bounded time and memory."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from histoclick.geometry import Rect
from histoclick.slides import open_slide
from histoclick.slides import segments as segments_module
from histoclick.types import HistoclickError
from madeslides import noise, write_ome, write_pyramid

PIXELS = noise(150, 210)


def refusal(path: Path) -> str:
    """The one sentence, when it is opened or at the latest when it is read."""
    with pytest.raises(HistoclickError) as caught, open_slide(path) as slide:
        slide.read(Rect(0, 0, 64, 64), 64, 64)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


def peak_memory(task: Callable[[], object]) -> float:
    """MB that this process has had at most during ``task``, above what it had before."""
    marks, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    try:
        marks.write_text("5")
    except OSError:
        pytest.skip("needs Linux to measure memory")

    def mb(what: str) -> float:
        return int(status.read_text().split(what)[1].split()[0]) / 1024

    before = mb("VmRSS:")
    task()
    return mb("VmHWM:") - before


def overwrite(path: Path, tag: str, value: int) -> Path:
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags[tag].overwrite(value)
    return path


# ---- what is no slide at all ----


def test_what_is_no_slide(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "missing.svs")
    (tmp_path / "empty.svs").write_bytes(b"")
    assert "is empty" in refusal(tmp_path / "empty.svs")
    (tmp_path / "text.svs").write_text("hello" * 100)
    assert "no reader knows it" in refusal(tmp_path / "text.svs")
    (tmp_path / "II.tif").write_bytes(b"II*\0")
    assert "ends after its first bytes" in refusal(tmp_path / "II.tif")
    assert "without a DICOM slide" in refusal(tmp_path)
    (tmp_path / "alone.mrxs").write_bytes(b"\xff\xd8\xff\xe0" + bytes(50))
    assert "folder alone, which holds its pixels, is not beside it" in refusal(
        tmp_path / "alone.mrxs"
    )


def test_pictures_that_are_not_8_bit_rgb(tmp_path: Path) -> None:
    deep = PIXELS.astype(np.uint16) * 200
    path = tmp_path / "made.tif"
    for tile in ({"tile": (64, 64)}, {}):  # OpenSlide would show the tiled one without a word
        tifffile.imwrite(path, deep, photometric="rgb", **tile)
        assert "has 16 bits per channel; save it with 8 bits" in refusal(path)
        tifffile.imwrite(path, PIXELS, photometric="cielab", **tile)
        assert "3 channels of type CIELAB" in refusal(path)
    tifffile.imwrite(path, PIXELS.astype(np.float32), photometric="rgb")
    assert "32 bits" in refusal(path)
    tifffile.imwrite(path, np.concatenate([PIXELS, PIXELS[..., :1]], -1), photometric="separated")
    assert "4 channels of type SEPARATED" in refusal(path)
    tifffile.imwrite(path, np.stack([PIXELS[..., 0]] * 5), photometric="minisblack")
    assert "a stack of 5x150x210" in refusal(path)
    Image.fromarray(deep[..., 0]).save(tmp_path / "deep.png")
    assert "more than 8 bits" in refusal(tmp_path / "deep.png")
    rgb16 = imagecodecs.png_encode(deep)
    (tmp_path / "rgb16.png").write_bytes(rgb16)
    assert "more than 8 bits" in refusal(tmp_path / "rgb16.png")


# ---- cut off ----


@pytest.mark.parametrize("write", [write_pyramid, write_ome])
def test_cut_off_tiffs_are_refused_when_opened(tmp_path: Path, write) -> None:
    path = write(tmp_path / "made.tif", PIXELS)
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        ends = [
            page.dataoffsets[-1] + page.databytecounts[-1]
            for level in file.series[0].levels
            for page in level.pages
        ]
    for length in (5, 100, ends[0] - 1, ends[0] // 2, max(ends) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(HistoclickError, match=r"cut off|no reader|first bytes"):
            open_slide(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_cut_off_pictures(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"made.{suffix}"
    Image.fromarray(PIXELS).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "cut off or damaged" in refusal(path)


def test_cut_off_real_slides(shared: Path, tmp_path: Path) -> None:
    for name in ("CMU-1-Small-Region.svs", "sm_image_50x50.dcm"):
        data = (shared / "data" / "slides" / name).read_bytes()
        path = tmp_path / name
        for share in (0.3, 0.9, 0.99):
            path.write_bytes(data[: int(len(data) * share)])
            assert any(word in refusal(path) for word in ("cut off", "damaged"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(["pyramid", "ome", "strips"]),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    kept=st.floats(0, 1),
)
def test_damaged_tiffs_do_no_harm(originals: dict[str, bytes], name, flips, kept) -> None:
    """Some bytes changed, the end cut off: a sentence, or pixels, but nothing else."""
    path = originals["folder"] / f"{name}.tif"
    data = bytearray(originals[name])
    del data[int(len(data) * (0.5 + kept / 2)) :]
    for place, value in flips:
        data[int(place * len(data))] = value
    path.write_bytes(bytes(data))
    try:
        with open_slide(path) as slide:
            read = slide.read(Rect(0, 0, 64, 64), 32, 32)
    except HistoclickError:
        pass
    else:
        assert read.shape == (32, 32, 3)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("originals")
    small = PIXELS[:70, :70]
    write_pyramid(folder / "pyramid.tif", small)
    write_ome(folder / "ome.tif", small)
    tifffile.imwrite(folder / "strips.tif", small, photometric="rgb", rowsperstrip=8)
    return {path.stem: path.read_bytes() for path in folder.iterdir()} | {"folder": folder}


# ---- lies ----


@pytest.mark.parametrize("write", [write_pyramid, write_ome])
@pytest.mark.parametrize(("tag", "size"), [("ImageWidth", 10**9), ("ImageLength", 60_000)])
def test_tiffs_that_lie_about_their_size(tmp_path: Path, write, tag: str, size: int) -> None:
    path = overwrite(write(tmp_path / "made.tif", PIXELS), tag, size)
    used = peak_memory(lambda: refusal(path))
    assert "px but has only 12 of" in refusal(path)
    assert used < 50


def test_strips_that_lie_about_their_size(tmp_path: Path) -> None:
    path = tmp_path / "made.tif"
    how = {"photometric": "rgb", "compression": "deflate", "rowsperstrip": 150}
    tifffile.imwrite(path, PIXELS, **how)
    overwrite(path, "ImageLength", 60_000)
    overwrite(path, "RowsPerStrip", 60_000)
    assert peak_memory(lambda: refusal(path)) < 100
    overwrite(path, "ImageWidth", 60_000)
    assert "pieces of 60000x60000 px" in refusal(path)
    tifffile.imwrite(path, PIXELS, photometric="rgb")
    overwrite(path, "ImageLength", 60_000)
    overwrite(path, "RowsPerStrip", 60_000)
    refusal(path)


def test_no_pixels(tmp_path: Path) -> None:
    for write in (write_pyramid, write_ome):
        refusal(overwrite(write(tmp_path / "made.tif", PIXELS), "ImageWidth", 0))


def test_monstrous_tiles(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "made.tif", PIXELS)
    overwrite(overwrite(path, "TileWidth", 64_000), "TileLength", 64_000)
    assert "pieces of 64000x64000 px" in refusal(path)


def test_levels_of_another_shape_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "made.tif"
    with tifffile.TiffWriter(path) as writer:
        for number, (height, width) in enumerate([(256, 512), (128, 256), (96, 96), (32, 64)]):
            level = np.full((height, width, 3), 60 * number, np.uint8)
            writer.write(level, tile=(64, 64), photometric="rgb", subfiletype=int(number > 0))
    with open_slide(path) as slide:
        assert [(level.width, level.downsample) for level in slide.levels] == [
            (512, 1), (256, 2), (64, 8),
        ]  # fmt: skip
        assert "1 of its levels do not show the whole slide" in slide.notes[0]
        assert slide.read(Rect(0, 0, 256, 256), 32, 32).mean() == 180


# ---- directories ----


def directories(path: Path, count: int, back_to: int | None) -> Path:
    """``count`` pictures of 64x64 px that share their pixels; the last one points back, or ends."""
    entries = [(256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
               (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 64), (279, 4, 1, 4096)]  # fmt: skip
    size = 2 + 12 * len(entries) + 4
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    end = 0 if back_to is None else 8 + back_to * size
    following = [8 + (number + 1) * size for number in range(count - 1)] + [end]
    data = b"".join(body + struct.pack("<I", place) for place in following)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + data + bytes(8192))
    return path


@pytest.mark.parametrize(("count", "back_to"), [(1, 0), (2, 0), (150, 0), (500, 300)])
def test_directories_in_a_circle(tmp_path: Path, count: int, back_to: int) -> None:
    assert "run in a circle" in refusal(directories(tmp_path / "ring.tif", count, back_to))


def test_too_many_directories(tmp_path: Path) -> None:
    assert "more than 10000" in refusal(directories(tmp_path / "many.tif", 20_000, None))
    assert "a stack of 50x64x64" in refusal(directories(tmp_path / "few.tif", 50, None))
    with open_slide(directories(tmp_path / "one.tif", 1, None)) as slide:
        assert (slide.width, slide.height) == (64, 64)


@pytest.mark.parametrize(("tag", "count"), [(324, 2**31), (270, 2**32 - 1), (256, 2**30)])
def test_tags_larger_than_the_file(tmp_path: Path, tag: int, count: int) -> None:
    path = write_pyramid(tmp_path / "made.tif", PIXELS, description="x" * 100)
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].tags[tag].offset
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, offset + 4, count)
    path.write_bytes(data)
    assert peak_memory(lambda: refusal(path)) < 50


# ---- bombs ----


def _encoded(size: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    options = {"no_jp2": True} if kind == "JPEG2000" else {"quality": 1}
    Image.new("RGB", (size, size)).save(buffer, kind, **options)
    return buffer.getvalue()


@cache
def _deflated(mb: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(mb)) + packer.flush()


@pytest.mark.parametrize("ome", [True, False])
@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "webp", "deflate", "zstd", "lzma"])
def test_tiles_that_explode(tmp_path: Path, compression: str, ome: bool) -> None:
    """A tile of 64x64 px whose data say 4000x4000 px, or 64 MB."""
    if compression in ("jpeg", "jpeg2000", "webp"):
        data = _encoded(4000, compression.upper())
    else:
        encode = {"zstd": imagecodecs.zstd_encode, "lzma": imagecodecs.lzma_encode}
        data = encode.get(compression, lambda _: _deflated(64))(bytes(2**26))
    path = tmp_path / "bomb.tif"
    with tifffile.TiffWriter(path, ome=ome) as writer:
        writer.write(
            iter([data]), shape=(64, 64, 3), dtype=np.uint8, tile=(64, 64), photometric="rgb",
            compression=compression, metadata={"axes": "YXS"} if ome else None,
        )  # fmt: skip

    def task() -> None:
        try:
            with open_slide(path) as slide:
                assert slide.read(Rect(0, 0, 64, 64), 64, 64).max() == 0
        except HistoclickError as error:
            assert "damaged" in str(error)  # noqa: PT017 - or pixels, both are right

    assert peak_memory(task) < 24


def test_pictures_that_explode(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    for side in (9_500, 40_000, 2**31 - 1):  # for the first one Pillow only warns
        bomb.write_bytes(PNG + _header(side) + _chunk(b"IDAT", _deflated(128)))
        assert peak_memory(lambda: refusal(bomb)) < 24
        assert "vips tiffsave bomb.png bomb.tif" in refusal(bomb)
    pixels = _chunk(b"IDAT", zlib.compress(bytes(31 * 10))) + _chunk(b"IEND", b"")
    for kind in (b"zTXt", b"iCCP"):
        text = _chunk(kind, b"a\0\0" + _deflated(128))
        bomb.write_bytes(PNG + _header(10) + text + pixels)
        assert peak_memory(lambda: refusal(bomb)) < 24


PNG = b"\x89PNG\r\n\x1a\n"


def _header(side: int) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_decoded_pieces_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of tiles stays below its limit, and reads are the same without it."""
    path = write_ome(tmp_path / "made.tif", PIXELS)
    monkeypatch.setattr(segments_module, "CACHE_BYTES", 30_000)  # two tiles
    with open_slide(path) as slide:
        for _ in range(2):
            assert (slide.read(Rect(0, 0, 210, 150), 210, 150) == PIXELS).all()
        cache = slide.source._levels[0]._cache
        assert len(cache._kept) == 2
        assert cache._bytes == sum(kept.nbytes for kept in cache._kept.values()) <= 30_000


def test_one_bad_tile_does_not_spoil_the_others(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "made.tif", PIXELS)
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + 20] = bytes(20)
    path.write_bytes(data)
    with open_slide(path) as slide:
        with pytest.raises(HistoclickError, match=r"damaged near \(0, 0\) px"):
            slide.read(Rect(0, 0, 64, 64), 64, 64)
        assert (slide.read(Rect(64, 64, 64, 64), 64, 64) == PIXELS[64:128, 64:128]).all()
