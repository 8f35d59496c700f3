"""What the README claims of the built-in model, and the script that measures it."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from fakes import make_samples
from histoclick import metrics
from histoclick.models.card import read_card
from histoclick.models.registry import find, load
from histoclick.patches import PatchSet, open_patch_set, write_patch_set
from histoclick.trajectory import trajectory

ROOT = Path(__file__).parents[1]
TARGETS = (0.80, 0.85)


def curves(model: str, patches: PatchSet) -> np.ndarray:
    """(patches, 20) IoU after every click."""
    found = np.full((len(patches), 20), np.nan)
    segmenter = load(model)
    for row, patch in zip(found, patches, strict=True):
        for i, step in enumerate(trajectory(segmenter, patch.read(), 20)):
            row[i] = step.iou
    return metrics.held(found)


def test_two_clicks_on_lymph_node_beat_guessing(shared: Path) -> None:
    patches = open_patch_set(shared / "data/histology/redistributable/camelyon/val").first(3)
    ours, discs = (curves(model, patches) for model in ("histoclick-tiny", "discs"))
    assert metrics.noc(ours, 0.8, 20) < 0.5 * metrics.noc(discs, 0.8, 20)


@pytest.mark.slow
def test_fewer_clicks_than_the_baselines(shared: Path) -> None:
    """On every set where anybody reaches the target at all."""
    folders = [path.parent for path in sorted(shared.glob("data/histology/*/*/val/images"))]
    assert len(folders) >= 9
    for folder in folders:
        patches = open_patch_set(folder)
        ours, *others = (curves(m, patches) for m in ("histoclick-tiny", "discs", "nearest-colour"))
        for target in TARGETS:
            best = min(metrics.noc(other, target, 20) for other in others)
            reached = metrics.nof(ours, target, 20) < len(patches)
            assert metrics.noc(ours, target, 20) < best or (not reached and best == 20), folder


def test_the_script_measures_and_writes_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_patch_set(make_samples(2), tmp_path / "data/discs-of-paint/val")
    model = tmp_path / "mine"
    model.mkdir()
    (model / "card.toml").write_bytes((find("discs")[1] / "card.toml").read_bytes())
    arguments = [tmp_path / "data", "--out", tmp_path / "runs", "--models", model]
    arguments += ["--write-card", model]
    monkeypatch.setattr(sys, "argv", ["quality.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "benchmarks/quality.py"), run_name="__main__")
    (line,) = read_card(model).measured
    assert line["patches"] == 2
    assert line["dataset"] == "discs-of-paint/val"
    assert 1 <= line["noc80"] <= 20
