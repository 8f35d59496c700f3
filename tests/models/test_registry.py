import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

import histoclick
from histoclick.models import registry
from histoclick.models.card import Card, read_card
from histoclick.types import Click, HistoclickError, Prompt, Segmenter

CARD = Card("x", "baseline", "discs", "A test.", "CC0", "nowhere", trained_on=("a", "b"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HISTOCLICK_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


@pytest.mark.parametrize("id_", list(registry.folders()))
def test_every_built_in_model_segments(id_: str) -> None:
    segmenter = histoclick.load(id_)
    assert isinstance(segmenter, Segmenter)
    image = np.full((90, 120, 3), 200, np.uint8)
    prediction = segmenter.predict(segmenter.encode(image), Prompt(clicks=(Click(60, 45),)))
    assert prediction.logits.shape == (90, 120)
    assert prediction.mask[45, 60]


def test_there_is_one_default() -> None:
    shipped = [read_card(path.parent) for path in registry.BUILTIN.glob("*/card.toml")]
    assert [card.default for card in shipped].count(True) == 1


def test_built_in_models_are_small_enough_to_ship() -> None:
    shipped = [path for path in registry.BUILTIN.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in shipped) < 12 * 2**20


def test_cards_say_who_they_are() -> None:
    for id_, folder in registry.folders().items():
        assert read_card(folder).id == id_


def test_cards_are_read_as_written(tmp_path: Path) -> None:
    CARD.write(tmp_path)
    assert read_card(tmp_path) == CARD


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("colour = 3\n", "unknown colour"),
        ("[", "not valid TOML"),
    ],
)
def test_bad_cards(tmp_path: Path, change: str, sentence: str) -> None:
    CARD.write(tmp_path)
    path = tmp_path / "card.toml"
    path.write_text(path.read_text() + change)
    with pytest.raises(HistoclickError, match=sentence):
        read_card(tmp_path)


def test_a_card_without_family(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text('id = "x"')
    with pytest.raises(HistoclickError, match="missing architecture, missing family"):
        read_card(tmp_path)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(HistoclickError, match=r"unknown model 'sam-vit-q'; known: .*discs"):
        histoclick.load("sam-vit-q")


def test_paths_are_paths(tmp_path: Path) -> None:
    with pytest.raises(HistoclickError, match="no such model folder"):
        histoclick.load(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(HistoclickError, match=r"no card\.toml"):
        histoclick.load(tmp_path / "empty")


def test_a_folder_is_a_model(tmp_path: Path) -> None:
    CARD.write(tmp_path)
    assert isinstance(histoclick.load(tmp_path), Segmenter)


def test_weights_that_are_not_the_card_s(tmp_path: Path) -> None:
    _, folder = registry.find(registry.default_id())
    for name in ("card.toml", "weights.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with (tmp_path / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(HistoclickError, match="SHA-256 differs"):
        histoclick.load(tmp_path)


def test_weights_without_checksum_are_not_trusted(tmp_path: Path) -> None:
    CARD.write(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"whatever")
    with pytest.raises(HistoclickError, match="SHA-256"):
        histoclick.load(tmp_path)


def test_a_damaged_model_does_not_hide_the_others(home: Path) -> None:
    (home / "broken").mkdir(parents=True)
    (home / "broken/card.toml").write_text("[")
    renamed = home / "renamed"
    renamed.mkdir()
    CARD.write(renamed)
    found = registry.cards()
    assert isinstance(found["broken"], HistoclickError)
    assert isinstance(found["renamed"], HistoclickError)
    assert isinstance(found["discs"], Card)
    assert registry.default_id() in found


@pytest.mark.parametrize(
    ("change", "sentence"), [('id = "y"', "Cannot overwrite"), ("input_size = '448'", "type int")]
)
def test_card_values_of_the_wrong_type(tmp_path: Path, change: str, sentence: str) -> None:
    CARD.write(tmp_path)
    text = (tmp_path / "card.toml").read_text()
    if change.startswith("input_size"):
        text = "\n".join(line for line in text.splitlines() if not line.startswith("input_size"))
    (tmp_path / "card.toml").write_text(change + "\n" + text)
    with pytest.raises(HistoclickError, match=sentence):
        read_card(tmp_path)


def test_an_unwritable_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HISTOCLICK_HOME", str(tmp_path / "file"))
    with pytest.raises(HistoclickError, match="HISTOCLICK_HOME"):
        registry.import_model(tmp_path / "x.pth", "sam", "mine")


def test_ids_that_cannot_be_imported(tmp_path: Path) -> None:
    for bad in ("../evil", "Größe", "", ".hidden"):
        with pytest.raises(HistoclickError, match="no model id"):
            registry.import_model(tmp_path / "x.pth", "sam", bad)
    with pytest.raises(HistoclickError, match="exists already"):
        registry.import_model(tmp_path / "x.pth", "sam", "discs")
    with pytest.raises(HistoclickError, match=r"unknown family 'yolo'; known: .*sam"):
        registry.import_model(tmp_path / "x.pth", "yolo", "mine")
    with pytest.raises(HistoclickError, match="importable: sam"):
        registry.import_model(tmp_path / "x.pth", "baseline", "mine")


def test_a_failed_import_leaves_nothing(tmp_path: Path, home: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"no weights")
    with pytest.raises(HistoclickError):
        registry.import_model(tmp_path / "x.pth", "sam", "mine")
    assert not any(home.iterdir())


def test_the_default_s_card_is_complete() -> None:
    card, folder = registry.find(registry.default_id())
    assert card.trained_on
    assert {row["dataset"] for row in card.measured}
    assert all(row["command"].startswith("histoclick evaluate") for row in card.measured)
    assert not card.untrained
    assert tomllib.loads((folder / "card.toml").read_text())["sha256"] == card.sha256
    assert json.dumps(card.measured)
