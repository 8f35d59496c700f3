"""Folders as people have them: whole, cut, mixed up."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from histoclick.datasets.camelyon16_folder import PARTLY_ANNOTATED
from histoclick.datasets.checkup import check_folder
from histoclick.datasets.inventory import Inventory
from histoclick.datasets.paip2019_folder import STEPS
from histoclick.types import HistoclickError


def tiff(path: Path, width: int = 96, height: int = 64, levels: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(0).integers(0, 255, (height, width), np.uint8)
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            file.write(picture[:: 2**level, :: 2**level], tile=(32, 32), photometric="minisblack")


def text(path: Path, content: str = "<a/>") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.fixture
def camelyon(tmp_path: Path) -> Path:
    for case in ("normal_001", "tumor_010", "test_001"):
        tiff(tmp_path / f"images/{case}.tif")
        tiff(tmp_path / f"masks/{case}_mask.tif")
    for case in ("tumor_010", "test_001"):
        text(tmp_path / f"annotations/{case}.xml")
    text(tmp_path / ".histoclick-fetch.json")
    text(tmp_path / "checksums.md5")
    tiff(tmp_path / "background_tissue/tumor_010_tissue.tif", 12, 8)
    return tmp_path


@pytest.fixture
def paip(tmp_path: Path) -> Path:
    for case in ("01_01_0083", "01_01_0085"):
        folder = tmp_path / f"Training_phase_1_{case[-3:]}"
        tiff(folder / f"{case}{'.svs' if case[-1] == '3' else '.SVS'}")
        text(folder / f"{case}.xml")
        for kind in ("whole", "viable"):
            tiff(folder / f"{case}_{kind}.tif", levels=1)
    tiff(tmp_path / "test/01_01_0200.svs")
    return tmp_path


def check(folder: Path) -> Inventory:
    (inventory,) = check_folder(folder)
    return inventory


def problem(folder: Path) -> str:
    (only,) = check(folder).problems
    return only


class TestWhole:
    def test_camelyon(self, camelyon: Path) -> None:
        inventory = check(camelyon)
        assert inventory.problems == []
        size = sum(path.stat().st_size for path in camelyon.glob("[aim]*/*"))
        assert inventory.facts == {
            "data_set": "CAMELYON16", "cases": 3, "slides": 3, "annotations": 2, "masks": 3,
            "bytes": size, "not_fully_annotated": ["tumor_010"],
            "names": ["normal_001", "test_001", "tumor_010"],
        }  # fmt: skip

    def test_paip(self, paip: Path) -> None:
        inventory = check(paip)
        assert inventory.problems == []
        facts = inventory.facts
        assert [facts[k] for k in ("data_set", "cases", "slides", "annotations")] == [
            "PAIP2019", 3, 3, 2,
        ]  # fmt: skip
        assert (facts["whole masks"], facts["viable masks"]) == (2, 2)

    def test_as_gigadb_and_the_challenge_sorted_it(self, tmp_path: Path) -> None:
        tiff(tmp_path / "TrainingData/Train_Tumor/Tumor_001.tif")
        text(tmp_path / "TrainingData/Ground_Truth/XML/Tumor_001.xml")
        tiff(tmp_path / "TrainingData/Ground_Truth/Mask/Tumor_001_Mask.tif")
        assert check(tmp_path).problems == []
        assert check(tmp_path).facts["names"] == ["tumor_001"]

    def test_masks_alone_are_outlines_too(self, camelyon: Path) -> None:
        (camelyon / "annotations/tumor_010.xml").unlink()
        assert check(camelyon).problems == []

    def test_both_in_one_folder(self, camelyon: Path, paip: Path) -> None:
        assert camelyon == paip
        titles = [inventory.facts["data_set"] for inventory in check_folder(paip)]
        assert titles == ["CAMELYON16", "PAIP2019"]

    def test_other_folders(self, tmp_path: Path) -> None:
        text(tmp_path / "a.svs")
        assert check_folder(tmp_path) == []
        with pytest.raises(HistoclickError, match="no such folder"):
            check_folder(tmp_path / "none")

    def test_what_the_steps_name_is_recognised(self, tmp_path: Path) -> None:
        names = [word for word in STEPS.split() if word.startswith("01_01_0083")]
        assert len(names) == 4
        for name in names:
            text(tmp_path / name) if name.endswith(".xml") else tiff(tmp_path / name)
        assert check(tmp_path).problems == []
        assert len(PARTLY_ANNOTATED) == 21


class TestWrong:
    """Each alone is told in one line; the rest stays quiet."""

    @pytest.mark.parametrize(
        ("gone", "told"),
        [
            ("annotations/tumor_010.xml masks/tumor_010_mask.tif", "tumor_010: slide without ann"),
            ("images/tumor_010.tif", "tumor_010: annotation and mask without slide; run: histoc"),
            ("images/normal_001.tif", "normal_001: mask without slide; run: histoclick fetch cam"),
        ],
    )
    def test_parts_of_camelyon(self, camelyon: Path, gone: str, told: str) -> None:
        for name in gone.split():
            (camelyon / name).unlink()
        assert problem(camelyon).startswith(told)

    @pytest.mark.parametrize(
        ("gone", "told"),
        [
            (["083/01_01_0083.svs"], "annotation and viable mask and whole mask without slide"),
            (["083/01_01_0083.xml"], "incomplete; add 01_01_0083.xml"),
            (["083/01_01_0083_viable.tif"], "incomplete; add 01_01_0083_viable.tif"),
            (["083/01_01_0083_viable.tif", "083/01_01_0083_whole.tif"], ""),
        ],
    )
    def test_parts_of_paip(self, paip: Path, gone: list[str], told: str) -> None:
        for name in gone:
            (paip / f"Training_phase_1_{name}").unlink()
        assert check(paip).problems == [] if not told else told in problem(paip)

    def test_cut_downloads(self, camelyon: Path) -> None:
        text(camelyon / "images/tumor_002.tif.partial")
        text(camelyon / "images/tumor_002.tif.partial.version")
        text(camelyon / "images/tumor_010.tif.wrong")
        assert problem(camelyon) == (
            "images/tumor_002.tif.partial: a download that was cut; fetch it again to go on"
        )

    def test_only_a_cut_download(self, tmp_path: Path) -> None:
        text(tmp_path / "tumor_002.tif.crdownload")
        assert "a download that was cut" in problem(tmp_path)

    def test_empty_files(self, camelyon: Path) -> None:
        text(camelyon / "annotations/tumor_010.xml", "")
        assert problem(camelyon) == "annotations/tumor_010.xml: is empty; fetch it again"

    @pytest.mark.parametrize("keep", [0.999, 0.5, 0.1, 0.001])
    def test_cut_slides(self, camelyon: Path, keep: float) -> None:
        path = camelyon / "images/normal_001.tif"
        content = path.read_bytes()
        path.write_bytes(content[: max(1, int(keep * len(content)))])
        assert problem(camelyon).startswith("images/normal_001.tif: ")

    def test_a_page_of_the_server_instead_of_the_slide(self, camelyon: Path) -> None:
        text(camelyon / "images/normal_001.tif", "<html>Not found</html>")
        assert problem(camelyon) == "images/normal_001.tif: is no TIFF; fetch it again"

    def test_damage_of_any_kind_is_a_sentence(self, tmp_path: Path) -> None:
        path = tmp_path / "tumor_001.tif"
        tiff(path)
        text(tmp_path / "tumor_001.xml")
        content, rng = path.read_bytes(), np.random.default_rng(0)
        found = set()
        for _ in range(300):
            damaged = np.frombuffer(content, np.uint8).copy()
            damaged[rng.integers(0, len(content), 30)] = rng.choice([0, 1, 127, 255], 30)
            path.write_bytes(
                damaged[: rng.integers(1, len(damaged)) if rng.random() < 0.2 else None]
            )
            found |= {len(check(tmp_path).problems)}
        assert found == {0, 1}

    def test_masks_of_another_size(self, camelyon: Path) -> None:
        tiff(camelyon / "masks/tumor_010_mask.tif", 64, 64)
        assert problem(camelyon).startswith(
            "tumor_010: its mask has 64x64 px and its slide 96x64; they do not belong together"
        )

    @pytest.mark.parametrize("twin", ["images/Tumor_010.TIF", "copy/tumor_010.tif"])
    def test_twice_the_same(self, camelyon: Path, twin: str) -> None:
        (camelyon / twin).parent.mkdir(exist_ok=True)
        shutil.copy(camelyon / "images/tumor_010.tif", camelyon / twin)
        told = problem(camelyon)
        assert told.startswith("tumor_010: 2 files are its slide (")
        assert twin in told

    def test_links_in_a_circle(self, camelyon: Path) -> None:
        (camelyon / "images/again").symlink_to(camelyon)
        (camelyon / "images/tumor_003.tif").symlink_to(camelyon / "nowhere")
        assert check(camelyon).problems == []

    def test_folders_without_end(self, camelyon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("histoclick.datasets.inventory.MAX_FILES", 5)
        with pytest.raises(HistoclickError, match="holds more than 5 files"):
            check_folder(camelyon)


@pytest.mark.parametrize(
    ("name", "problems"),
    [
        ("CMU-1-Small-Region.svs", 0),
        ("small_16x16.svs", 0),
        ("broken.svs", 1),
        ("sm_image_50x50.dcm", 1),
    ],
)
def test_real_files(shared: Path, tmp_path: Path, name: str, problems: int) -> None:
    shutil.copy(shared / "data/slides" / name, tmp_path / "01_01_0083.svs")
    found = check(tmp_path).problems
    assert len(found) == problems, found
