"""Exported models: the same masks, and no PyTorch anywhere near."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tomllib
import uuid
from pathlib import Path

import httpx2
import numpy as np
import pytest
import skimage.data
import torch

import torchless
from fakes import disc
from gates import random_gated
from histoclick.clicks import SimulatedUser
from histoclick.files import sha256
from histoclick.models import registry
from histoclick.models.card import read_card
from histoclick.patches import PatchSet, open_patch_set
from histoclick.types import RGB8, Click, HistoclickError, Mask, Prediction, Prompt, Segmenter
from live import annotating
from served import made_slide

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SHARE = 0.001  # of the pixels that may differ


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model, exported."""
    return registry.export_model("histoclick-tiny", tmp_path_factory.mktemp("tiny") / "light")


@pytest.fixture(scope="session")
def gated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A gated model of random weights, all of whose parts do something, and its export."""
    folder = tmp_path_factory.mktemp("gated")
    return random_gated(folder / "gated"), registry.export_model(folder / "gated", folder / "light")


def largest_share(
    native: Segmenter, light: Segmenter, image: RGB8, mask: Mask, clicks: int = 20
) -> float:
    """Of pixels that differ after any click of the native model's trajectory."""
    pairs = [(each, each.encode(image)) for each in (native, light)]
    before: list[Prediction | None] = [None, None]
    said: tuple[Click, ...] = ()
    seen, worst = np.zeros_like(mask), 0.0
    for _ in range(clicks):
        said = (*said, SimulatedUser().click("x", mask, seen, said))
        before = [
            each.predict(encoded, Prompt(said), old)
            for (each, encoded), old in zip(pairs, before, strict=True)
        ]
        ours, theirs = (each.mask for each in before if each is not None)
        worst = max(worst, float((ours != theirs).mean()))
        seen = ours
        if (seen == mask).all():
            break
    return worst


def tissue() -> tuple[RGB8, Mask]:
    """A real picture, (400, 300, 3), and an object in it: brown cells."""
    image = skimage.data.immunohistochemistry()[:400, :300]
    return image, image[..., 2] < 110


def test_the_built_in_model_gives_the_same_masks(tiny: Path) -> None:
    native, light = registry.load("histoclick-tiny"), registry.load(tiny, threads=1)
    assert largest_share(native, light, *tissue()) < SHARE


def test_a_gated_model_gives_the_same_masks(gated: tuple[Path, Path]) -> None:
    native, light = (registry.load(folder) for folder in gated)
    image, mask = tissue()
    assert largest_share(native, light, image, mask) < SHARE
    # Lower than the refiner's crop
    assert largest_share(native, light, image[:60], disc(300, 150, 30, 25)[:60], 8) < SHARE


def test_real_patches(tiny: Path, shared: Path) -> None:
    native, light = registry.load("histoclick-tiny"), registry.load(tiny, threads=1)
    for name in ("camelyon", "ebhi224_colon"):
        for patch in open_patch_set(shared / f"data/histology/redistributable/{name}/val").first(2):
            sample = patch.read()
            assert largest_share(native, light, sample.image, sample.mask) < SHARE


def test_a_mask_from_elsewhere(tiny: Path, gated: tuple[Path, Path]) -> None:
    image, mask = tissue()
    start = Prediction.of_mask(mask)
    prompt = Prompt((Click(40, 200), Click(200, 30, False)))
    for native, light in (("histoclick-tiny", tiny), gated):
        answers = [
            model.predict(model.encode(image), prompt, start).mask
            for model in (registry.load(native), registry.load(light))
        ]
        assert (answers[0] != answers[1]).mean() < SHARE


def test_the_quality_is_told(gated: tuple[Path, Path]) -> None:
    image, _ = tissue()
    qualities = [
        model.predict(model.encode(image), Prompt((Click(40, 200),))).quality
        for model in (registry.load(folder) for folder in gated)
    ]
    assert qualities[0] == pytest.approx(qualities[1], abs=1e-3)


def test_the_card_says_where_it_comes_from(tiny: Path, gated: tuple[Path, Path]) -> None:
    card, base = read_card(tiny), registry.find("histoclick-tiny")[0]
    assert (card.family, card.architecture) == ("onnx", "denseclick/mobilenetv2")
    assert (card.licence, card.trained_on) == (base.licence, base.trained_on)
    assert card.graphs["weights_sha256"] == base.sha256
    assert not card.default
    assert read_card(gated[1]).untrained
    slides = gated[1] / "training" / "slides.json"
    assert json.loads(slides.read_text()) == ["slide 7"]  # so that nobody evaluates on them


def test_an_embedding_survives_the_disk(tiny: Path) -> None:
    light = registry.load(tiny)
    image, _ = tissue()
    encoded = light.encode(image)
    again = light.unpack(light.pack(encoded))  # type: ignore[attr-defined]
    prompt = Prompt((Click(40, 200),))
    ours, theirs = (light.predict(each, prompt).logits for each in (encoded, again))
    np.testing.assert_array_equal(ours, theirs)
    arrays = light.pack(encoded)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="s4 of an embedding has shape"):
        light.unpack({**arrays, "s4": arrays["s8"]})  # type: ignore[attr-defined]


def test_the_click_graph_is_plain(tiny: Path, gated: tuple[Path, Path]) -> None:
    """Browsers run standard operators, without branches and loops."""
    onnx = pytest.importorskip("onnx")
    for folder in (tiny, gated[1]):
        graph = onnx.load(folder / "decoder.onnx")
        assert [(each.domain, each.version) for each in graph.opset_import] == [("", 18)]
        kinds = {node.op_type for node in graph.graph.node}
        assert not kinds & {"If", "Loop", "Scan", "SequenceConstruct", "NonZero"}


# --------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx"])
def test_changed_and_missing_graphs(tiny: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "light"))
    with (folder / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(HistoclickError, match=rf"{name}: not the weights the card describes"):
        registry.load(folder)
    (folder / name).unlink()
    with pytest.raises(HistoclickError, match=rf"{name} is missing; export the model again"):
        registry.load(folder)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"stride": 3}, "strides must divide the multiple"),
        ({"stride": "two"}, "whole numbers"),
        ({"maps": {}}, "not those of its card"),
        ({"rules": {"colour": 1}}, "not what an export writes"),
        ({"sha256": {}}, "must name the two graphs"),
        ({"sha256": 3}, "no table"),
    ],
)
def test_bad_cards(tiny: Path, tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "light"))
    card = read_card(folder)
    dataclasses.replace(card, graphs={**card.graphs, **changes}).write(folder)
    with pytest.raises(HistoclickError, match=sentence):
        registry.load(folder)


def test_a_graph_that_is_none(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "light"))
    (folder / "decoder.onnx").write_bytes(b"no graph")
    card = read_card(folder)
    hashes = {**card.graphs["sha256"], "decoder.onnx": sha256(folder / "decoder.onnx")}
    dataclasses.replace(card, graphs={**card.graphs, "sha256": hashes}).write(folder)
    with pytest.raises(HistoclickError, match="damaged or no graph that onnxruntime knows"):
        registry.load(folder)


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(HistoclickError, match="family 'baseline' cannot be exported; those of"):
        registry.export_model("discs", tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(HistoclickError, match="exists already"):
        registry.export_model("histoclick-tiny", tmp_path / "out")


def test_an_export_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(torch.onnx, "export", fail)
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: None)
    with pytest.raises(OSError, match="full"):
        registry.export_model("histoclick-tiny", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_only_on_the_processor(tiny: Path) -> None:
    with pytest.raises(HistoclickError, match="run on the processor"):
        registry.load(tiny, device="cuda")


# ----------------------------------------------------------------------- without PyTorch


CLICK = """
import sys
from pathlib import Path
import numpy as np
from histoclick import Click, Prompt, load
image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
model = load(Path(sys.argv[1]))
answer = model.predict(model.encode(image), Prompt((Click(100, 50),)))
np.save(sys.argv[2], answer.logits)
assert sys.modules["torch"] is None
"""


def test_a_click_without_torch(tiny: Path, tmp_path: Path) -> None:
    done = torchless.python(CLICK, tiny, tmp_path / "logits.npy", home=tmp_path)
    assert done.returncode == 0, done.stderr
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    native = registry.load("histoclick-tiny")
    ours = native.predict(native.encode(image), Prompt((Click(100, 50),))).logits
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), ours, atol=1e-2)


def test_evaluate_without_torch(tiny: Path, tmp_path: Path, patch_set: PatchSet) -> None:
    words = ("--data", patch_set.folder, "--max-clicks", 3)
    done = torchless.histoclick(
        "evaluate", "--model", tiny, *words, "--threads", 1, "--out", tmp_path / "run",
        home=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "clicks.parquet").is_file()
    done = torchless.histoclick(
        "evaluate", "--model", "histoclick-tiny", *words, "--out", tmp_path / "no", home=tmp_path
    )
    assert done.returncode == 2
    assert "need PyTorch, which is not installed" in done.stderr


def test_annotate_without_torch(tiny: Path, tmp_path: Path) -> None:
    slide = made_slide(tmp_path / "slides" / "a.tif")
    options = ("--model", str(tiny))
    with annotating(
        [slide], tmp_path / "store", *options, start=("-c", torchless.COMMAND)
    ) as server:
        (found,) = httpx2.get(f"{server.url}api/slides").json()
        click = {"kind": "click", "x": 600, "y": 400, "object": None, "positive": True}
        event = {"id": str(uuid.uuid4()), **click, "mpp": 0.5, "label": "Tumor"}
        answer = httpx2.post(
            f"{server.url}api/slides/{found['id']}/events",
            json=event, headers={"X-Client": str(uuid.uuid4())}, timeout=60,
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["objects"]) == 1


def test_the_light_list_is_the_dependencies_without_torch() -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    heavy = ("torch>", "transformers>", "accelerate>")
    expected = {each for each in project["dependencies"] if not each.startswith(heavy)}
    expected |= {each for each in project["optional-dependencies"]["onnx"] if "runtime" in each}
    lines = (root / "light.txt").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if not line.startswith("#")} == expected
