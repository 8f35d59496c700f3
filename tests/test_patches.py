from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fakes import make_samples
from histoclick.patches import PatchSet, open_patch_set, read_mask, write_patch_set
from histoclick.types import HistoclickError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    samples = make_samples(3)
    patches = write_patch_set(samples, tmp_path / "set")
    assert patches.has_slides
    for sample, patch in zip(samples, patches, strict=True):
        found = patch.read()
        assert (found.id, found.slide) == (sample.id, sample.slide)
        np.testing.assert_array_equal(found.image, sample.image)
        np.testing.assert_array_equal(found.mask, sample.mask)


def test_a_folder_without_manifest_is_a_patch_set(patch_set: PatchSet) -> None:
    (patch_set.folder / "patches.parquet").unlink()
    found = open_patch_set(patch_set.folder)
    assert [patch.id for patch in found] == [patch.id for patch in patch_set]
    assert not found.has_slides
    assert len({patch.slide for patch in found}) == len(found)


def test_jpeg_images_and_label_masks_are_fine(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (6, 4), "pink").save(tmp_path / "images/a.JPG")
    labels = np.zeros((4, 6), np.uint16)
    labels[1, 2] = 300
    Image.fromarray(labels).save(tmp_path / "masks/a.png")
    sample = next(iter(open_patch_set(tmp_path))).read()
    assert np.argwhere(sample.mask).tolist() == [[1, 2]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16"])
def test_masks_of_every_kind(tmp_path: Path, mode: str) -> None:
    expected = np.zeros((3, 5), bool)
    expected[2, 1:3] = True
    if mode == "I;16":
        picture = Image.fromarray(expected.astype(np.uint16) * 700)
    else:
        picture = Image.fromarray(expected.astype(np.uint8) * 255)
        picture = picture.point(lambda value: int(value > 0)) if mode == "P" else picture
        picture = (
            picture.convert(mode) if mode != "P" else Image.fromarray(np.asarray(picture), "L")
        )
        if mode == "P":
            picture.putpalette([0, 0, 0, 200, 10, 10])
    picture.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), expected)


def test_the_hash_follows_content_and_slides(patch_set: PatchSet, tmp_path: Path) -> None:
    same = write_patch_set(make_samples(5), tmp_path / "again")
    assert same.check() == patch_set.check()
    Image.new("L", (64, 64), 255).save(same.folder / "masks/p01.png")
    assert same.check() != patch_set.check()


def test_split_folders_are_named_with_their_parent(tmp_path: Path) -> None:
    assert write_patch_set(make_samples(1), tmp_path / "lymph" / "val").name == "lymph/val"


def spoil(folder: Path, case: str) -> None:
    image, mask = folder / "images/p02.png", folder / "masks/p02.png"
    rgb = Image.open(image).convert("RGB")
    match case:
        case "no mask":
            mask.unlink()
        case "mask of another size":
            Image.new("L", (64, 63), 255).save(mask)
        case "empty mask":
            Image.new("L", (64, 64), 0).save(mask)
        case "colour mask":
            rgb.save(mask)
        case "16-bit colour":
            import cv2

            cv2.imwrite(str(image), np.full((64, 64, 3), 40_000, np.uint16))
        case "16-bit grey":
            Image.fromarray(np.full((64, 64), 40_000, np.uint16)).save(image)
        case "palette":
            rgb.convert("P").save(image)
        case "alpha":
            rgb.convert("RGBA").save(image)
        case "grey":
            rgb.convert("L").save(image)
        case "truncated":
            image.write_bytes(image.read_bytes()[:-60])
        case "no image at all":
            image.write_bytes(b"<html>not found</html>")
        case "bomb":
            Image.new("1", (20_000, 20_000)).save(image)
        case "no images folder":
            (folder / "images").rename(folder / "pictures")
        case "twice":
            rgb.save(folder / "images/p02.jpg")
        case "broken manifest":
            (folder / "patches.parquet").write_bytes(b"PAR1")


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("no mask", "has no mask"),
        ("mask of another size", "differ in size"),
        ("empty mask", "mask is empty"),
        ("colour mask", "one channel"),
        ("16-bit colour", "16 bits"),
        ("16-bit grey", "8-bit RGB"),
        ("palette", "palette"),
        ("alpha", "alpha"),
        ("grey", "grey"),
        ("truncated", "cut off"),
        ("no image at all", "not a PNG or JPEG"),
        ("bomb", "too large"),
        ("no images folder", "no images/"),
        ("twice", "same patch"),
        ("broken manifest", "parquet"),
    ],
)
def test_bad_patches_are_told_in_one_sentence(
    patch_set: PatchSet, case: str, sentence: str
) -> None:
    spoil(patch_set.folder, case)
    with pytest.raises(HistoclickError, match=sentence) as told:
        open_patch_set(patch_set.folder).check()
    assert "\n" not in str(told.value)
    if case not in ("no images folder", "broken manifest"):
        assert "p02" in str(told.value)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (pd.DataFrame({"id": ["p00", "p01"], "slide": ["a", None]}), "without id or slide"),
        (pd.DataFrame({"id": [], "slide": []}), "lists no patch"),
        (pd.DataFrame({"id": ["p00", "../p01"]}), "has no image"),
        (pd.DataFrame({"name": ["p00"]}), "column 'id'"),
    ],
)
def test_bad_manifests(patch_set: PatchSet, table: pd.DataFrame, sentence: str) -> None:
    table.to_parquet(patch_set.folder / "patches.parquet")
    with pytest.raises(HistoclickError, match=sentence):
        open_patch_set(patch_set.folder)


def test_other_patches_are_not_overwritten(patch_set: PatchSet) -> None:
    with pytest.raises(HistoclickError, match="holds other patches"):
        write_patch_set(make_samples(2), patch_set.folder)
    assert len(open_patch_set(patch_set.folder)) == 5


def test_accents_are_one_name_however_they_are_stored(tmp_path: Path) -> None:
    sample = replace(make_samples(1)[0], id="gru\u0308n")
    folder = write_patch_set([sample], tmp_path).folder
    (folder / "patches.parquet").unlink()
    (folder / "masks/gru\u0308n.png").rename(folder / "masks/gr\u00fcn.png")
    assert [patch.id for patch in open_patch_set(folder)] == ["gr\u00fcn"]


def test_images_of_another_kind_are_named(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    (tmp_path / "images/a.tif").write_bytes(b"")
    with pytest.raises(HistoclickError, match=r"only \.tif files"):
        open_patch_set(tmp_path)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(HistoclickError, match="no such folder"):
        open_patch_set(tmp_path / "nowhere")
