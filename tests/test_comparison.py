"""Comparisons of decoders: plans, jobs and tables."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fakes import make_samples
from histoclick import metrics
from histoclick.comparison import __main__ as command
from histoclick.comparison.jobs import Bench, Job, jobs, patch_sets, run
from histoclick.comparison.plan import Plan, read_plan
from histoclick.comparison.table import ALL, collect, difference, measured
from histoclick.models.card import read_card
from histoclick.models.nets.mobilenet import MobileNetV2
from histoclick.patches import write_patch_set
from histoclick.report.records import read_run
from histoclick.types import HistoclickError, Sample

PLAN = """
title = "Two"
steps = 2
seeds = [0, 1]
crops = 4
rate = 1e-3
input_size = 64
max_clicks = 5
slide = "case[0-9]+"
references = ["one"]
learn_from = ["train"]
data = [{ folder = "val", group = "here" }, { folder = "far", group = "there" }]
recipe = { crop = 64, images = 2, long_side = [64, 96], stop = 0.6 }

[[variant]]
name = "one"
architecture = "small-sam"

[[variant]]
name = "one-obeys"
architecture = "small-sam-obeys"
weights_of = "one"
stage = 2

[[variant]]
name = "tuned"
architecture = "small-plain"
frozen = false
stage = 2
"""


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = tmp_path_factory.mktemp("comparison")
    (root / "plan.toml").write_text(PLAN)
    for folder in ("train", "val", "far"):
        samples = [
            Sample(f"case{i // 2}-{i}", each.image, each.mask, "")
            for i, each in enumerate(make_samples(1 if folder == "far" else 3, 64))
        ]
        write_patch_set(samples, root / folder)
        (root / folder / "patches.parquet").unlink()  # slides are to be found in the names
    torch.manual_seed(0)
    state = MobileNetV2(norm=False).state_dict()
    torch.save(state | {"head.weight": torch.zeros(1)}, root / "trunk.pt")
    plan = read_plan(root / "plan.toml")
    return Bench(plan, root, root / "trunk.pt", root / "out")


@pytest.fixture(scope="module")
def finished(bench: Bench) -> Bench:
    """By the command, in two parts; the second one goes on where the first stopped."""
    with pytest.MonkeyPatch.context() as patch:
        for more in (["--stage", "1", "--seed", "1"], []):
            arguments = [bench.root / "plan.toml", "--data", bench.root, "--out", bench.out]
            arguments += ["--trunk", bench.trunk, *more]
            patch.setattr(sys, "argv", ["comparison", *map(str, arguments)])
            command.main()
    return bench


def test_the_order_of_the_work(bench: Bench) -> None:
    assert [job.name for job in jobs(bench.plan)] == [
        "one-seed0", "one-seed1", "one-obeys-seed0", "tuned-seed0", "one-obeys-seed1",
        "tuned-seed1",
    ]  # fmt: skip


def test_slides_are_found_in_names(bench: Bench) -> None:
    (val, _) = patch_sets(bench.plan, bench.root)
    assert [patch.slide for patch in val] == ["CASE0", "CASE0", "CASE1"]
    (plain, _) = patch_sets(replace(bench.plan, slide=""), bench.root)
    assert [patch.slide for patch in plain] == [patch.id for patch in plain]


def test_the_table(finished: Bench) -> None:
    plan, out = finished.plan, finished.out
    text = (out / "table.md").read_text()
    assert "difference to one on the same patches" in text
    rows = read_csv(out / "table-all.csv")
    assert [row["variant"] for row in rows] == ["one", "one-obeys", "tuned"]
    clicks, fallen = [], []
    for seed in plan.seeds:
        for folder in ("val", "far"):
            found = read_run(out / "runs" / f"tuned-seed{seed}" / folder)
            clicks += list(metrics.clicks_to_reach(found.ious, 0.85, 5))
            for row in found.ious:
                made = row[np.isfinite(row)]
                if len(made) > 3:
                    fallen.append(np.mean(np.diff(made[2:]) < 0))
    assert float(rows[2]["NoC@85"]) == pytest.approx(np.mean(clicks))
    if len(fallen) == len(clicks):
        assert float(rows[2]["Harm"]) == pytest.approx(np.mean(fallen))
    one, tuned = (collect(plan, out, plan.variants[i], ALL) for i in (0, 2))
    assert one is not None
    assert tuned is not None
    apart = difference(tuned, one, 0)
    assert apart is not None
    expected = tuned.values[:, :, 0].mean() - one.values[:, :, 0].mean()
    assert apart.mean == pytest.approx(expected)
    assert float(rows[2]["NoC@85 - one"]) == pytest.approx(expected)
    here = read_csv(out / "table-here.csv")[0]
    assert float(here["NoC@85"]) == pytest.approx(one.values[:, :3, 0].mean())


def test_rules_are_compared_with_the_same_weights(finished: Bench) -> None:
    one, obeys = (read_card(finished.out / f"models/{n}-seed0") for n in ("one", "one-obeys"))
    assert one.sha256 == obeys.sha256
    assert (one.architecture, obeys.architecture) == ("small-sam", "small-sam-obeys")


def test_another_plan_does_not_mix_with_what_is_there(finished: Bench) -> None:
    longer = replace(finished, plan=replace(finished.plan, steps=3))
    with pytest.raises(HistoclickError, match="made otherwise"):
        run(longer, Job(longer.plan.variants[0], 0))


def test_a_run_that_is_not_finished_is_left_out(finished: Bench) -> None:
    plan = replace(finished.plan, seeds=(0, 1, 2))
    found = collect(plan, finished.out, plan.variants[0], "there")
    assert found is not None
    assert found.seeds == (0, 1)
    assert measured(read_run(finished.out / "runs/one-seed0/val")).shape == (3, 6)
    assert collect(plan, finished.out / "nowhere", plan.variants[0], ALL) is None


def test_the_shipped_plan() -> None:
    plan = read_plan(changes={"steps": 7})
    assert plan.steps == 7
    assert {variant.stage for variant in plan.variants} == {1, 2, 3, 4}
    small = next(variant for variant in plan.variants if variant.crop)
    assert plan.recipe_of(small).long_side == (192, 312)
    assert isinstance(plan, Plan)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 2", "step = 2", "unknown key step"),
        ("steps = 2", 'steps = "2"', "must be of type int"),
        ("steps = 2", "", "steps"),
        ("steps = 2", "steps = 0", "above 0"),
        ("small-plain", "huge", "unknown architecture"),
        ('weights_of = "one"', 'weights_of = "none"', "mend weights_of"),
        ('references = ["one"]', 'references = ["two"]', "reference 'two'"),
        ('name = "tuned"', 'name = "one"', "twice"),
        ('"case[0-9]+"', '"case["', "regular expression"),
        ("frozen = false", "random = true", "never learns"),
        ("crop = 64", "crop = 63", "multiple of 32"),
        ("[recipe", "[[recipe", "TOML"),
    ],
)
def test_wrong_plans(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = PLAN.replace("recipe = {", "[recipe" if old == "[recipe" else "recipe = {")
    (tmp_path / "plan.toml").write_text(text.replace(old, new))
    with pytest.raises(HistoclickError, match=message):
        read_plan(tmp_path / "plan.toml")


def test_a_trunk_of_another_kind(bench: Bench, tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "other.pt")
    wrong = replace(bench, trunk=tmp_path / "other.pt", out=tmp_path)
    with pytest.raises(HistoclickError, match="a trunk has"):
        run(wrong, Job(bench.plan.variants[0], 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trunk", "nowhere.pt"], "no weight file nowhere.pt"),
        (["--trunk", "x", "--variant", "none"], "nothing in the plan"),
        (["--trunk", "x", "--set", "steps=abc"], "must be of type int"),
    ],
)
def test_wrong_commands(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["x", "--data", "d", "--out", str(tmp_path), *arguments])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert message in capsys.readouterr().err
