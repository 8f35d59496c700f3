"""FocalClick's networks against the reference's numbers, and as a family of the registry."""

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
from histoclick.models.focalclick import family
from histoclick.models.focalclick.network import (
    VARIANTS,
    FocalClickNet,
    build,
    expected_shapes,
    recognise,
)
from histoclick.models.focalclick.refiner import resize
from histoclick.models.focalclick.segmenter import FocalClickSegmenter
from histoclick.models.nets.fold import fold
from histoclick.models.weights import read_state_dict, write_safetensors
from histoclick.types import Click, HistoclickError, Prediction, Prompt

Arrays = dict[str, NDArray[Any]]

SMALL = "segformerB0_S1"
SLOW = ("segformerB3_S2", "hrnet32_S2")
MODELS = [pytest.param(v, marks=[pytest.mark.slow] if v in SLOW else []) for v in VARIANTS]
SIDE = 256  # px of the squares in the forward fixtures


class Reference(NamedTuple):
    """One model with the weights of the reference, as trained and as it predicts, its numbers."""

    net: FocalClickNet
    folded: FocalClickNet
    arrays: Arrays


@pytest.fixture(scope="module")
def conformance(shared: Path) -> Path:
    return shared / "conformance"


@pytest.fixture(scope="module")
def inputs(conformance: Path) -> Arrays:
    return golden.arrays(conformance / "inputs/inputs.npz")


@pytest.fixture(scope="module", params=MODELS)
def reference(conformance: Path, request: pytest.FixtureRequest) -> Reference:
    folder, name = conformance / "focalclick", request.param
    net = build(name, golden.official_weights(folder, name)).eval()
    folded = copy.deepcopy(net)
    fold(folded, "cpu")
    return Reference(net, folded, golden.arrays(folder / f"{name}.npz"))


@torch.inference_mode()
def test_both_networks(reference: Reference, inputs: Arrays) -> None:
    arrays = reference.arrays
    image = torch.from_numpy(inputs["image_A"]).permute(2, 0, 1)[None] / 255
    before = torch.from_numpy(np.float32(0.15) + np.float32(0.7) * inputs["object_A"])[None, None]
    points = torch.from_numpy(arrays["fwd_points"])
    top, bottom, left, right = arrays["refine_crop_yyxx"]
    for net in (reference.net, reference.folded):
        coarse = net(resize(image, (SIDE, SIDE)), resize(before, (SIDE, SIDE)), points)
        golden.agrees(arrays, "fwd_instances", coarse.logits, 2, 5e-4)
        golden.agrees(arrays, "fwd_feature", coarse.feature[:, ::16], 2, 5e-4)
        assert ("fwd_instances_aux" in arrays) == (coarse.auxiliary is not None)
        if coarse.auxiliary is not None:
            golden.agrees(arrays, "fwd_instances_aux", coarse.auxiliary, 4, 5e-4)
        refined = net.refine(
            resize(image[:, :, top:bottom, left:right], (SIDE, SIDE)),
            torch.from_numpy(arrays["refine_points"]),
            coarse,
            torch.from_numpy(arrays["refine_roi"])[:, 1:],
        )
        golden.agrees(arrays, "refine_instances_refined", refined.logits, 2, 2e-3)
        golden.agrees(arrays, "refine_trimap", refined.trimap, 2, 2e-3)
        golden.agrees(arrays, "refine_instances_coarse", refined.coarse, 2, 5e-4)


@pytest.mark.parametrize("case", ["inf256", "inf384", "rect", "many", "injected"])
def test_clicks(reference: Reference, inputs: Arrays, case: str) -> None:
    arrays = reference.arrays
    if f"{case}_clicks" not in arrays:
        pytest.skip(f"the reference has no case {case} of this model")
    image, stride = "B" if case == "rect" else "A", 8 if case == "many" else 4
    side = 384 if case == "inf384" else 256
    segmenter = FocalClickSegmenter(reference.folded, input_px=side, merge="never")
    encoded, prompt, previous = segmenter.encode(inputs[f"image_{image}"]), Prompt(), None
    if case == "injected":
        previous = Prediction.of_mask(inputs[f"object_{image}"])
    for n, (row, column, positive) in enumerate(arrays[f"{case}_clicks"].tolist(), start=1):
        prompt = prompt.add(Click(column, row, bool(positive)))
        if case == "injected" and n == 1:
            continue
        previous = segmenter.predict(encoded, prompt, previous)
        golden.agrees(arrays, f"{case}_prob_{n}", previous.memory.probabilities, stride, 1e-3)
        wrong = np.count_nonzero(previous.mask != arrays[f"{case}_mask_{n}"])
        assert wrong <= 0.0005 * previous.mask.size, n
        for which, roi in (("focus", previous.memory.focus), ("global", previous.memory.target)):
            found = [roi.y0, roi.y1 + 1, roi.x0, roi.x1 + 1]
            expected = (
                arrays[f"injected_{which}_rois"][n - 2]
                if case == "injected"
                else arrays[f"{case}_x_{n}_{which}_roi"]
            )
            assert found == expected.tolist(), (n, which)


@pytest.mark.slow
def test_evaluation(reference: Reference, inputs: Arrays) -> None:
    arrays = reference.arrays
    if "eval_clicks" not in arrays:
        pytest.skip("the reference has no evaluation of this model")
    segmenter, truth = FocalClickSegmenter(reference.folded), inputs["object_A"]
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


def test_says_how_it_predicts() -> None:
    segmenter = FocalClickSegmenter(build(SMALL), input_px=384)
    assert segmenter.settings == {
        "zoom": "to 384 x 384 px, from click 2 on, expansion 1.4, at least 10 px; focus crop 1.4",
        "tta": "none",
        "merge": "initial",
    }


class TestNames:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_expected_names_and_shapes_are_the_official_ones(
        self, conformance: Path, variant: str
    ) -> None:
        official = golden.official_shapes(conformance / "focalclick", variant)
        assert expected_shapes(variant) == official

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_recognises_its_own(self, variant: str) -> None:
        state = {
            name: torch.empty(shape, device="meta")
            for name, shape in expected_shapes(variant).items()
        }
        assert recognise(state) == variant.partition("_")[0]
        bare = {name: weight for name, weight in state.items() if not name.startswith("refiner")}
        assert recognise(bare) is None  # as of another click model on this backbone

    def test_does_not_recognise_another_width(self) -> None:
        state = {
            "refiner.refine_trimap.weight": torch.zeros(1, 32, 3, 3),
            "feature_extractor.backbone.norm1.weight": torch.zeros(48),
        }
        assert recognise(state) is None


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Random weights of the smallest member under their official names."""
    return golden.weights(expected_shapes(SMALL))


class TestTraining:
    @pytest.mark.parametrize("variant", [SMALL, "hrnet18s_S2"])
    def test_every_weight_that_learns_gets_a_gradient(self, variant: str) -> None:
        net = build(variant).train()
        image, before = torch.rand(2, 3, 64, 64), torch.rand(2, 1, 64, 64)
        points = torch.tensor([[[20.0, 30, 0], [9, 5, 1]]] * 2)
        coarse = net(image, before, points)
        boxes = torch.tensor([[8.0, 8, 40, 40], [0, 0, 64, 64]])
        refined = net.refine(image, points, coarse, boxes)
        loss = refined.logits.square().mean() + refined.trimap.square().mean()
        if coarse.auxiliary is not None:
            loss = loss + coarse.auxiliary.square().mean()
        loss.backward()
        for name, weight in net.named_parameters():
            assert (weight.grad is not None) == weight.requires_grad, name

    def test_s1_is_not_s2(self, weights: dict[str, Tensor]) -> None:
        points, before = torch.tensor([[[20.0, 30, 0], [-1, -1, -1]]]), torch.zeros(1, 1, 64, 64)
        image = torch.rand(1, 3, 64, 64)
        with torch.inference_mode():
            small, large = (
                build(name, weights).eval()(image, before, points)
                for name in ("segformerB0_S1", "segformerB0_S2")
            )
        assert small.logits.shape == large.logits.shape
        assert small.feature.shape[2] * 2 == large.feature.shape[2]


def config(pipeline: str) -> dict[str, Any]:
    """The part of an official file's config that says S1 or S2, with its neighbours."""
    params = {"pipeline_version": pipeline, "model_version": "b0", "norm_radius": 5}
    entries = {
        name: {"type": "builtin", "value": value, "specified": True}
        for name, value in params.items()
    }
    return {"class": "isegm.model.is_segformer_model.SegFormerModel", "params": entries}


class TestFamily:
    @pytest.mark.parametrize(
        ("name", "pipeline", "expected", "how"),
        [
            ("last_checkpoint.pth", "s1", "segformerB0_S1", "config"),
            ("segformerB0_S1_cclvs.pth", "s2", "segformerB0_S2", "config"),
            ("segformerB0_S1_cclvs.pth", None, "segformerB0_S1", "file name"),
            ("is1and2.pth", None, "segformerB0_S2", "neither"),
        ],
    )
    def test_an_official_file_becomes_a_model(
        self,
        tmp_path: Path,
        weights: dict[str, Tensor],
        name: str,
        pipeline: str | None,
        expected: str,
        how: str,
    ) -> None:
        content: dict[str, Any] = {"state_dict": weights}
        if pipeline is not None:
            content["config"] = config(pipeline)
        torch.save(content, tmp_path / name)
        card = family.convert(tmp_path / name, "mine", tmp_path)
        assert (card.architecture, card.family, card.input_size) == (expected, "focalclick", 256)
        assert how in card.notes[0]
        stored = read_state_dict(tmp_path / "weights.safetensors")
        assert stored.keys() == weights.keys()
        segmenter = family.load(card, tmp_path, "cpu")
        assert segmenter.net.halved == (expected == "segformerB0_S1")

    @pytest.mark.parametrize("architecture", [SMALL, "hrnet18s_S1"])
    def test_an_imported_model_answers_as_its_weights_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
    ) -> None:
        monkeypatch.setenv("HISTOCLICK_HOME", str(tmp_path))
        weights = golden.weights(expected_shapes(architecture))
        content = {"state_dict": weights, "config": config(architecture[-2:].lower())}
        torch.save(content, tmp_path / "last_checkpoint.pth")
        registry.import_model(tmp_path / "last_checkpoint.pth", "focalclick", "mine")
        card, _ = registry.find("mine")
        assert (card.architecture, card.licence[:3]) == (architecture, "MIT")
        segmenter = registry.load("mine")
        assert isinstance(segmenter, FocalClickSegmenter)
        plain = FocalClickSegmenter(build(architecture, weights))
        image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
        encoded, prompt, answer, again = segmenter.encode(image), Prompt(), None, None
        for click in (Click(30, 20), Click(60, 44, positive=False)):
            prompt = prompt.add(click)
            answer = segmenter.predict(encoded, prompt, answer)
            again = plain.predict(encoded, prompt, again)
            assert answer.memory.focus == again.memory.focus
            np.testing.assert_allclose(answer.logits, again.logits, rtol=0, atol=2e-3)

    def test_the_config_of_the_reference_says_which(self, conformance: Path) -> None:
        for variant in VARIANTS:
            keys = json.loads((conformance / f"focalclick/keys_{variant}.json").read_text())
            value = keys["config"]["params"]["pipeline_version"]
            assert config(variant[-2:].lower())["params"]["pipeline_version"] == value

    def test_a_safetensors_file_has_no_config(
        self, tmp_path: Path, weights: dict[str, Tensor]
    ) -> None:
        write_safetensors(weights, tmp_path / "mine_s1.safetensors")
        card = family.convert(tmp_path / "mine_s1.safetensors", "mine", tmp_path)
        assert card.architecture == "segformerB0_S1"

    def test_random_weights_are_official_ones(self, tmp_path: Path) -> None:
        drawn = read_state_dict(family.draw("hrnet18s_S1", tmp_path))
        found = {name: tuple(weight.shape) for name, weight in drawn.items()}
        assert found == expected_shapes("hrnet18s_S1")
        with pytest.raises(HistoclickError, match="focalclick: unknown architecture 'B9'"):
            family.draw("B9", tmp_path)

    def test_other_files_are_refused(self, tmp_path: Path, weights: dict[str, Tensor]) -> None:
        file = tmp_path / "other_S2.pth"
        torch.save({"state_dict": {"backbone.weight": torch.zeros(3)}}, file)
        with pytest.raises(HistoclickError, match="not a FocalClick checkpoint"):
            family.convert(file, "mine", tmp_path)
        torch.save({"state_dict": weights | {"extra": torch.zeros(1)}}, file)
        with pytest.raises(HistoclickError, match="1 unexpected"):
            family.convert(file, "mine", tmp_path)
        wide = "feature_extractor.backbone.norm1.weight"
        torch.save({"state_dict": weights | {wide: torch.zeros(64)}, "config": config("s1")}, file)
        with pytest.raises(HistoclickError, match="segformerB3_S1 was never published"):
            family.convert(file, "mine", tmp_path)

    def test_a_damaged_card_is_refused(self, tmp_path: Path, weights: dict[str, Tensor]) -> None:
        torch.save({"state_dict": weights}, tmp_path / "a.pth")
        card = family.convert(tmp_path / "a.pth", "mine", tmp_path)
        fields = vars(card)
        with pytest.raises(HistoclickError, match="unknown architecture"):
            family.load(type(card)(**fields | {"architecture": "B7"}), tmp_path, "cpu")
        with pytest.raises(HistoclickError, match="input_size is 0"):
            family.load(type(card)(**fields | {"input_size": 0}), tmp_path, "cpu")
