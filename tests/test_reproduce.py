"""A whole study: what is there runs, what is not is told, and repeating goes on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fakes import make_samples
from histoclick import cli
from histoclick.models import registry
from histoclick.patches import PatchSet, write_patch_set
from histoclick.reproduce import reproduce
from histoclick.studies import Study, read_study, shipped
from histoclick.types import HistoclickError

STUDY = """
title = "A test"
max_clicks = 2
targets = [0.80, 0.85, 0.90]
limit = 2

[[model]]
id = "discs"

[[model]]
id = "not-here"
get = "not-here.pth from its authors"

[[data]]
folder = "liver/test"

[[data]]
folder = "lymph/test"
get = "the slides from their hospital"

[[published]]
model = "discs"
dataset = "liver/test"
source = "Nobody 2023, Table 1"
noc80 = 1.5
spc = 0.052
nof85 = 0.25
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HISTOCLICK_HOME", str(tmp_path / "home"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_patch_set(make_samples(3), tmp_path / "data/liver/test")
    return tmp_path / "data"


def study(tmp_path: Path, text: str = STUDY) -> Study:
    (tmp_path / "study.toml").write_text(text)
    return read_study(str(tmp_path / "study.toml"))


def evaluate(model: str, patches: PatchSet, run: Path) -> None:
    cli.run_evaluation(model, patches, run, device="cpu", threads=1)


def test_what_is_there_runs_and_what_is_not_is_told(tmp_path: Path, root: Path) -> None:
    out = tmp_path / "out"
    files, missing = reproduce(study(tmp_path), root, out, evaluate)
    assert [part.what for part in missing] == ["Patch set lymph/test", "Model not-here"]
    assert "Get the slides from their hospital" in str(missing[0])
    assert "Get not-here.pth from its authors" in str(missing[1])
    records = pd.read_parquet(out / "runs/liver-test/discs/clicks.parquet")
    assert records["patch"].nunique() == 2  # the limit
    table = pd.read_csv(files.markdown.parent / "published.csv").iloc[0]
    assert table["NoC@80 published"] == 1.5
    assert table["NoC@80 difference"] == pytest.approx(table["NoC@80"] - 1.5)
    assert table["SPC difference"] == pytest.approx(table["SPC"] - 0.052)
    assert table["NoF/n@85 difference"] == pytest.approx(table["NoF/n@85"] - 0.25)
    assert "NoC@90 published" not in table
    told = files.markdown.read_text()
    assert "published 1.50" in told
    assert "Nobody 2023, Table 1" in told
    assert "published 1.50" in files.page.read_text()


def test_repeating_does_only_what_has_come(tmp_path: Path, root: Path) -> None:
    done: list[str] = []

    def noted(model: str, patches: PatchSet, run: Path) -> None:
        if not (run / "clicks.parquet").exists():
            done.append(f"{model} on {patches.name}")
        evaluate(model, patches, run)

    reproduce(study(tmp_path), root, tmp_path / "out", noted)
    write_patch_set(make_samples(2), root / "lymph/test")
    _, missing = reproduce(study(tmp_path), root, tmp_path / "out", noted)
    assert done == ["discs on liver/test", "discs on lymph/test"]
    assert [part.what for part in missing] == ["Model not-here"]


def test_one_bad_run_does_not_stop_the_others(tmp_path: Path, root: Path) -> None:
    def refusing(model: str, patches: PatchSet, run: Path) -> None:
        if patches.name == "lymph/test":
            raise HistoclickError("the weights are damaged")
        evaluate(model, patches, run)

    write_patch_set(make_samples(2), root / "lymph/test")
    files, missing = reproduce(study(tmp_path), root, tmp_path / "out", refusing)
    assert files is not None
    assert "discs on lymph/test: the weights are damaged." in map(str, missing)


def test_models_without_weights_get_random_ones_marked_everywhere(
    tmp_path: Path, root: Path
) -> None:
    text = STUDY.replace('id = "not-here"', 'id = "b0"\nfamily = "focalclick"')
    text = text.replace("limit = 2", "limit = 1\nrandom_weights = true")
    text = text.replace('get = "not-here', 'architecture = "segformerB0_S1"\nget = "not-here')
    files, missing = reproduce(study(tmp_path, text), root, tmp_path / "out", evaluate)
    assert [part.what for part in missing] == ["Patch set lymph/test"]
    card, _ = registry.find(tmp_path / "out/models/b0-untrained")
    assert card.untrained
    assert "b0-untrained (untrained weights)" in files.markdown.read_text()
    weights = tmp_path / "out/models/b0-untrained/weights.safetensors"
    before = weights.read_bytes()
    reproduce(study(tmp_path, text), root, tmp_path / "out", evaluate)
    assert weights.read_bytes() == before
    real = tmp_path / "b0_s1.safetensors"
    real.write_bytes(before)
    registry.import_model(real, "focalclick", "b0")  # real ones come later
    files, _ = reproduce(study(tmp_path, text), root, tmp_path / "out", evaluate)
    assert "untrained" not in files.markdown.read_text()


def test_without_data_every_patch_set_below_the_root_counts(tmp_path: Path, root: Path) -> None:
    """Sets of one name in two places are two sets, and links count."""
    elsewhere = write_patch_set(make_samples(2), tmp_path / "elsewhere").folder
    (root / "lymph").mkdir()
    (root / "lymph/test").symlink_to(elsewhere)
    (root / "lymph/circle").symlink_to(root)
    names: list[str] = []

    def noted(model: str, patches: PatchSet, run: Path) -> None:
        names.append(patches.name)
        evaluate(model, patches, run)

    reproduce(study(tmp_path, STUDY[: STUDY.index("[[data]]")]), root, tmp_path / "out", noted)
    assert names == ["liver/test", "lymph/test"]
    assert (tmp_path / "out/runs/lymph-test/discs/clicks.parquet").exists()


def test_a_model_that_cannot_be_made_is_missing_and_the_rest_runs(
    tmp_path: Path, root: Path
) -> None:
    text = STUDY.replace("limit = 2", "limit = 1\nrandom_weights = true")
    text = text.replace('id = "not-here"', 'id = "b9"\nfamily = "ritm"\narchitecture = "b9"')
    files, missing = reproduce(study(tmp_path, text), root, tmp_path / "out", evaluate)
    assert files is not None
    assert "Model b9: ritm: unknown architecture 'b9'" in str(missing[1])


def test_the_command_ends_with_3_when_parts_are_missing(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study(tmp_path)
    words = ["reproduce", tmp_path / "study.toml", "--data", root, "--out", tmp_path / "out"]
    monkeypatch.setattr("sys.argv", ["histoclick", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    printed = capsys.readouterr().out
    assert stop.value.code == cli.INCOMPLETE
    assert "Missing: Model not-here: not imported. Get not-here.pth from its authors." in printed
    assert "Beside the published numbers" in printed


@pytest.mark.parametrize("name", shipped())
def test_shipped_studies_are_readable_and_say_where_things_come_from(name: str) -> None:
    found = read_study(name)
    assert found.models
    for model in found.models:
        assert model.get or model.id in registry.folders()
    for data in found.data:
        assert data.get
    if found.random_weights:
        families = {model.family for model in found.models if model.family}
        assert {"ritm", "focalclick", "simpleclick", "sam"} <= families <= set(registry.FAMILIES)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("limit = 2", "limits = 2", "unknown limits"),
        ("limit = 2", 'limit = "2"', "limit is '2' and must be of type int"),
        ('title = "A test"', "", "missing title"),
        ('id = "discs"', "", "missing id"),
        ("spc = 0.052", "spc = -1", "spc = -1"),
        ("spc = 0.052", 'spc = "fast"', "spc = 'fast'"),
        ("[[published]]", "[published]", "published is no list of tables"),
        ("limit = 2", "limit =", "not valid TOML"),
        ("limit = 2", "limit = -1", "limit 0 or more"),
        ("[0.80, 0.85, 0.90]", '["0.80"]', "targets are IoU values"),
        ("[0.80, 0.85, 0.90]", "[80]", "targets are IoU values"),
        ('id = "not-here"', 'id = "../not-here"', "model id '../not-here' is twice there or no id"),
        ('id = "not-here"', 'id = "discs"', "model id 'discs' is twice there"),
        ('"lymph/test"', '"../test"', "no folder below the root"),
    ],
)
def test_a_bad_study_is_one_sentence(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(HistoclickError, match=told):
        study(tmp_path, STUDY.replace(old, new, 1))


def test_unknown_study_and_root(tmp_path: Path) -> None:
    with pytest.raises(HistoclickError, match="known: table1-full, table1-mini"):
        read_study("table9-mini")
    with pytest.raises(HistoclickError, match="no such folder"):
        reproduce(study(tmp_path), tmp_path / "nowhere", tmp_path / "out", evaluate)
    with pytest.raises(HistoclickError, match="unknown family 'x'"):
        registry.with_random_weights("x", "y", tmp_path / "m")
    with pytest.raises(HistoclickError, match="has no weights to draw"):
        registry.with_random_weights("baseline", "discs", tmp_path / "m")
