"""A gigapixel slide: counts, fractions and pixels against the truth it was drawn from."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
import tifffile

from histoclick import cli
from histoclick.datasets.phantomslides import write_phantom_slides
from histoclick.patches import read_image, read_mask

SIZE = 400


def verify(slide: Path, out: Path, scale: int) -> int:
    """Compare with the mask file pixel by pixel, and with what OpenSlide reads; returns the number
    of patches. ``scale``: px of level 0 per px of a patch."""
    with tifffile.TiffFile(slide.with_name(f"{slide.stem}_mask.tif")) as file:
        truth = file.pages.first.asarray()
    # A pixel belongs to a patch's object when its centre does: the corner of four pixels of level 0
    # for an even scale, so these are allowed to differ there.
    table = pd.read_parquet(out / "patches.parquet").set_index("id")
    side, seen = SIZE * scale, 0
    opened = openslide.OpenSlide(slide)
    for y in range(0, truth.shape[0] - side + 1, side):
        for x in range(0, truth.shape[1] - side + 1, side):
            part = truth[y : y + side, x : x + side]
            share = float(part.mean())
            id_ = f"{slide.stem}_x{x}_y{y}"
            if id_ not in table.index:
                assert not 0.205 < share < 0.795, (id_, share)
                continue
            assert 0.195 < share < 0.805, (id_, share)
            seen += 1
            assert table.loc[id_, "object_fraction"] == pytest.approx(share, abs=0.004)
            mask = read_mask(out / "masks" / f"{id_}.png")
            blocks = part.reshape(SIZE, scale, SIZE, scale).mean(axis=(1, 3))
            clear = (blocks == 0) | (blocks == 1)
            np.testing.assert_array_equal(mask[clear], blocks[clear] > 0.5)
            image = read_image(out / "images" / f"{id_}.png")
            level = opened.get_best_level_for_downsample(scale + 0.01)
            read = opened.read_region((x, y), level, (SIZE, SIZE)).convert("RGB")
            np.testing.assert_array_equal(image, np.asarray(read))
    opened.close()
    assert seen == len(table)
    return seen


@pytest.mark.slow
def test_a_slide_of_30000_px(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slides = tmp_path / "slides"
    (slide,) = write_phantom_slides(slides, 1, seed=1, width=30_000, height=30_000)
    for magnification, scale, least in ((10, 4, 20), (40, 1, 150)):
        out = tmp_path / f"x{magnification}"
        words = ["prepare", "camelyon16", "--slides", slides, "--annotations", slides, "--out", out]
        words += ["--magnification", magnification, "--tissue-fraction", 0]
        monkeypatch.setattr(sys, "argv", ["histoclick", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        assert verify(slide, out, scale) >= least
