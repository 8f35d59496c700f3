"""RITM against the reference's numbers, and as a family of the registry."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import golden
from histoclick.clicks import next_click
from histoclick.models import registry
from histoclick.models.earlyfusion import EarlyFusionSegmenter
from histoclick.models.lineage import read_params
from histoclick.models.nets.fold import fold
from histoclick.models.nets.hrnet import WIDTHS
from histoclick.models.ritm import family
from histoclick.models.ritm.network import RitmNet, build, expected_shapes, recognise
from histoclick.models.weights import read_state_dict, write_safetensors
from histoclick.models.zoom import Roi, ZoomRule
from histoclick.types import Click, HistoclickError, Prediction, Prompt

Arrays = dict[str, NDArray[Any]]

SMALL = "hrnet18s"
MODELS = [pytest.param(v, marks=[] if v == SMALL else [pytest.mark.slow]) for v in WIDTHS]
CASES: dict[str, dict[str, Any]] = {
    "cvpr": {"rule": ZoomRule()},
    "injected": {"rule": ZoomRule()},
    "fixed400": {"rule": ZoomRule((400, 400), skip_clicks=-1)},
    "rect_plain": {"rule": None, "flip": False},
    "rect_cvpr": {"rule": ZoomRule()},
    "limit2_max320": {"rule": ZoomRule(), "click_limit": 2, "max_side": 320},
}


class Reference(NamedTuple):
    """One model with the weights of the reference, as trained and as it predicts, its numbers."""

    net: RitmNet
    folded: RitmNet
    arrays: Arrays


@pytest.fixture(scope="module")
def fixtures(shared: Path) -> Path:
    return shared / "conformance/ritm"


@pytest.fixture(scope="module")
def inputs(shared: Path) -> Arrays:
    return golden.arrays(shared / "conformance/inputs/inputs.npz")


@pytest.fixture(scope="module", params=MODELS)
def reference(fixtures: Path, request: pytest.FixtureRequest) -> Reference:
    name = request.param
    net = build(name, golden.official_weights(fixtures, name)).eval()
    folded = copy.deepcopy(net)
    fold(folded, "cpu")
    return Reference(net, folded, golden.arrays(fixtures / f"{name}.npz"))


def before(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The probabilities that the reference took for a previous mask."""
    return np.float32(0.15) + np.float32(0.7) * mask


@torch.inference_mode()
def test_network(reference: Reference, inputs: Arrays) -> None:
    image = inputs["image_A"].transpose(2, 0, 1).astype(np.float32) / 255
    maps = np.concatenate([image, before(inputs["object_A"])[None]])[None]
    points = torch.from_numpy(reference.arrays["fwd_points"])
    for net in (reference.net, reference.folded):
        answer = net.answer(torch.from_numpy(maps), points)
        golden.agrees(reference.arrays, "fwd_instances", answer.logits, 4, 5e-4)
        golden.agrees(reference.arrays, "fwd_instances_aux", answer.auxiliary, 4, 5e-4)


@pytest.mark.parametrize("case", CASES)
def test_clicks(reference: Reference, inputs: Arrays, case: str) -> None:
    arrays = reference.arrays
    if f"{case}_clicks" not in arrays:
        pytest.skip(f"the reference has no case {case} of this model")
    segmenter = EarlyFusionSegmenter(reference.folded, **CASES[case])
    image = inputs["image_B" if case.startswith("rect") else "image_A"]
    encoded, prompt, previous = segmenter.encode(image), Prompt(), None
    if case == "injected":
        probabilities = before(inputs["object_A"])
        previous = Prediction(np.log(probabilities / (1 - probabilities)))
    rois = iter(arrays[f"{case}_rois"].tolist())
    for n, (row, column, positive) in enumerate(arrays[f"{case}_clicks"].tolist(), start=1):
        prompt = prompt.add(Click(column, row, bool(positive)))
        if case == "injected" and n == 1:
            continue
        previous = segmenter.predict(encoded, prompt, previous)
        golden.agrees(arrays, f"{case}_prob_{n}", previous.memory.probabilities[0, 0], 4, 1e-3)
        wrong = np.count_nonzero(previous.mask != arrays[f"{case}_mask_{n}"])
        assert wrong <= 0.0005 * previous.mask.size, n
        assert (previous.memory.roi or Roi(-1, -1, -1, -1)) == Roi(*next(rois)), n


@pytest.mark.slow
def test_evaluation(reference: Reference, inputs: Arrays) -> None:
    arrays, truth = reference.arrays, inputs["object_A"]
    if "eval_clicks" not in arrays:
        pytest.skip("the reference has no evaluation of this model")
    segmenter = EarlyFusionSegmenter(reference.folded, ZoomRule())
    encoded, prompt, previous = segmenter.encode(inputs["image_A"]), Prompt(), None
    for (row, column, positive), iou in zip(
        arrays["eval_clicks"].tolist(), arrays["eval_ious"], strict=True
    ):
        seen = np.zeros_like(truth) if previous is None else previous.mask
        click = next_click(truth, seen, prompt.clicks)
        assert (click.y, click.x, click.positive) == (row, column, bool(positive))
        prompt = prompt.add(click)
        previous = segmenter.predict(encoded, prompt, previous)
        both = (previous.mask & truth).sum() / (previous.mask | truth).sum()
        assert both == pytest.approx(iou, abs=1e-3)


class TestNames:
    @pytest.mark.parametrize("variant", WIDTHS)
    def test_expected_names_and_shapes_are_the_official_ones(
        self, fixtures: Path, variant: str
    ) -> None:
        assert expected_shapes(variant) == golden.official_shapes(fixtures, variant)

    @pytest.mark.parametrize("variant", WIDTHS)
    def test_recognises_its_own(self, variant: str) -> None:
        state = {
            name: torch.empty(shape, device="meta")
            for name, shape in expected_shapes(variant).items()
        }
        assert recognise(state) == variant
        assert recognise(state | {"refiner.refine_pred.bias": torch.empty(1)}) is None
        name = "feature_extractor.transition1.0.1.weight"
        assert recognise(state | {name: torch.empty(48)}) is None
        assert recognise({}) is None


def test_every_weight_that_learns_gets_a_gradient() -> None:
    net = build(SMALL).train()
    points = torch.tensor([[[20.0, 30, 0], [9, 5, 1]]] * 2)
    answer = net.answer(torch.rand(2, 4, 64, 64), points)
    (answer.logits.square().mean() + answer.auxiliary.square().mean()).backward()
    for name, weight in net.named_parameters():
        assert (weight.grad is not None) == weight.requires_grad, name


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Random weights of the smallest member under their official names."""
    return golden.weights(expected_shapes(SMALL), 0.75)


def config(**changes: Any) -> dict[str, Any]:
    """What an official file says of its network."""
    params = {
        "width": 18,
        "small": True,
        "use_disks": True,
        "norm_radius": 5,
        "with_prev_mask": True,
        "norm_mean_std": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }
    entries = {
        name: {"type": "builtin", "value": value, "specified": True}
        for name, value in (params | changes).items()
    }
    norm = {"type": "class", "value": "torch.nn.modules.batchnorm.BatchNorm2d", "specified": False}
    entries["norm_layer"] = norm
    return {"class": "isegm.model.is_hrnet_model.HRNetModel", "params": entries}


class TestFamily:
    def test_an_official_file_becomes_a_model(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: dict[str, Tensor]
    ) -> None:
        monkeypatch.setenv("HISTOCLICK_HOME", str(tmp_path))
        file = tmp_path / "coco_lvis_h18s_itermask.pth"
        torch.save({"state_dict": weights, "config": config()}, file)
        folder = registry.import_model(file, "ritm", "ritm-hrnet18s")
        card, _ = registry.find("ritm-hrnet18s")
        assert (folder.name, card.family, card.architecture) == ("ritm-hrnet18s", "ritm", SMALL)
        assert (card.input_size, card.licence[:3], card.untrained) == (400, "MIT", False)
        segmenter = registry.load("ritm-hrnet18s")
        assert isinstance(segmenter, EarlyFusionSegmenter)
        assert segmenter.settings == {"zoom": str(ZoomRule(400)), "tta": "flip"}
        image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
        encoded, prompt = segmenter.encode(image), Prompt((Click(30, 20),))
        first = segmenter.predict(encoded, prompt)
        plain = EarlyFusionSegmenter(build(SMALL, weights), ZoomRule(400))
        np.testing.assert_allclose(
            first.logits, plain.predict(encoded, prompt).logits, rtol=0, atol=1e-3
        )
        second = segmenter.predict(encoded, prompt.add(Click(60, 44, positive=False)), first)
        assert second.logits.shape == (50, 70)
        assert np.abs(second.logits - first.logits).max() > 1e-3

    def test_the_config_of_the_reference_is_one_it_takes(
        self, fixtures: Path, tmp_path: Path
    ) -> None:
        for variant in WIDTHS:
            keys = json.loads((fixtures / f"keys_{variant}.json").read_text())
            torch.save({"state_dict": {}, "config": keys["config"]}, tmp_path / "a.pth")
            told = read_params(tmp_path / "a.pth")
            assert {name: told[name] for name in family.SHOWN} == family.SHOWN
            assert config()["params"].keys() <= keys["config"]["params"].keys()

    def test_a_file_of_weights_alone_is_taken(
        self, tmp_path: Path, weights: dict[str, Tensor]
    ) -> None:
        for name in ("a.pth", "a.safetensors"):
            if name.endswith("pth"):
                torch.save(weights, tmp_path / name)
            else:
                write_safetensors(weights, tmp_path / name)
            assert family.convert(tmp_path / name, "mine", tmp_path).architecture == SMALL

    def test_random_weights_are_official_ones(self, tmp_path: Path) -> None:
        drawn = read_state_dict(family.draw(SMALL, tmp_path))
        assert {name: tuple(weight.shape) for name, weight in drawn.items()} == expected_shapes(
            SMALL
        )
        with pytest.raises(HistoclickError, match="ritm: unknown architecture 'hrnet48'"):
            family.draw("hrnet48", tmp_path)

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"extra": torch.zeros(1)}, "1 unexpected"),
            ({"maps_transform.0.weight": torch.zeros(16, 2, 1, 1)}, "1 of the wrong shape"),
            ({"refiner.refine_pred.bias": torch.zeros(1)}, "not a RITM checkpoint"),
        ],
    )
    def test_other_weights_are_refused(
        self,
        tmp_path: Path,
        weights: dict[str, Tensor],
        change: dict[str, Tensor],
        sentence: str,
    ) -> None:
        torch.save({"state_dict": weights | change}, tmp_path / "other.pth")
        with pytest.raises(HistoclickError, match=sentence):
            family.convert(tmp_path / "other.pth", "mine", tmp_path)

    def test_clicks_shown_in_another_way_are_refused(
        self, tmp_path: Path, weights: dict[str, Tensor]
    ) -> None:
        content = {"state_dict": weights, "config": config(use_disks=False, norm_radius=260)}
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(HistoclickError, match="use_disks = False"):
            family.convert(tmp_path / "other.pth", "mine", tmp_path)

    def test_a_damaged_card_is_refused(self, tmp_path: Path, weights: dict[str, Tensor]) -> None:
        torch.save({"state_dict": weights}, tmp_path / "a.pth")
        card = family.convert(tmp_path / "a.pth", "mine", tmp_path)
        fields = vars(card)
        with pytest.raises(HistoclickError, match="unknown architecture"):
            family.load(type(card)(**fields | {"architecture": "hrnet48"}), tmp_path, "cpu")
        with pytest.raises(HistoclickError, match="input_size is 0"):
            family.load(type(card)(**fields | {"input_size": 0}), tmp_path, "cpu")
