"""Every real slide at hand: the right content, or the right sentence. Formats, generated."""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from histoclick.geometry import Rect
from histoclick.slides import describe, open_slide, problems
from histoclick.slides.openslides import OpenSlideSource
from histoclick.slides.pictures import PictureSource
from histoclick.slides.tiffs import TiffSource
from histoclick.types import RGB8, HistoclickError
from madeslides import noise, shrunk, write_ome, write_pyramid

# file: format, sizes of levels, um/px, objective, ICC, pictures beside it, quickhash
GOOD = {
    "CMU-1-Small-Region.svs": (
        "aperio", [(2220, 2967)], 0.499, 20, False, {"label", "macro", "thumbnail"}, "6335ea0e",
    ),
    "TCGA-CR-7395-01A-01-TS1.svs": (
        "aperio", [(4443, 3567), (2221, 1783)], None, None, True, {"thumbnail"}, "a07b51d4",
    ),
    "boxes_pyramid.tiff": (
        "generic-tiff", [(300, 250), (150, 125), (75, 62), (37, 31)], None, None, True, set(),
        "8598af2e",
    ),
    "sm_image_50x50.dcm": ("dicom", [(50, 50)], 0.499, None, True, set(), "3f993b9d"),
    "small_16x16.svs": ("aperio", [(16, 16)], 0.499, 20, False, {"thumbnail"}, "1eaa4a16"),
}  # fmt: skip
BAD = {
    "broken.svs": "no reader knows it",
    "unopenable.tiff": "compression 52479 is not supported",
}


def test_the_table_has_every_file(shared: Path) -> None:
    assert {path.name for path in (shared / "data" / "slides").iterdir()} == {*GOOD, *BAD}


@pytest.mark.parametrize("name", GOOD)
def test_what_real_slides_are(shared: Path, name: str) -> None:
    kind, sizes, mpp, power, icc, associated, quickhash = GOOD[name]
    with open_slide(shared / "data" / "slides" / name) as slide:
        said = describe(slide)
        assert said["format"] == kind
        assert [(level["width"], level["height"]) for level in said["levels"]] == sizes
        assert (slide.width, slide.height) == sizes[0]
        assert slide.mpp == mpp
        assert slide.objective_power == power
        assert said["icc_profile"] is icc
        assert set(said["associated"]) == associated
        assert slide.bounds == Rect(0, 0, *sizes[0])
        assert slide.fingerprint.startswith(f"quickhash-1:{quickhash}")
        assert [level.downsample for level in slide.levels] == [2**n for n in range(len(sizes))]


@pytest.mark.parametrize("name", GOOD)
def test_pixels_of_real_slides(shared: Path, name: str) -> None:
    """All levels in pieces, against another reader (JPEG 2000 decoders round differently)."""
    path = shared / "data" / "slides" / name
    tolerance = 2 if name.startswith("TCGA") else 0
    with open_slide(path) as slide:
        for index, expected in enumerate(_levels_by_another_reader(path)):
            height, width = expected.shape[:2]
            factor = 2**index
            tolerance += 3 * (index > 0 and not openslide_agrees(slide.width, slide.height, index))
            for x in range(0, width - 15, max(width // 5, 16)):
                for y in range(0, height - 15, max(height // 5, 16)):
                    rect0 = Rect(x * factor, y * factor, 16 * factor, 16 * factor)
                    there = expected[y : y + 16, x : x + 16].astype(int)
                    assert np.abs(slide.read(rect0, 16, 16) - there).max() <= tolerance


def openslide_agrees(width: int, height: int, index: int) -> bool:
    """Whether OpenSlide takes the factor of a level for a whole one."""
    return width % 2**index == height % 2**index == 0


def _levels_by_another_reader(path: Path) -> list[RGB8]:
    if path.suffix == ".dcm":
        pydicom = pytest.importorskip("pydicom")
        tiles = pydicom.dcmread(path).pixel_array.reshape(5, 5, 10, 10, 3)
        return [tiles.transpose(0, 2, 1, 3, 4).reshape(50, 50, 3)]
    with tifffile.TiffFile(path) as file:
        return [level.asarray() for level in file.series[0].levels]


@pytest.mark.parametrize("name", BAD)
def test_real_files_that_are_refused(shared: Path, name: str) -> None:
    with pytest.raises(HistoclickError, match=BAD[name]) as caught:
        open_slide(shared / "data" / "slides" / name)
    assert "\n" not in str(caught.value)


def test_a_folder_with_a_dicom_slide(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("not a slide")
    shutil.copy(shared / "data" / "slides" / "sm_image_50x50.dcm", tmp_path / "level0.dcm")
    with open_slide(tmp_path) as slide:
        assert (slide.width, slide.height) == (50, 50)


def test_a_folder_with_two_dicom_slides(shared: Path, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    one = pydicom.dcmread(shared / "data" / "slides" / "sm_image_50x50.dcm")
    one.save_as(tmp_path / "a.dcm")
    one.SeriesInstanceUID = f"{one.SeriesInstanceUID[:-1]}0"
    one.SOPInstanceUID = f"{one.SOPInstanceUID[:-1]}0"
    one.save_as(tmp_path / "b.dcm")
    with pytest.raises(HistoclickError, match=r"2 DICOM slides; .* such as a.dcm or b.dcm"):
        open_slide(tmp_path)


def test_the_question_about_microns(shared: Path) -> None:
    with (
        open_slide(shared / "data" / "slides" / "TCGA-CR-7395-01A-01-TS1.svs") as slide,
        pytest.raises(HistoclickError, match=r"svs: does not say its microns per pixel; .*--mpp"),
    ):
        slide.read_at(0, 0, 1, 10)


def test_print_resolutions_are_not_believed(shared: Path) -> None:
    with open_slide(shared / "data" / "slides" / "boxes_pyramid.tiff") as slide:
        assert any("72 dots per inch" in problem for problem in problems(slide))


def test_colour_profiles(shared: Path) -> None:
    """Of a slide whose profile is sRGB itself: nothing changes, and white stays white."""
    path = shared / "data" / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"
    rect0 = Rect(1500, 1500, 64, 64)
    with open_slide(path) as plain, open_slide(path, icc=True) as converted:
        assert converted.notes == plain.notes
        before, after = plain.read(rect0, 64, 64), converted.read(rect0, 64, 64)
        assert np.abs(before.astype(int) - after).max() <= 2
        assert (converted.read(Rect(-500, 0, 64, 64), 64, 64) == 255).all()
    without = shared / "data" / "slides" / "CMU-1-Small-Region.svs"
    with open_slide(without, icc=True) as slide:
        assert "no colour profile" in slide.notes[0]


# ---- generated ----


@pytest.fixture(scope="module")
def pixels() -> RGB8:
    return noise(150, 210)


def whole(path: Path) -> RGB8:
    with open_slide(path) as slide:
        return slide.read(Rect(0, 0, slide.width, slide.height), slide.width, slide.height)


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (32, 64)},
        {"tile": (32, 32), "planarconfig": "separate"},
        {"rowsperstrip": 7},
        {"rowsperstrip": 7, "planarconfig": "separate"},
        {},
        {"compression": "deflate"},
        {"compression": "deflate", "predictor": True, "rowsperstrip": 16},
        {"compression": "lzw", "tile": (32, 32)},
        {"compression": "zstd", "tile": (32, 32)},
        {"compression": "packbits", "rowsperstrip": 10},
        {"compression": "webp", "compressionargs": {"lossless": True}, "tile": (64, 64)},
        {"bigtiff": True, "byteorder": ">", "rowsperstrip": 16},
        {"bigtiff": True, "tile": (64, 64), "compression": "deflate"},
    ],
    ids=str,
)
def test_tiffs_without_loss(tmp_path: Path, pixels: RGB8, options: dict) -> None:
    path = tmp_path / "made.tif"
    form = {name: options[name] for name in ("bigtiff", "byteorder") if name in options}
    how = {name: value for name, value in options.items() if name not in form}
    data = np.moveaxis(pixels, -1, 0) if "planarconfig" in how else pixels
    tifffile.imwrite(path, data, photometric="rgb", **form, **how)
    assert (whole(path) == pixels).all()
    with open_slide(path) as slide:
        assert (slide.read(Rect(33, 21, 100, 90), 100, 90) == pixels[21:111, 33:133]).all()


@pytest.mark.parametrize("options", [{"tile": (64, 64)}, {"rowsperstrip": 16}], ids=str)
def test_jpeg_in_tiff(tmp_path: Path, options: dict) -> None:
    smooth = np.repeat(np.linspace(40, 220, 192).astype(np.uint8)[:, None], 128, 1)
    picture = np.stack([smooth, 255 - smooth, smooth // 2], -1)
    path = tmp_path / "made.tif"
    tifffile.imwrite(path, picture, photometric="rgb", compression="jpeg", **options)
    assert np.abs(whole(path).astype(int) - picture).max() <= 6


def test_jpeg2000_in_tiff(tmp_path: Path, pixels: RGB8) -> None:
    path = tmp_path / "made.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", compression="jpeg2000", tile=(64, 64))
    assert np.abs(whole(path).astype(int) - pixels).max() <= 1


@pytest.mark.parametrize("tiled", [True, False])
def test_grey_black_and_white_and_palettes(tmp_path: Path, pixels: RGB8, tiled: bool) -> None:
    grey = np.ascontiguousarray(pixels[..., 0])
    tile = {"tile": (64, 64)} if tiled else {}
    three = np.repeat(grey[..., None], 3, -1)
    path = tmp_path / "made.tif"
    tifffile.imwrite(path, grey, photometric="minisblack", **tile)
    assert (whole(path) == three).all()
    tifffile.imwrite(path, grey, photometric="miniswhite", **tile)
    assert (whole(path) == 255 - three).all()
    tifffile.imwrite(path, grey > 99, photometric="minisblack", **tile)
    assert (whole(path) == np.where(three > 99, 255, 0)).all()
    colours = noise(1, 256)[0]
    table = colours.T.astype(np.uint16) * 257
    tifffile.imwrite(path, grey, photometric="palette", colormap=table, **tile)
    assert (whole(path) == colours[grey]).all()


@pytest.mark.parametrize("tile", [{"tile": (64, 64)}, {}], ids=str)
def test_transparency_is_white(tmp_path: Path, pixels: RGB8, tile: dict) -> None:
    alpha = noise(*pixels.shape[:2], seed=1)[..., :1]
    share = alpha / 255
    over_white = np.rint(pixels * share + 255 * (1 - share))
    path = tmp_path / "made.tif"
    rgba = np.concatenate([pixels, alpha], -1)
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unassalpha"], **tile)
    assert np.abs(whole(path) - over_white).max() <= 1
    multiplied = np.concatenate([np.rint(pixels * share).astype(np.uint8), alpha], -1)
    tifffile.imwrite(path, multiplied, photometric="rgb", extrasamples=["assocalpha"], **tile)
    assert np.abs(whole(path) - over_white).max() <= 1
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unspecified"], **tile)
    assert (whole(path) == pixels).all()
    png = tmp_path / "made.png"
    Image.fromarray(rgba).save(png)
    assert np.abs(whole(png) - over_white).max() <= 1


def test_ome_tiffs(tmp_path: Path, pixels: RGB8) -> None:
    said = {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}
    path = write_ome(tmp_path / "made.ome.tif", pixels, metadata=said)
    with open_slide(path) as slide:
        assert isinstance(slide.source, TiffSource)
        assert slide.facts.format == "ome-tiff"
        assert (slide.mpp_x, slide.mpp_y) == (0.25, 0.5)
        assert len(slide.levels) == 3
        level = slide.read(Rect(8, 16, 160, 120), 40, 30)
        assert (level == shrunk(pixels, 4)[4:34, 2:42]).all()


def test_ome_tiffs_with_a_plane_per_channel(tmp_path: Path, pixels: RGB8) -> None:
    path = tmp_path / "made.ome.tif"
    planes = np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(path, planes, ome=True, photometric="minisblack", metadata={"axes": "CYX"})
    assert (whole(path) == pixels).all()
    with open_slide(path) as slide:
        assert any("red, green and blue" in note for note in slide.notes)


def test_ome_xml_with_entities_is_refused(tmp_path: Path, pixels: RGB8) -> None:
    bomb = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]><OME>&a;</OME>'
    path = tmp_path / "bomb.ome.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", description=bomb, metadata=None)
    with pytest.raises(HistoclickError, match="OME-XML cannot be read"):
        open_slide(path)


@pytest.mark.parametrize(
    ("resolution", "unit", "mpp"),
    [
        ((40_000, 40_000), "CENTIMETER", 0.25),
        ((50_800, 25_400), "INCH", (0.5, 1)),
        ((72, 72), "INCH", None),
        ((96, 96), "INCH", None),
        ((300, 300), "INCH", None),
        ((40_000, 40_000), "NONE", None),
        ((1, 1), "CENTIMETER", None),
        ((0, 0), "CENTIMETER", None),
    ],
)
@pytest.mark.parametrize("tile", [{"tile": (64, 64)}, {}], ids=["openslide", "tifffile"])
def test_microns_from_tiff_tags(tmp_path: Path, pixels, resolution, unit, mpp, tile) -> None:
    path = tmp_path / "made.tif"
    how = {"resolution": resolution, "resolutionunit": unit, **tile}
    tifffile.imwrite(path, pixels, photometric="rgb", **how)
    with open_slide(path) as slide:
        expected = mpp if isinstance(mpp, tuple) else (mpp, mpp)
        assert (slide.mpp_x, slide.mpp_y) == pytest.approx(expected)


def test_who_opens_what(tmp_path: Path, pixels: RGB8) -> None:
    with open_slide(write_pyramid(tmp_path / "a.tif", pixels)) as slide:
        assert isinstance(slide.source, OpenSlideSource)
    tifffile.imwrite(tmp_path / "b.tif", pixels, photometric="rgb")
    with open_slide(tmp_path / "b.tif") as slide:
        assert isinstance(slide.source, TiffSource)
    Image.fromarray(pixels).save(tmp_path / "c.png")
    with open_slide(tmp_path / "c.png") as slide:
        assert isinstance(slide.source, PictureSource)
    with open_slide(write_pyramid(tmp_path / "e.png", pixels)) as slide:  # the name does not count
        assert isinstance(slide.source, OpenSlideSource)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "jpg", "jp2"])
def test_pictures(tmp_path: Path, pixels: RGB8, suffix: str) -> None:
    path = tmp_path / f"made.{suffix}"
    how = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(pixels).save(path, **how)
    expected = np.asarray(Image.open(path).convert("RGB")) if suffix == "jpg" else pixels
    assert (whole(path) == expected).all()
    with open_slide(path) as slide:
        assert slide.mpp is None
        assert slide.fingerprint == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_pictures_lie_as_viewers_show_them(tmp_path: Path, pixels: RGB8) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif, dpi=(25_400, 50_800))
    with open_slide(tmp_path / "turned.png") as slide:
        assert (slide.width, slide.height) == (150, 210)
        assert (slide.mpp_x, slide.mpp_y) == pytest.approx((0.5, 1), rel=1e-3)
    assert (whole(tmp_path / "turned.png") == np.rot90(pixels, -1)).all()


def test_palette_and_transparent_pngs(tmp_path: Path, pixels: RGB8) -> None:
    paletted = Image.fromarray(pixels).quantize(64)
    paletted.save(tmp_path / "palette.png")
    assert (whole(tmp_path / "palette.png") == np.asarray(paletted.convert("RGB"))).all()
    paletted.save(tmp_path / "clear.png", transparency=paletted.getpixel((3, 4)))
    assert (whole(tmp_path / "clear.png")[4, 3] == 255).all()
    Image.fromarray(pixels[..., 0] > 99).save(tmp_path / "black.png")
    expected = np.where(pixels[..., :1] > 99, 255, 0)
    assert (whole(tmp_path / "black.png") == expected).all()


def test_a_profile_changes_colours(tmp_path: Path, pixels: RGB8) -> None:
    """A picture with other primaries: the same as Pillow's own conversion."""
    profile = _swapped_primaries()
    Image.fromarray(pixels).save(tmp_path / "made.png", icc_profile=profile)
    with open_slide(tmp_path / "made.png", icc=True) as slide:
        read = slide.read(Rect(0, 0, 210, 150), 210, 150)
        assert slide.notes == ()
    expected = ImageCms.profileToProfile(
        Image.fromarray(pixels), ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
    )  # fmt: skip
    assert (read == np.asarray(expected)).all()
    assert np.abs(read.astype(int) - pixels).max() > 20
    Image.fromarray(pixels).save(tmp_path / "bad.png", icc_profile=b"nonsense" * 40)
    with open_slide(tmp_path / "bad.png", icc=True) as slide:
        assert "cannot be used" in slide.notes[0]


def _swapped_primaries() -> bytes:
    """An sRGB profile whose red and blue primaries changed places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = data.index(b"rXYZ"), data.index(b"bXYZ")
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


def test_problems_of_slides(tmp_path: Path, pixels: RGB8) -> None:
    path = write_pyramid(tmp_path / "silent.tif", pixels)
    with open_slide(path) as slide:
        assert [problem[:30] for problem in problems(slide)] == ["does not say its microns per p"]
    with open_slide(path, mpp=0.5) as slide:
        assert problems(slide) == []
    large = np.full((5000, 5000, 3), 200, np.uint8)
    write_pyramid(tmp_path / "flat.tif", large, factors=(), tile=(512, 512))
    with open_slide(tmp_path / "flat.tif", mpp=0.5) as slide:
        assert "no smaller levels" in problems(slide)[0]
    write_pyramid(tmp_path / "gap.tif", large, factors=(20,), tile=(512, 512))
    with open_slide(tmp_path / "gap.tif", mpp=0.5) as slide:
        assert "lacks levels in between" in problems(slide)[0]
