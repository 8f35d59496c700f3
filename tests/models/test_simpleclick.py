"""SimpleClick against the reference's numbers, and as a family of the registry."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import golden
from histoclick.clicks import next_click
from histoclick.models import registry
from histoclick.models.earlyfusion import EarlyFusionSegmenter
from histoclick.models.simpleclick import family
from histoclick.models.simpleclick.network import (
    VARIANTS,
    SimpleClickNet,
    build,
    expected_shapes,
    recognise,
)
from histoclick.models.simpleclick.vit import grid_positions
from histoclick.models.weights import write_safetensors
from histoclick.models.zoom import Roi, ZoomRule
from histoclick.types import Click, HistoclickError, Prediction, Prompt

Arrays = dict[str, NDArray[Any]]

SMALL = "xtiny448"
WITH_FIXTURES = (SMALL, "base448", "base448_upx4", "large448", "huge448")
MODELS = [pytest.param(v, marks=[] if v == SMALL else [pytest.mark.slow]) for v in WITH_FIXTURES]
SIDE = 448  # px of the squares in the forward fixtures


class Reference(NamedTuple):
    """One model with the weights of the reference, and its numbers."""

    net: SimpleClickNet
    arrays: Arrays


@pytest.fixture(scope="module")
def fixtures(shared: Path) -> Path:
    return shared / "conformance/simpleclick"


@pytest.fixture(scope="module")
def inputs(shared: Path) -> Arrays:
    return golden.arrays(shared / "conformance/inputs/inputs.npz")


@pytest.fixture(scope="module", params=MODELS)
def reference(fixtures: Path, request: pytest.FixtureRequest) -> Reference:
    name = request.param
    net = build(name, golden.official_weights(fixtures, name)).eval()
    return Reference(net, golden.arrays(fixtures / f"{name}.npz"))


def stats(full: NDArray[Any]) -> list[float]:
    return [full.mean(dtype=np.float64), full.std(dtype=np.float64), full.min(), full.max()]


def agrees(arrays: Arrays, name: str, full: NDArray[Any], stride: int) -> None:
    """``full`` is what the fixture holds of it, and has its mean, std, min and max."""
    found = full[..., ::stride, ::stride]
    np.testing.assert_allclose(found, arrays[name], rtol=0, atol=1e-3, err_msg=name)
    told = arrays[f"{name}__stats"]
    np.testing.assert_allclose(stats(full), told, rtol=0, atol=1e-3, err_msg=name)


def square(maps: NDArray[Any]) -> Tensor:
    """(C, H, W) -> (1, C, SIDE, SIDE)."""
    whole = torch.from_numpy(maps)[None]
    return F.interpolate(whole, (SIDE, SIDE), mode="bilinear", align_corners=True)


def before(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The probabilities that the reference took for a previous mask."""
    return np.float32(0.15) + np.float32(0.7) * mask


@torch.inference_mode()
def test_network(reference: Reference, inputs: Arrays) -> None:
    net, arrays = reference
    seen: dict[str, Any] = {}
    for part in (net.backbone, net.neck):
        part.register_forward_hook(
            lambda part, _, output: seen.update({type(part).__name__: output})
        )
    image = inputs["image_A"].transpose(2, 0, 1).astype(np.float32) / 255
    maps = torch.cat([square(image), square(before(inputs["object_A"])[None])], 1)
    logits = net(maps, torch.from_numpy(arrays["fwd_points"]))
    tokens = seen["PlainViT"].flatten(2).transpose(1, 2)[0, ::37, ::16]
    np.testing.assert_allclose(tokens, arrays["fwd_tokens_sub"], rtol=0, atol=1e-3)
    for stride, grid in zip((4, 8, 16, 32), seen["Pyramid"], strict=True):
        told = arrays[f"fwd_neck_stats_{stride}"]
        np.testing.assert_allclose(stats(grid.numpy()), told, rtol=0, atol=1e-3)
    sub = seen["Pyramid"][2][:, ::32, ::2, ::2]
    np.testing.assert_allclose(sub, arrays["fwd_neck16_sub"], rtol=0, atol=1e-3)
    agrees(arrays, "fwd_instances", logits.numpy(), 4)


@pytest.mark.parametrize("case", ["cvpr", "injected", "rect", "davis672"])
def test_clicks(reference: Reference, inputs: Arrays, case: str) -> None:
    net, arrays = reference
    if f"{case}_clicks" not in arrays:
        pytest.skip(f"the reference has no case {case} of this model")
    image, side = "B" if case == "rect" else "A", 672 if case == "davis672" else SIDE
    segmenter = EarlyFusionSegmenter(net, ZoomRule((side, side), skip_clicks=-1))
    encoded, prompt, previous = segmenter.encode(inputs[f"image_{image}"]), Prompt(), None
    if case == "injected":
        probabilities = before(inputs["object_A"])
        previous = Prediction(np.log(probabilities / (1 - probabilities)))
    rois = iter(arrays[f"{case}_rois"].tolist())
    for n, (row, column, positive) in enumerate(arrays[f"{case}_clicks"].tolist(), start=1):
        prompt = prompt.add(Click(column, row, bool(positive)))
        if case == "injected" and n == 1:
            continue
        previous = segmenter.predict(encoded, prompt, previous)
        agrees(arrays, f"{case}_prob_{n}", previous.memory.probabilities[0, 0].numpy(), 4)
        wrong = np.count_nonzero(previous.mask != arrays[f"{case}_mask_{n}"])
        assert wrong <= 0.0005 * previous.mask.size, n
        assert previous.memory.roi == Roi(*next(rois)), n


def test_evaluation(reference: Reference, inputs: Arrays) -> None:
    net, arrays = reference
    if "eval_clicks" not in arrays:
        pytest.skip("the reference has no evaluation of this model")
    segmenter = EarlyFusionSegmenter(net, ZoomRule((SIDE, SIDE), skip_clicks=-1))
    truth = inputs["object_A"]
    encoded, prompt, previous = segmenter.encode(inputs["image_A"]), Prompt(), None
    for (row, column, positive), iou in zip(
        arrays["eval_clicks"].tolist(), arrays["eval_ious"], strict=True
    ):
        mask = np.zeros_like(truth) if previous is None else previous.mask
        click = next_click(truth, mask, prompt.clicks)
        assert (click.y, click.x, click.positive) == (row, column, bool(positive))
        prompt = prompt.add(click)
        previous = segmenter.predict(encoded, prompt, previous)
        both = (previous.mask & truth).sum() / (previous.mask | truth).sum()
        assert both == pytest.approx(iou, abs=1e-3)


class TestPositions:
    def test_of_the_pre_training_are_resized(self, fixtures: Path) -> None:
        arrays = golden.arrays(fixtures / "pos_embed_resize.npz")
        grid = grid_positions(torch.from_numpy(arrays["in"]), 28, 28)
        tokens = grid.flatten(2).transpose(1, 2)
        np.testing.assert_allclose(tokens, arrays["out"][:, 1:], rtol=0, atol=1e-5)

    def test_of_a_larger_input_are_resized(self, reference: Reference) -> None:
        net, arrays = reference
        if "posembed672_sub" not in arrays:
            pytest.skip("the reference has no larger input of this model")
        grid = grid_positions(net.backbone.pos_embed.detach(), 42, 42)
        tokens = grid.flatten(2).transpose(1, 2)[0]
        shape = arrays["posembed672_shape"].tolist()
        assert [1, 1 + tokens.shape[0], tokens.shape[1]] == shape
        whole = torch.cat([net.backbone.pos_embed[0, :1].detach(), tokens])
        sub = whole[::61, ::16]
        np.testing.assert_allclose(sub, arrays["posembed672_sub"], rtol=0, atol=1e-5)

    def test_stay_where_the_grid_is_theirs(self) -> None:
        embedding = torch.rand(1, 10, 4)
        grid = grid_positions(embedding, 3, 3)
        assert torch.equal(grid.flatten(2).transpose(1, 2), embedding[:, 1:])


class TestNames:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_expected_names_and_shapes_are_the_official_ones(
        self, fixtures: Path, variant: str
    ) -> None:
        assert expected_shapes(variant) == golden.official_shapes(fixtures, variant)

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_recognises_its_own(self, variant: str) -> None:
        state = {
            name: torch.empty(shape, device="meta")
            for name, shape in expected_shapes(variant).items()
        }
        assert recognise(state) == variant
        del state["patch_embed_coords.proj.weight"]
        assert recognise(state) is None


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Random weights of the smallest member under their official names."""
    return golden.weights(expected_shapes(SMALL))


class TestNetwork:
    @pytest.mark.parametrize("doublings", [0, 1, 2])
    def test_every_weight_that_learns_gets_a_gradient(self, doublings: int) -> None:
        trunk = VARIANTS[SMALL].trunk._replace(depth=2, input_px=224)
        net = SimpleClickNet(VARIANTS[SMALL]._replace(trunk=trunk, doublings=doublings)).train()
        points = torch.tensor([[[20.0, 30, 0], [9, 5, 1]]] * 2)
        net(torch.rand(2, 4, 224, 224), points).square().mean().backward()
        for name, weight in net.named_parameters():
            assert (weight.grad is not None) == weight.requires_grad, name
            assert weight.requires_grad != name.startswith(
                ("backbone.cls_token", "backbone.fc_norm", "backbone.head")
                + (family.SPARE[doublings:] or ("-",))
            ), name

    def test_blocks_see_windows_but_for_every_period(self, weights: dict[str, Tensor]) -> None:
        net = build(SMALL, weights).eval()
        image, features = torch.rand(1, 3, 448, 448), torch.zeros(1, 160, 28, 28)
        other = image.clone()
        other[..., 224:, 224:] = 0  # one of the four windows
        with torch.inference_mode():
            mixed = net.backbone(image, features) != net.backbone(other, features)
            net.backbone.period = 99
            apart = net.backbone(image, features) != net.backbone(other, features)
        assert mixed.any(1).all()
        assert apart[..., 14:, 14:].any()
        assert not apart[..., :14, :].any()
        assert not apart[..., :14].any()


@pytest.fixture
def training_code(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of a loss that exists where files were made, and nowhere else."""
    module = ModuleType("isegm_like.model.losses")

    class CrossEntropyLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loss_weight = 1.0
            self.class_weight = None
            self.register_buffer("scale", torch.ones(3))
            self.criterion = binary_cross_entropy

    def binary_cross_entropy(pred: Tensor, label: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(pred, label)

    for made in (CrossEntropyLoss, binary_cross_entropy):
        made.__module__, made.__qualname__ = module.__name__, made.__name__
        setattr(module, made.__name__, made)
    for name in ("isegm_like", "isegm_like.model"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def official(state: dict[str, Tensor], loss: Any) -> dict[str, Any]:
    """What an official file holds."""
    backbone = {"img_size": (448, 448), "patch_size": (16, 16), "embed_dim": 160, "qkv_bias": True}
    head = {"in_channels": [96, 192, 288, 384], "loss_decode": loss, "dropout_ratio": 0.1}
    values = {"backbone_params": backbone, "head_params": head, "norm_radius": 5}
    params = {
        name: {"type": "builtin", "value": value, "specified": True}
        for name, value in values.items()
    }
    config = {"class": "isegm.model.is_plainvit_model.PlainVitModel", "params": params}
    return {"state_dict": state, "config": config}


@pytest.fixture
def official_file(
    tmp_path: Path,
    weights: dict[str, Tensor],
    training_code: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """An official file, on a machine that has no training code."""
    path = tmp_path / "cocolvis_vit_xtiny.pth"
    torch.save(official(weights, training_code.CrossEntropyLoss()), path)
    for name in [name for name in sys.modules if name.startswith("isegm_like")]:
        monkeypatch.delitem(sys.modules, name)
    return path


PICTURE = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)


class TestFamily:
    def test_an_official_file_becomes_a_model(
        self,
        tmp_path: Path,
        official_file: Path,
        weights: dict[str, Tensor],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("HISTOCLICK_HOME", str(tmp_path))
        registry.import_model(official_file, "simpleclick", "mine")
        card, _ = registry.find("mine")
        assert (card.architecture, card.input_size, card.notes) == (SMALL, 448, ())
        assert not [name for name in sys.modules if name.startswith("isegm")]
        segmenter = registry.load("mine")
        alone = EarlyFusionSegmenter(build(SMALL, weights), ZoomRule((448, 448), skip_clicks=-1))
        answers = []
        for each in (segmenter, alone):
            encoded, prompt = each.encode(PICTURE), Prompt((Click(60, 40),))
            first = each.predict(encoded, prompt)
            answers.append(each.predict(encoded, prompt.add(Click(9, 80, False)), first))
        assert answers[0].logits.shape == PICTURE.shape[:2]
        assert answers[0].logits.std() > 0
        np.testing.assert_array_equal(answers[0].logits, answers[1].logits)

    def test_says_how_it_predicts(self, tmp_path: Path, official_file: Path) -> None:
        card = family.convert(official_file, "mine", tmp_path)
        settings = family.load(card, tmp_path, "cpu").settings
        assert settings["tta"] == "flip"
        assert settings["zoom"].startswith("to 448 x 448 px, always")

    def test_the_card_says_how_large_the_input_is(
        self, tmp_path: Path, official_file: Path
    ) -> None:
        fields = vars(family.convert(official_file, "mine", tmp_path))
        card = type(family.convert(official_file, "mine", tmp_path))(**fields | {"input_size": 224})
        segmenter = family.load(card, tmp_path, "cpu")
        answer = segmenter.predict(segmenter.encode(PICTURE), Prompt((Click(60, 40),)))
        assert answer.logits.shape == PICTURE.shape[:2]
        for size in (0, 400):
            with pytest.raises(HistoclickError, match=f"input_size is {size}"):
                family.load(type(card)(**fields | {"input_size": size}), tmp_path, "cpu")
        with pytest.raises(HistoclickError, match="unknown architecture 'tiny'"):
            family.load(type(card)(**fields | {"architecture": "tiny"}), tmp_path, "cpu")

    def test_a_file_without_up_convolutions(
        self, tmp_path: Path, weights: dict[str, Tensor]
    ) -> None:
        bare = {name: value for name, value in weights.items() if "up_conv" not in name}
        write_safetensors(bare, tmp_path / "bare.safetensors")
        card = family.convert(tmp_path / "bare.safetensors", "mine", tmp_path)
        assert "no up-convolutions" in card.notes[0]
        segmenter = family.load(card, tmp_path, "cpu")
        whole = EarlyFusionSegmenter(build(SMALL, weights), segmenter.rule)
        prompt = Prompt((Click(60, 40),))
        np.testing.assert_array_equal(
            segmenter.predict(segmenter.encode(PICTURE), prompt).logits,
            whole.predict(whole.encode(PICTURE), prompt).logits,
        )

    def test_other_files_are_refused(self, tmp_path: Path, weights: dict[str, Tensor]) -> None:
        file = tmp_path / "other.pth"
        torch.save({"state_dict": {"backbone.weight": torch.zeros(3)}}, file)
        with pytest.raises(HistoclickError, match="not a SimpleClick checkpoint"):
            family.convert(file, "mine", tmp_path)
        torch.save({"state_dict": weights | {"extra": torch.zeros(1)}}, file)
        with pytest.raises(HistoclickError, match="1 unexpected"):
            family.convert(file, "mine", tmp_path)
        half = {name: value for name, value in weights.items() if "up_conv2" not in name}
        torch.save({"state_dict": half}, file)
        with pytest.raises(HistoclickError, match="8 missing"):
            family.convert(file, "mine", tmp_path)

    def test_a_truncated_file_is_told_in_one_sentence(
        self, tmp_path: Path, official_file: Path
    ) -> None:
        whole = official_file.read_bytes()
        official_file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(HistoclickError, match="is damaged or no weight file") as error:
            family.convert(official_file, "mine", tmp_path)
        assert "\n" not in str(error.value)
