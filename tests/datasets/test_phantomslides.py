"""Files of phantom slides: every program finds the same truth, and nothing is drawn twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
import pytest
import shapely
import tifffile

from histoclick import annotations
from histoclick.datasets.phantomslides import (
    camelyon16,
    write_phantom_slide,
    write_phantom_slides,
)
from histoclick.datasets.slidephantom import PhantomSlide
from histoclick.types import RGB8, HistoclickError

HOLED = 2  # a seed whose tumour has holes


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    slide = PhantomSlide(HOLED, 1000, 900, 1.0)
    return write_phantom_slide(slide, tmp_path_factory.mktemp("slides"))


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Slides are white, which is fast; the list holds the seeds that were drawn."""
    seeds: list[int] = []

    def bands(self: PhantomSlide) -> Iterator[RGB8]:
        seeds.append(self.seed)
        for y in range(0, self.height, 100):
            yield np.full((min(100, self.height - y), self.width, 3), 240, np.uint8)

    monkeypatch.setattr(PhantomSlide, "bands", bands)
    return seeds


def test_a_slide_is_four_files(written: Path) -> None:
    names = sorted(path.name for path in written.parent.iterdir())
    stem = f"phantom-{HOLED:05d}"
    assert names == [f"{stem}.geojson", f"{stem}.tif", f"{stem}.xml", f"{stem}_mask.tif"]


def test_openslide_reads_what_is_drawn_again(written: Path) -> None:
    for file in (written, written.with_name(f"{written.stem}_mask.tif")):
        with openslide.OpenSlide(file) as slide:
            assert slide.level_dimensions == ((1000, 900), (500, 450), (250, 225))
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(1.0)
    with openslide.OpenSlide(written) as slide:
        seen = np.asarray(slide.read_region((0, 0), 0, (1000, 900)))[..., :3]
        assert "not of a patient" in slide.properties["openslide.comment"]
    bands = np.concatenate(list(PhantomSlide(HOLED, 1000, 900, 1.0).bands()))
    assert np.abs(seen.astype(int) - bands).mean() < 6  # JPEG


def test_all_files_tell_the_same_truth(written: Path) -> None:
    slide = PhantomSlide(HOLED, 1000, 900, 1.0)
    mask = np.concatenate(list(slide.masks()))
    assert np.array_equal(tifffile.imread(written.with_name(f"{written.stem}_mask.tif")), mask)

    geojson = annotations.read(written.with_suffix(".geojson"))
    assert not geojson.notes
    for found, drawn in zip(geojson.annotations, slide.truth.annotations, strict=True):
        assert found.label == "Tumor"
        assert shapely.equals_exact(found.shape, drawn.shape)

    xml = annotations.read(written.with_suffix(".xml"))
    assert not xml.notes
    assert {"_2"} < set(xml.labels) <= {"_0", "_1", "_2"}
    y, x = np.mgrid[:900, :1000] + 0.5
    painted = np.zeros((900, 1000), np.uint8)
    for label in ("_0", "_1", "_2"):  # later groups over earlier ones, as ASAP paints
        for annotation in xml.annotations:
            if annotation.label == label:
                painted[shapely.contains_xy(annotation.shape, x, y)] = label != "_2"
    assert np.array_equal(painted, mask)


def test_no_format_loses_anything(tmp_path: Path) -> None:
    slide = PhantomSlide(HOLED, 1000, 900, 1.0)
    assert annotations.write(slide.truth, tmp_path / "a.geojson", "qupath") == []
    assert annotations.write(camelyon16(slide), tmp_path / "a.xml", "asap") == []


def test_large_lesions_and_islands_have_groups_of_their_own() -> None:
    document = camelyon16(PhantomSlide(1, 8000, 8000, 0.5))
    assert set(document.labels) == {"_0", "_1", "_2"}
    um2 = {label: [] for label in document.labels}
    for annotation in document.annotations:
        um2[annotation.label].append(annotation.shape.area / 4)
    assert min(um2["_0"]) >= 250_000 > min(um2["_1"])


def test_finished_slides_are_not_drawn_again(tmp_path: Path, blank: list[int]) -> None:
    rows: list[int] = []
    files = write_phantom_slides(tmp_path, 2, seed=4, width=900, height=800, mpp=1.0)
    assert [file.name for file in files] == ["phantom-00004.tif", "phantom-00005.tif"]
    assert blank == [4, 5]
    files += write_phantom_slides(
        tmp_path, 2, seed=5, width=900, height=800, mpp=1.0, progress=rows.append
    )
    assert blank == [4, 5, 6]
    assert sum(rows) == 2 * 800


def test_a_cut_off_slide_is_drawn_again(tmp_path: Path, blank: list[int]) -> None:
    def cut(rows: int) -> None:
        raise KeyboardInterrupt

    slide = PhantomSlide(4, 900, 800, 1.0)
    with pytest.raises(KeyboardInterrupt):
        write_phantom_slide(slide, tmp_path, cut)
    assert not (tmp_path / "phantom-00004.tif").exists()
    file = write_phantom_slide(slide, tmp_path)
    whole = write_phantom_slide(slide, tmp_path / "other")
    assert blank == [4, 4, 4]
    assert file.read_bytes() == whole.read_bytes()
    assert len(list(tmp_path.iterdir())) == 5  # with the other folder


@pytest.mark.parametrize("there", [b"", b"no TIFF at all", None])
def test_another_slide_of_that_name_is_kept(
    tmp_path: Path, blank: list[int], there: bytes | None
) -> None:
    file = tmp_path / "phantom-00004.tif"
    if there is None:
        write_phantom_slide(PhantomSlide(4, 900, 900, 1.0), tmp_path)
    else:
        file.write_bytes(there)
    before = file.read_bytes()
    with pytest.raises(HistoclickError, match="is not the slide asked for"):
        write_phantom_slide(PhantomSlide(4, 900, 800, 1.0), tmp_path)
    assert file.read_bytes() == before


def test_no_slides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HistoclickError, match="0 slides"):
        write_phantom_slides(tmp_path, 0)
