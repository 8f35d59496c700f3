"""Patch sets from slides: everything is compared with a slow twin that reads the whole slide."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from shapely import Polygon, contains_xy, union_all

from histoclick.crew import Alone, Crew, Processes
from histoclick.datasets.camelyon16 import Camelyon16
from histoclick.datasets.folder import Folder
from histoclick.datasets.paip2019 import Paip2019
from histoclick.patches import open_patch_set, read_image, read_mask
from histoclick.prepare import Bench, Prepared, Progress, Recipe, Splits, prepare
from histoclick.slides import open_slide
from histoclick.types import HistoclickError
from slidemaker import HOLE, LARGE, SMALL, aperio, asap, camelyon, make_slide, tissue

SIZE, SCALE = 100, 4  # px of a patch at 1 um/px; px of level 0 per px of a patch
SMALL_PATCHES = Recipe(Camelyon16(), mpp=1.0, size_px=SIZE)


def cut(recipe: Recipe, images: Path, outlines: Path, out: Path, **options: Any) -> Prepared:
    return prepare(Alone(Bench(recipe)), recipe, images, outlines, out, **options)


def truth(width: int = 3200, height: int = 2400) -> Any:
    """(height / 4, width / 4) bool: the centres of pixels of 1 um that are tumour."""
    tumour = union_all([Polygon(LARGE), Polygon(SMALL)]).difference(Polygon(HOLE))
    y, x = np.mgrid[: height // SCALE, : width // SCALE]
    return contains_xy(tumour, (x.ravel() + 0.5) * SCALE, (y.ravel() + 0.5) * SCALE).reshape(
        x.shape
    )


def table(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "patches.parquet").set_index("id")


def test_every_patch_of_the_grid_that_is_tumour_enough_and_no_other(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path)
    prepared = cut(SMALL_PATCHES, images, outlines, tmp_path / "set")
    whole, pixels = truth(), tissue(3200, 2400, seed=1)
    blocks = pixels.reshape(600, SCALE, 800, SCALE, 3).mean(axis=(1, 3))
    wanted = {}
    for y in range(0, 600, SIZE):
        for x in range(0, 800, SIZE):
            part = whole[y : y + SIZE, x : x + SIZE]
            if 0.2 <= part.mean() <= 0.8 and x < 720:  # the rest is glass
                wanted[f"tumor_001_x{x * SCALE}_y{y * SCALE}"] = (x, y, part)
    found = table(tmp_path / "set")
    assert set(found.index) == set(wanted)
    assert prepared.patches == {"": len(wanted)}
    assert len(wanted) > 10
    for patch in open_patch_set(tmp_path / "set"):
        x, y, part = wanted[patch.id]
        sample = patch.read()
        np.testing.assert_array_equal(sample.mask, part)
        assert found.loc[patch.id, "object_fraction"] == pytest.approx(part.mean())
        expected = blocks[y : y + SIZE, x : x + SIZE]
        # The pyramid rounds twice on the way to its third level.
        assert np.abs(sample.image - expected).max() <= 1.5
        assert sample.slide == "tumor_001"


def test_the_manifest_says_all_that_is_needed_to_read_a_patch_again(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path)
    recipe = Recipe(Camelyon16(), mpp=1.3, size_px=90)  # a scale between levels
    cut(recipe, images, outlines, tmp_path / "set")
    found = table(tmp_path / "set")
    assert len(found) > 10
    for id_, row in found.iterrows():
        with open_slide(images / row["slide_file"]) as slide:
            again = slide.read_at(row["x0"], row["y0"], row["mpp"], int(row["size"]))
            assert slide.fingerprint == row["source_hash"]
            assert (slide.width, slide.height) == (row["slide_width"], row["slide_height"])
            assert slide.mpp_x == row["slide_mpp_x"]
        np.testing.assert_array_equal(again, read_image(tmp_path / f"set/images/{id_}.png"))


class Stopped(Exception):
    """What an interruption is here."""


class Impatient(Crew[Bench]):
    """Stops after some jobs."""

    def __init__(self, bench: Bench, jobs: int) -> None:
        self._crew, self._jobs = Alone(bench), jobs

    @property
    def workers(self) -> int:
        return 1

    def map(self, task: Callable[[Bench, Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        for result in self._crew.map(task, items):
            if not self._jobs:
                raise Stopped
            self._jobs -= 1
            yield result

    def close(self) -> None: ...


def contents(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.suffix in (".png", ".parquet", ".toml", ".json")
    }


@pytest.mark.parametrize("jobs", range(6))
def test_an_interrupted_preparation_goes_on_and_ends_alike(tmp_path: Path, jobs: int) -> None:
    images, outlines = camelyon(tmp_path, slides=3)
    splits = Splits.parse("train=2,test=1", seed=4)
    cut(SMALL_PATCHES, images, outlines, tmp_path / "at once", splits=splits)
    crew, out = Impatient(Bench(SMALL_PATCHES), jobs), tmp_path / "in two"
    with pytest.raises(Stopped):
        prepare(crew, SMALL_PATCHES, images, outlines, out, splits=splits)
    for split in ("train", "test"):  # what is there is whole, and no patch is missing from it
        listed = pd.read_parquet(out / split / "patches.parquet")["id"]
        assert all((out / split / "masks" / f"{id_}.png").exists() for id_ in listed)
    seen: list[Progress] = []
    cut(SMALL_PATCHES, images, outlines, out, splits=splits, seen=lambda p: seen.append(p))
    assert contents(out) == contents(tmp_path / "at once")
    assert seen[-1].slides == 3


def test_several_processes_make_the_same_patch_set(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path, slides=3)
    cut(SMALL_PATCHES, images, outlines, tmp_path / "alone")
    with Processes(partial(Bench, SMALL_PATCHES), 2) as crew:
        prepare(crew, SMALL_PATCHES, images, outlines, tmp_path / "two")
    assert contents(tmp_path / "two") == contents(tmp_path / "alone")


def test_a_broken_slide_is_skipped_and_done_when_it_is_mended(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path, slides=3)
    good = (images / "tumor_002.tif").read_bytes()
    (images / "tumor_002.tif").write_bytes(good[: len(good) // 3])
    prepared = cut(SMALL_PATCHES, images, outlines, tmp_path / "set")
    assert len(prepared.failures) == 1
    assert "tumor_002.tif" in prepared.failures[0]
    assert set(table(tmp_path / "set")["slide"]) == {"tumor_001", "tumor_003"}
    assert not list((tmp_path / "set").rglob("tumor_002*"))
    (images / "tumor_002.tif").write_bytes(good)
    assert not cut(SMALL_PATCHES, images, outlines, tmp_path / "set").failures
    assert set(table(tmp_path / "set")["slide"]) == {"tumor_001", "tumor_002", "tumor_003"}


def test_a_slide_that_breaks_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path, slides=2)
    recipe = Recipe(Camelyon16(), mpp=0.25, size_px=100)  # more patches than one job reads
    with tifffile.TiffFile(images / "tumor_001.tif") as file:
        page = file.pages.first
        tile = 2150 // 256 * 13 + 2700 // 256  # below the small lesion: among the last patches
        offset, count = page.dataoffsets[tile], page.databytecounts[tile]
    with (images / "tumor_001.tif").open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    prepared = cut(recipe, images, outlines, tmp_path / "set")
    assert len(prepared.failures) == 1
    assert "tumor_001.tif" in prepared.failures[0]
    assert not list((tmp_path / "set").rglob("tumor_001*"))
    assert len(table(tmp_path / "set")) == len(list((tmp_path / "set/images").iterdir()))


def test_new_annotations_are_cut_again(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path, slides=2)
    cut(SMALL_PATCHES, images, outlines, tmp_path / "set")
    asap(outlines / "tumor_001.xml", ("_0", SMALL))
    cut(SMALL_PATCHES, images, outlines, tmp_path / "set")
    cut(SMALL_PATCHES, images, outlines, tmp_path / "fresh")
    assert contents(tmp_path / "set") == contents(tmp_path / "fresh")


def test_a_folder_of_another_recipe_or_of_something_else_is_refused(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path)
    cut(SMALL_PATCHES, images, outlines, tmp_path / "set")
    before = contents(tmp_path / "set")
    other = Recipe(Camelyon16(), mpp=2.0, size_px=SIZE)
    with pytest.raises(HistoclickError, match=r"mpp 1\.0, asked for is 2\.0"):
        cut(other, images, outlines, tmp_path / "set")
    assert contents(tmp_path / "set") == before
    with pytest.raises(HistoclickError, match="holds something else"):
        cut(SMALL_PATCHES, images, outlines, images)


def test_when_no_slide_can_be_used_it_says_why(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path)
    with pytest.raises(HistoclickError, match=r"0\.25 um/px at its finest.*magnification of 40"):
        cut(Recipe(Camelyon16(), mpp=0.1), images, outlines, tmp_path / "set")
    make_slide(images / "tumor_001.tif", mpp=None)
    with pytest.raises(HistoclickError, match="--mpp"):
        cut(SMALL_PATCHES, images, outlines, tmp_path / "other")
    told = Recipe(Camelyon16(), mpp=1.0, size_px=SIZE, slide_mpp=0.25)
    assert cut(told, images, outlines, tmp_path / "told").patches[""] > 0
    asap(outlines / "tumor_001.xml", ("lymphocytes", SMALL))
    with pytest.raises(HistoclickError, match=r"tumor_001\.xml: no tumour .*'lymphocytes'"):
        cut(told, images, outlines, tmp_path / "third")
    with pytest.raises(HistoclickError, match="none of 1 slides"):
        cut(SMALL_PATCHES, images, tmp_path / "told", tmp_path / "fourth")


def test_camelyon_groups_in_any_order_and_others_told(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path)
    cut(SMALL_PATCHES, images, outlines, tmp_path / "a")
    asap(
        outlines / "tumor_001.xml",
        ("_2", HOLE), ("Tumor", LARGE), ("metastasis", SMALL), ("None", SMALL),
    )  # fmt: skip
    prepared = cut(SMALL_PATCHES, images, outlines, tmp_path / "b")
    assert any("no group" in note or "None" in note for note in prepared.notes)
    masks = [{k: v for k, v in contents(tmp_path / s).items() if "mask" in k} for s in "ab"]
    assert masks[0] == masks[1]


def paip(folder: Path) -> tuple[Path, Path]:
    """A case with XML and with masks of the same; NegativeROA in both layers."""
    make_slide(folder / "01_01_0083.svs")
    whole = [(100, 100), (2800, 120), (2700, 2300), (150, 2200)]
    gap = [(400.3, 1700.7), (700.1, 1720.2), (650.9, 2000.3), (420.2, 1950.1)]  # through no centre
    aperio(
        folder / "01_01_0083.xml",
        [(False, whole), (True, gap)],
        [(False, LARGE), (False, SMALL), (True, HOLE)],
    )
    y, x = np.mgrid[:2400, :3200] + 0.5
    inside = {
        name: contains_xy(Polygon(ring), x.ravel(), y.ravel()).reshape(x.shape)
        for name, ring in (
            ("whole", whole),
            ("gap", gap),
            ("hole", HOLE),
            ("l", LARGE),
            ("s", SMALL),
        )
    }
    masks = {
        "whole": inside["whole"] & ~inside["gap"],
        "viable": (inside["l"] | inside["s"]) & ~inside["gap"] & ~inside["hole"],
    }
    for name, value in (("whole", 1), ("viable", 255)):
        tifffile.imwrite(
            folder / f"01_01_0083_{name}.tif", masks[name].astype(np.uint8) * np.uint8(value)
        )
    return folder, folder


@pytest.mark.parametrize("target", ["viable", "whole"])
def test_paip_from_outlines_and_from_masks_is_the_same(tmp_path: Path, target: str) -> None:
    images, outlines = paip(tmp_path / "paip")
    sets = {}
    for kind in ("xml", "tif"):
        out = tmp_path / kind
        cut(Recipe(Paip2019(target, kind), mpp=0.75, size_px=SIZE), images, outlines, out)
        sets[kind] = {path.name: read_mask(path) for path in (out / "masks").iterdir()}
    assert sets["xml"].keys() == sets["tif"].keys()
    assert len(sets["xml"]) > 2
    for name, mask in sets["xml"].items():
        np.testing.assert_array_equal(mask, sets["tif"][name])


def test_classes_of_a_folder(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path)
    make_slide(images / "alone.tif")
    wanted = Recipe(Folder(("_0", "_1"), ("_2",)), mpp=1.0, size_px=SIZE)
    prepared = cut(wanted, images, outlines, tmp_path / "a")
    cut(SMALL_PATCHES, images, outlines, tmp_path / "b")
    masks = [{k: v for k, v in contents(tmp_path / s).items() if "mask" in k} for s in "ab"]
    assert masks[0] == masks[1]
    assert any("alone: no annotation" in note for note in prepared.notes)
    prepared = cut(Recipe(Folder(("stroma",)), mpp=1.0), images, outlines, tmp_path / "c")
    assert prepared.patches == {"": 0}
    assert not prepared.failures
    assert "no slide has an object of class 'stroma'; there are _0, _1, _2" in prepared.notes


def test_a_mended_order_may_take_the_place_of_one_that_did_nothing(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path)
    make_slide(images / "tumor_001.tif", mpp=None)
    with pytest.raises(HistoclickError, match="--mpp"):
        cut(SMALL_PATCHES, images, outlines, tmp_path / "set")
    told = Recipe(Camelyon16(), mpp=1.0, size_px=SIZE, slide_mpp=0.25)
    assert cut(told, images, outlines, tmp_path / "set").patches[""] > 5


def test_outlines_of_another_slide_are_told(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path, slides=2)
    far = [(x + 9000, y) for x, y in LARGE]
    asap(outlines / "tumor_001.xml", ("_0", far))
    asap(outlines / "tumor_002.xml", ("_0", far), ("_0", SMALL))
    prepared = cut(SMALL_PATCHES, images, outlines, tmp_path / "set")
    assert "all 1 outlines lie outside of the slide (3200x2400 px)" in prepared.failures[0]
    assert any("1 of 2 outlines lie outside" in note for note in prepared.notes)


def test_patches_that_are_lost_or_damaged_are_cut_again(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path, slides=2)
    cut(SMALL_PATCHES, images, outlines, tmp_path / "set")
    before = contents(tmp_path / "set")
    first, second = sorted((tmp_path / "set/images").iterdir())[::12][:2]
    first.unlink()
    second.write_bytes(second.read_bytes()[:200])
    cut(SMALL_PATCHES, images, outlines, tmp_path / "set")
    assert contents(tmp_path / "set") == before


def test_a_slide_that_changed_at_the_same_size_is_cut_again(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path)
    cut(SMALL_PATCHES, images, outlines, tmp_path / "set")
    make_slide(images / "tumor_001.tif", seed=1, mpp=0.26)
    about = (images / "tumor_001.tif").stat()
    os.utime(images / "tumor_001.tif", ns=(about.st_atime_ns, about.st_mtime_ns + 10**9))
    cut(SMALL_PATCHES, images, outlines, tmp_path / "set")
    assert (table(tmp_path / "set")["slide_mpp_x"].round(3) == 0.26).all()


def test_a_slide_that_was_taken_away_is_told(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path, slides=2)
    cut(SMALL_PATCHES, images, outlines, tmp_path / "set")
    (images / "tumor_002.tif").unlink()
    prepared = cut(SMALL_PATCHES, images, outlines, tmp_path / "set")
    assert any("tumor_002: not among the slides any more" in note for note in prepared.notes)


def test_names_that_would_collide_are_refused(tmp_path: Path) -> None:
    images, outlines = camelyon(tmp_path)
    make_slide(images / "again" / "tumor_001.tif")
    with pytest.raises(HistoclickError, match="same name"):
        cut(SMALL_PATCHES, images, outlines, tmp_path / "set")
