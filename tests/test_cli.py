"""The commands as a user types them."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import torch

from fakes import make_samples
from histoclick import cli
from histoclick.models import registry
from histoclick.patches import PatchSet, write_patch_set


class Outcome:
    """Exit code and output of one command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HISTOCLICK_HOME", str(tmp_path / "home"))

    def command(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["histoclick", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), printed.out, printed.err)

    return command


def test_evaluate_and_report(run, patch_set: PatchSet, tmp_path: Path) -> None:
    arguments = ["--data", patch_set.folder, "--max-clicks", 3, "--threads", 1]
    for model in ("histoclick-tiny", "discs"):
        done = run("evaluate", "--model", model, "--out", tmp_path / model, *arguments)
        assert done.code == 0, done.err
        assert pd.read_parquet(tmp_path / model / "clicks.parquet")["patch"].nunique() == 5
    told = run(
        "report", tmp_path / "histoclick-tiny", tmp_path / "discs", "--out", tmp_path / "page",
        "--baseline", tmp_path / "discs",
    )  # fmt: skip
    assert told.code == 0, told.err
    assert "NoC@85" in told.out
    assert (tmp_path / "page/index.html").exists()


def test_users_and_starts_stand_in_the_protocol_card(
    run, patch_set: PatchSet, tmp_path: Path
) -> None:
    words = ["evaluate", "--data", patch_set.folder, "--model", "discs", "--max-clicks", 2]
    first = run(*words, "--out", tmp_path / "first", "--predictions")
    assert first.code == 0, first.err
    cards = {}
    for name, options in {
        "first": [],
        "shaken": ["--jitter", 2.5, "--click-rule", "inner", "--seed", 7],
        "spoilt": ["--start", "corrupted", "--seed", 7],
        "again": ["--start", tmp_path / "first/predictions", "--batch", 4],
    }.items():
        done = run(*words, "--out", tmp_path / name, *options)
        assert done.code == 0, done.err
        cards[name] = tomllib.loads((tmp_path / name / "run.toml").read_text())
    rules = {name: card["protocol"]["click_rule"] for name, card in cards.items()}
    assert rules["first"] == rules["spoilt"] == rules["again"]
    assert rules["shaken"].startswith("anywhere at least half as deep")
    assert rules["shaken"].endswith("shakes by 2.5 px; seed 7")
    starts = {name: card["protocol"]["start"] for name, card in cards.items()}
    assert starts["first"] == starts["shaken"] == "nothing"
    assert starts["spoilt"] == "the annotation, spoilt to IoU 0.5 to 0.8; seed 7"
    assert starts["again"] == "masks from a folder"
    machine = cards["again"]["machine"]
    assert (machine["device"], machine["workers"], machine["batch"]) == ("cpu", 1, 1)


def test_untrained_weights_are_announced(run, patch_set: PatchSet, tmp_path: Path) -> None:
    card, _ = registry.find("discs")
    random = tmp_path / "random"
    random.mkdir()
    dataclasses.replace(card, id="random", untrained=True).write(random)
    words = ["--data", patch_set.folder, "--limit", 2, "--max-clicks", 2, "--strips", 0]
    done = run("evaluate", "--model", random, "--out", tmp_path / "r", *words)
    assert "random has untrained weights" in done.out
    told = run("report", tmp_path / "r", "--out", tmp_path / "page")
    assert "random (untrained weights)" in told.out


def test_a_cluster_without_ray_says_what_to_install(
    run, patch_set: PatchSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["evaluate", "--data", patch_set.folder, "--model", "discs", "--out", tmp_path / "run"]
    outcome = run(*words, "--ray", "auto")
    assert outcome.code == 2
    assert "pip install 'histoclick[ray]'" in outcome.err


def test_out_of_memory_is_one_sentence(
    run, patch_set: PatchSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predict(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("histoclick.models.baselines.Discs.predict", predict)
    words = ["evaluate", "--data", patch_set.folder, "--model", "discs", "--out", tmp_path / "run"]
    outcome = run(*words)
    assert outcome.code == 2
    assert "smaller --batch" in outcome.err.splitlines()[-1]


def test_demo(run, tmp_path: Path) -> None:
    done = run("demo", "--no-annotator", "--out", tmp_path / "demo")
    assert done.code == 0, done.err
    assert "histoclick-small" in done.out
    assert str(tmp_path / "demo/report/index.html") in done.out
    again = run("demo", "--no-annotator", "--out", tmp_path / "demo")
    assert again.code == 0, again.err


def test_models_list_and_show(run) -> None:
    listed = json.loads(run("models", "list", "--json").out)
    assert {"histoclick-tiny", "discs", "nearest-colour"} <= {entry["id"] for entry in listed}
    assert all(entry["family"] for entry in listed)
    shown = json.loads(run("models", "show", "histoclick-tiny", "--json").out)
    assert shown["licence"] == "Apache-2.0"
    assert "histoclick-tiny" in run("models", "list").out
    assert "licence" in run("models", "show", "discs").out


def test_doctor(run) -> None:
    facts = json.loads(run("doctor", "--json").out)
    assert "cpu" in facts["devices"]
    assert "IoU" in facts["self_test"]
    assert "torch" in run("doctor").out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["evaluate", "--data", "nowhere", "--out", "run"], "nowhere: no such folder"),
        (["evaluate", "--data", "{set}", "--out", "run", "--model", "sam"], "known: discs"),
        (["evaluate", "--data", "{set}", "--out", "run", "--model", "./sam"], "no such model"),
        (["evaluate", "--data", "{set}", "--out", "run", "--targets", "85"], "above 0 and up to 1"),
        (["evaluate", "--data", "{set}", "--out", "run", "--targets", "a"], "--targets 'a'"),
        (["evaluate", "--data", "{set}", "--out", "run", "--max-clicks", "0"], "at least 1"),
        (["evaluate", "--data", "{set}", "--out", "run", "--device", "tpu"], "device 'tpu'"),
        (["evaluate", "--data", "{set}"], "Missing option '--out'"),
        (["evaluate", "--data", "{set}", "--out", "{set}"], "holds no run"),
        (["report", "{set}", "--out", "page"], "{set}"),
        (["models", "show", "sam"], "unknown model 'sam'"),
        (["models", "import", "x.pth", "--family", "sam", "--id", "mine"], "x.pth"),
        (["models", "import", "x.pth", "--family", "yolo", "--id", "mine"], "known:"),
        (["annotato"], "annotato"),
        (["evaluate", "--data", "{set}", "--out", "run", "--limit", "-3"], "--limit"),
        (["evaluate", "--data", "{set}", "--out", "run", "--device", "meta"], "device 'meta'"),
        (["evaluate", "--data", "{set}", "--out", "{set}/patches.parquet"], "patches.parquet"),
        (["demo", "--out", "{set}/patches.parquet"], "patches.parquet"),
        (
            ["evaluate", "--data", "{set}", "--out", "run", "--start", "gone"],
            "gone: no such folder",
        ),
        (["evaluate", "--data", "{set}", "--out", "run", "--start", "{set}"], "no mask to start"),
        (["evaluate", "--data", "{set}", "--out", "run", "--click-rule", "up"], "known: deepest"),
        (["evaluate", "--data", "{set}", "--out", "run", "--jitter", "-1"], "jitter of -1.0 px"),
        (["evaluate", "--data", "{set}", "--out", "run", "--seed", "-1"], "the seed is -1"),
        (["evaluate", "--data", "{set}", "--out", "run", "--batch", "0"], "the batch is 0"),
        (["evaluate", "--data", "{set}", "--out", "run", "--workers", "0"], "at least 1"),
        (
            ["evaluate", "--data", "{set}", "--out", "run", "--workers", "2", "--ray", "auto"],
            "give one only",
        ),
    ],
)
def test_wrong_use_is_one_sentence_and_two(
    run, patch_set: PatchSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str],
    sentence: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    outcome = run(*(word.format(set=patch_set.folder) for word in words))
    assert outcome.code == 2
    assert sentence.format(set=patch_set.folder) in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


class Bomb:
    """A pickle that would write a file when it is read carelessly."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple:
        return Path.write_text, (self._target, "executed")


def test_checkpoints_that_are_wrong_or_hostile(run, tmp_path: Path) -> None:
    files = {
        "hostile": {"image_encoder.pos_embed": Bomb(tmp_path / "executed")},
        "other": {"fc.weight": torch.zeros(2, 2)},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / f"{name}.pth")
        outcome = run("models", "import", tmp_path / f"{name}.pth", "--family", "sam", "--id", name)
        assert outcome.code == 2
        assert f"{name}.pth" in outcome.err
        assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("crew", [[], ["--workers", "2"]])
def test_ctrl_c_and_once_more(tmp_path: Path, crew: list[str]) -> None:
    """A real interrupt of real processes, then the same command again."""
    patches = write_patch_set(make_samples(48, 96), tmp_path / "patches")
    command = [
        sys.executable, "-c", "from histoclick.cli import main; main()", "evaluate",
        "--data", str(patches.folder), "--threads", "1", "--model", "nearest-colour", "--out",
    ]  # fmt: skip
    process = subprocess.Popen(
        [*command, str(tmp_path / "cut"), *crew], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    journal = tmp_path / "cut/clicks.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"interrupted" in err
    assert b"Traceback" not in err
    assert not (tmp_path / "cut/clicks.parquet").exists()
    for out, options in (("cut", crew), ("whole", [])):
        subprocess.run([*command, str(tmp_path / out), *options], check=True, capture_output=True)
    cut, whole = (
        pd.read_parquet(tmp_path / out / "clicks.parquet").drop(
            columns=["seconds", "encode_seconds"]
        )
        for out in ("cut", "whole")
    )
    pd.testing.assert_frame_equal(cut, whole)


def test_help_needs_no_torch() -> None:
    """What makes ``--help`` quick: nothing heavy is imported for it."""
    code = "import sys; from histoclick import cli; print([m for m in HEAVY if m in sys.modules])"
    heavy = ["torch", "transformers", "pandas", "cv2", "matplotlib", "skimage"]
    found = subprocess.run(
        [sys.executable, "-c", code.replace("HEAVY", repr(heavy))],
        check=True, capture_output=True, text=True, env=os.environ,
    )  # fmt: skip
    assert found.stdout.strip() == "[]"
