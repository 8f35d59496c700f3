"""What the README claims of the built-in model, and the script that measures it."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes import FakeEncoded, FakeSegmenter, make_samples
from histoclick import metrics
from histoclick.evaluate import Protocol, evaluate
from histoclick.models.card import read_card
from histoclick.models.registry import find, load
from histoclick.patches import PatchSet, open_patch_set, write_patch_set
from histoclick.report.records import read_run
from histoclick.trajectory import trajectory
from histoclick.types import Prediction, Prompt

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
    monkeypatch.setenv("HISTOCLICK_SHARED", str(tmp_path))
    (model / "card.toml").write_bytes((find("discs")[1] / "card.toml").read_bytes())
    arguments = [tmp_path / "data", "--out", tmp_path / "runs", "--models", model]
    arguments += ["--write-card", model]
    monkeypatch.setattr(sys, "argv", ["quality.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "benchmarks/quality.py"), run_name="__main__")
    (line,) = read_card(model).measured
    assert line["patches"] == 2
    assert line["dataset"] == "discs-of-paint/val"
    assert 1 <= line["noc80"] <= 20
    folder = "$HISTOCLICK_SHARED/data/discs-of-paint/val"
    assert line["command"] == f"histoclick evaluate --model discs --data {folder} --out run"
    text = (tmp_path / "runs/quality.md").read_text()
    assert (
        f"`python benchmarks/quality.py $HISTOCLICK_SHARED/data --out RUNS --models {model}`"
        in text
    )
    assert "discs-of-paint/val 2 patches of 1 slides" in text
    rows = [each.split(" | ") for each in text.splitlines() if " | discs | " in each]
    assert [row[0] for row in rows] == ["| NoC@85", "| NoC@90", "| NoF/n@85", "| Harm"]
    assert float(rows[0][2].strip(" |")) == line["noc85"]
    assert "sure" not in line
    assert float(rows[2][2].strip(" |")) == line["nof85"] / 2
    assert "how good they are" not in text  # discs say nothing of themselves


def test_what_models_say_of_their_masks_is_held_against_them(tmp_path: Path) -> None:
    """Two patches; the last click of one was not judged."""
    script = runpy.run_path(str(ROOT / "benchmarks/quality.py"))
    segmenter = Boasting((0.95, 0.5, None))
    patches = write_patch_set(make_samples(2), tmp_path / "set")
    card = {"id": "boasting", "sha256": ""}
    evaluate(segmenter, patches, tmp_path / "run", model=card, machine={}, protocol=Protocol(3))
    run = read_run(tmp_path / "run")
    assert np.isnan(run.qualities[:, 2]).all()
    run = replace(run, ious=np.array([[0.9, 0.3, 0.4], [0.8, 0.86, 0.9]]))
    (row,) = script["calibration"]([run]).rows
    wrong = [abs(said - ious[i]) for ious in run.ious for i, said in enumerate((0.95, 0.5))]
    name, clicks, error, bias, sure, right, stopped = (cell.value for cell in row)
    assert (name, clicks, sure) == ("boasting", "4", "50 %")
    assert float(error) == pytest.approx(np.mean(wrong), abs=5e-4)
    assert float(bias) == pytest.approx(0.725 - run.ious[:, :2].mean(), abs=5e-4)
    assert (float(right), stopped) == (0.5, "1 of 2")
    line = script["measured"](run, tmp_path / "set")
    assert (line["sure"], line["sure_right"]) == (2, 1)


class Boasting(FakeSegmenter):
    """It says the same of its first, second and third mask, whatever they are."""

    def __init__(self, said: tuple[float | None, ...]) -> None:
        self.said = said

    def predict(
        self, encoded: FakeEncoded, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        answer = super().predict(encoded, prompt, previous)
        return replace(answer, quality=self.said[len(prompt.clicks) - 1])
