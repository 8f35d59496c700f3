"""What is said of slides that no test file has: with a source that is made up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from histoclick.geometry import Rect
from histoclick.slides import Facts, Slide, describe, problems
from histoclick.types import RGB8, HistoclickError


@dataclass
class Grey:
    """Everything is grey; it remembers which levels were read."""

    facts: Facts
    sizes: tuple[tuple[int, int], ...] = ((1000, 800),)

    def __post_init__(self) -> None:
        self.read_levels: list[int] = []

    def read(self, level: int, x: int, y: int, width: int, height: int) -> RGB8:
        within = self.sizes[level]
        assert 0 <= x < x + width <= within[0]
        assert 0 <= y < y + height <= within[1]
        self.read_levels.append(level)
        return np.full((height, width, 3), 128, np.uint8)

    def close(self) -> None:
        pass


def slide_of(source: Grey, mpp: float | None = None) -> Slide:
    path = Path("x.svs")
    return Slide(path, source, lambda: slide_of(source, mpp), mpp)


def test_objective_power_suggests_the_microns() -> None:
    slide = slide_of(Grey(Facts("aperio", objective_power=20)))
    with pytest.raises(HistoclickError) as caught:
        slide.read_at(0, 0, 2, 10)
    assert str(caught.value) == (
        "x.svs: does not say its microns per pixel (its objective power of 20 suggests 0.5); give "
        "--mpp 0.5"
    )
    assert problems(slide) == [slide.question]
    assert problems(slide_of(Grey(Facts("aperio", objective_power=20)), mpp=0.5)) == []


def test_bounds_are_told() -> None:
    bounds = Rect(100, 50, 400, 300)
    slide = slide_of(Grey(Facts("mirax", 0.25, 0.25, 40, bounds=bounds)))
    assert slide.bounds == bounds
    assert "smaller by (100, 50)" in problems(slide)[0]
    assert slide_of(Grey(Facts("mirax", 0.25, 0.25))).bounds == Rect(0, 0, 1000, 800)


def test_contradictions_within_a_file_are_told() -> None:
    assert "do not go with" in problems(slide_of(Grey(Facts("aperio", 0.25, 0.25, 20))))[0]
    assert problems(slide_of(Grey(Facts("aperio", 0.499, 0.499, 20)))) == []
    assert "not square" in problems(slide_of(Grey(Facts("tiff", 0.5, 0.25))))[0]


def test_facts_for_scripts(tmp_path: Path) -> None:
    path = tmp_path / "x.svs"
    path.write_bytes(b"12345")
    facts = Facts("aperio", 0.5, 0.5, 20, quickhash="abc", icc=b"x", associated=("label",))
    sizes = ((1001, 801), (250, 200), (62, 50))
    source = Grey(facts, sizes)
    assert describe(Slide(path, source, lambda: slide_of(source))) == {
        "format": "aperio",
        "width": 1001,
        "height": 801,
        "levels": [
            {"width": 1001, "height": 801, "downsample": 1},
            {"width": 250, "height": 200, "downsample": 4},
            {"width": 62, "height": 50, "downsample": 16},
        ],
        "mpp_x": 0.5,
        "mpp_y": 0.5,
        "objective_power": 20,
        "bounds": [0, 0, 1001, 801],
        "icc_profile": True,
        "associated": ["label"],
        "bytes": 5,
        "fingerprint": "quickhash-1:abc",
    }


@pytest.mark.parametrize(
    ("sizes", "downsamples"),
    [
        (((46000, 32914), (11500, 8228), (2875, 2057)), [4, 16]),  # an Aperio slide
        (((97792, 221184), (48896, 110592), (512, 1158)), [2, 191]),  # cut to 512 px: whole enough
        (((1000, 800), (333, 266)), [3]),
        (((1001, 801), (501, 401), (251, 201)), [2, 4]),  # rounded up
        (((1000, 800), (400, 320)), [2.5]),
        (((1000, 800), (900, 700)), []),  # cropped, no level
        (((1000, 800), (1000, 800)), [1]),
    ],
)
def test_downsamples(sizes, downsamples) -> None:
    slide = slide_of(Grey(Facts("tiff"), sizes))
    assert [level.downsample for level in slide.levels[1:]] == pytest.approx(downsamples)


def test_reads_stay_within_the_level() -> None:
    """Whatever is asked for, a source is asked only for what it has."""
    source = Grey(Facts("tiff"), ((1001, 803), (500, 401), (125, 100)))
    slide = slide_of(source)
    rng = np.random.default_rng(0)
    for scale in (0.3, 1, 1.7, 2, 3, 8, 8.1, 30):
        for x0, y0 in rng.uniform(-300, 1200, (40, 2)):
            read = slide.read(Rect(x0, y0, 20 * scale, 10 * scale), 20, 10)
            assert read.min() >= 128
    assert set(source.read_levels) == {0, 1, 2}
    assert (slide.read(Rect(0, 0, 1001, 803), 100, 80) == 128).all()


def test_an_ocean_of_white_costs_nothing() -> None:
    source = Grey(Facts("tiff"))
    read = slide_of(source).read(Rect(-1e9, -1e9, 2e9, 2e9), 4, 4)
    assert read.min() >= 254
    assert (slide_of(source).read(Rect(5000, 0, 1e9, 1e9), 40, 40) == 255).all()
