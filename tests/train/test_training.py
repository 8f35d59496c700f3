"""``histoclick train`` as a user types it."""

from __future__ import annotations

import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from fakes import make_samples
from histoclick import cli
from histoclick.models import registry
from histoclick.patches import write_patch_set
from histoclick.train import training
from histoclick.trajectory import trajectory
from histoclick.types import Sample


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    """Train and validation, of other slides."""
    samples = make_samples(5, 64)
    renamed = [Sample(f"v-{s.id}", s.image, s.mask, f"v-{s.slide}") for s in samples[:2]]
    return (
        write_patch_set(samples, tmp_path / "data/train").folder,
        write_patch_set(renamed, tmp_path / "data/val").folder,
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def command(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["histoclick", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out + printed.err

    return command


def words(sets: tuple[Path, Path], out: Path) -> list[object]:
    return [
        "train", "--base", "histoclick-tiny", "--scenario", "whole", "--data", sets[0], "--val",
        sets[1], "--out", out, "--epochs", 2, "--batch", 3, "--rate", 1e-4, "--set", "crop_px=64",
        "--set", "next_clicks=1", "--device", "cpu", "--threads", 1,
    ]  # fmt: skip


def test_a_model_is_trained_shown_and_evaluated(
    run, sets: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    code, told = run(*words(sets, out))
    assert code == 0, told
    card, _ = registry.find(out)
    assert card.id == "mine"
    assert card.training["base"] == "histoclick-tiny"
    assert card.training["scenario"] == "whole"
    assert card.training["patches"] == 5
    assert card.training["settings"]["rate"] == 1e-4
    assert card.measured[0]["dataset"] == "data/val"
    assert card.trained_on[-1].startswith("data/train: 5 patches")
    assert not card.default
    work = out / "training"
    assert {path.name for path in work.iterdir()} >= {
        "settings.toml", "log.csv", "validation.csv", "curve.png", "batch.png", "slides.json",
    }  # fmt: skip
    assert not (work / "checkpoint.pt").exists()
    assert len(pd.read_csv(work / "log.csv")) == 4
    assert len(pd.read_csv(work / "validation.csv")) == 2
    assert tomllib.loads((work / "settings.toml").read_text())["settings"]["epochs"] == 2

    code, told = run("models", "show", out)
    assert code == 0
    assert "noc85" in told
    assert str(work / "curve.png") in told
    code, told = run("evaluate", "--model", out, "--data", sets[1], "--out", tmp_path / "run")
    assert code == 0, told
    code, told = run("report", tmp_path / "run", "--out", tmp_path / "page")
    assert code == 0, told
    assert "of its training" in (tmp_path / "page/index.html").read_text()
    code, told = run("evaluate", "--model", out, "--data", sets[0], "--out", tmp_path / "leak")
    assert code == 2
    assert "trained on" in told
    assert "--shared-slides" in told
    again = ["evaluate", "--model", out, "--data", sets[0], "--out", tmp_path / "leak"]
    assert run(*again, "--shared-slides", "--max-clicks", 1)[0] == 0
    code, told = run(*words(sets, out))
    assert code == 2
    assert "holds a finished model" in told


def test_sessions_make_the_same_model_as_one(run, sets: tuple[Path, Path], tmp_path: Path) -> None:
    assert run(*words(sets, tmp_path / "whole"))[0] == 0
    out = tmp_path / "parts"
    code, told = run(*words(sets, out), "--session", 1e-6)
    assert code == 0, told
    assert "--resume" in told
    assert not (out / "card.toml").exists()
    code, told = run(*words(sets, out))
    assert code == 2
    assert "--resume" in told
    other = words(sets, out)
    other[other.index(1e-4)] = 1e-3
    code, told = run(*other, "--resume")
    assert code == 2
    assert "other settings" in told
    assert run(*words(sets, out), "--resume")[0] == 0
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "parts"))
    assert all((one[name] == two[name]).all() for name in one)


def test_a_validation_that_was_cut_goes_on(
    run, sets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def click(segmenter: object, sample: Sample, most: int) -> object:
        asked.append(sample.id)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return trajectory(segmenter, sample, most)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "trajectory", click)
    with suppress(KeyboardInterrupt):  # the command line may turn it into an exit code
        run(*words(sets, tmp_path / "cut"))
    assert not (tmp_path / "cut/card.toml").exists()
    assert run(*words(sets, tmp_path / "cut"), "--resume")[0] == 0
    cut, asked = asked, ["", ""]
    assert run(*words(sets, tmp_path / "whole"))[0] == 0
    assert cut[2:] == asked[3:]  # the first patch was not asked again
    one, two = (registry.find(tmp_path / name)[0] for name in ("cut", "whole"))
    assert one.measured[0] == two.measured[0]
    assert one.sha256 == two.sha256


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--set", "nonsense=1"], "unknown key nonsense"),
        (["--set", "ema"], "give a key and a value"),
        (["--set", "milestones=3"], "milestones is 3"),
        (["--epochs", 0], "epochs must be 1"),
        (["--rate", -1], "rate must be above 0"),
        (["--scenario", "md2"], "no scenario 'md2'"),
        (["--base", "discs"], "cannot be trained"),
        (["--base", "unknown"], "unknown model"),
        (["--data", "nowhere"], "no such folder"),
        (["--checkpointing"], "cannot use --checkpointing"),
    ],
)
def test_wrong_use_is_told(
    run, sets: tuple[Path, Path], tmp_path: Path, extra: list[object], sentence: str
) -> None:
    code, told = run(*words(sets, tmp_path / "out"), *extra)
    assert code == 2, told
    assert sentence in told
    assert not (tmp_path / "out/card.toml").exists()


def test_slides_in_train_and_validation_are_refused(
    run, sets: tuple[Path, Path], tmp_path: Path
) -> None:
    order = words((sets[0], sets[0]), tmp_path / "out")
    code, told = run(*order)
    assert code == 2
    assert "slides are in both" in told
    assert run(*order, "--shared-slides", "--epochs", 1)[0] == 0


def test_patches_that_teach_nothing_are_refused(run, tmp_path: Path) -> None:
    sample = make_samples(1, 64)[0]
    whole = Sample("whole", sample.image, sample.mask | True, "s")
    folder = write_patch_set([whole], tmp_path / "set").folder
    code, told = run(*words((folder, folder), tmp_path / "out"), "--shared-slides")
    assert code == 2
    assert "everything is object" in told
