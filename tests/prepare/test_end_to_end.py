"""From slides to the report, as a user types it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from histoclick import cli
from slidemaker import camelyon


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["histoclick", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_camelyon_from_slide_to_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, outlines = camelyon(tmp_path, slides=3)
    good = (images / "tumor_002.tif").read_bytes()
    (images / "tumor_002.tif").write_bytes(good[:2000])
    out = tmp_path / "patches"
    words = [
        "prepare", "camelyon16", "--slides", images, "--annotations", outlines, "--out", out,
        "--patch-size", 120, "--object-fraction", 0.3, 0.7, "--splits", "val=1,test=2",
        "--workers", 1,
    ]  # fmt: skip
    assert command(monkeypatch, *words) == 3
    told = capsys.readouterr().out
    assert "Skipped: " in told
    assert "tumor_002.tif" in told
    assert "2 of 3 slides done" in told
    (images / "tumor_002.tif").write_bytes(good)
    assert command(monkeypatch, *words) == 0
    assert "3 of 3 slides done" in capsys.readouterr().out
    card = tomllib.loads((out / "prepare.toml").read_text())
    assert card["recipe"]["mpp"] == 1.0
    assert sorted(card["slides"].values()) == ["test", "test", "val"]
    listed = pd.read_parquet(out / "test" / "patches.parquet")
    assert listed["object_fraction"].between(0.3, 0.7).all()
    assert listed["slide"].nunique() == 2

    run, page = tmp_path / "run", tmp_path / "page"
    words = ["evaluate", "--model", "discs", "--data", out / "test", "--out", run]
    assert command(monkeypatch, *words, "--max-clicks", 3, "--threads", 1) == 0
    records = pd.read_parquet(run / "clicks.parquet")
    assert set(records["slide"]) == set(listed["slide"])
    assert set(records["patch"]) == set(listed["id"])
    assert command(monkeypatch, "report", run, "--out", page) == 0
    assert "patches/test" in (page / "index.html").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["camelyon17"], "no data set 'camelyon17'"),
        (["camelyon16", "--label", "x"], "--label and --hole are for 'prepare folder'"),
        (["folder", "--target", "whole"], "are for PAIP2019"),
        (["paip2019", "--target", "half"], "--target half"),
        (["camelyon16", "--magnification", -1], "--magnification -1"),
        (["camelyon16", "--object-fraction", 0.9, 0.1], "object fraction"),
        (["camelyon16", "--splits", "train"], "--splits 'train'"),
        (["camelyon16"], "no such folder"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[object],
    sentence: str,
) -> None:
    there = ["--slides", tmp_path / "a", "--annotations", tmp_path / "a", "--out", tmp_path / "o"]
    assert command(monkeypatch, "prepare", *words, *there) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
