"""SAM's successors from Hub folders: tiny networks with arbitrary weights, whole code paths."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

import golden
import histoclick
from histoclick.files import sha256
from histoclick.models import registry
from histoclick.models.card import read_card
from histoclick.models.peers import family
from histoclick.models.peers.kinds import KINDS
from histoclick.models.peers.segmenter import PeerSegmenter
from histoclick.types import RGB8, Box, Click, HistoclickError, Prediction, Prompt, Segmenter

CLICKS = (Click(30, 20), Click(50, 60, positive=False), Click(12.5, 70))
SHAPES = {"wide": (90, 140), "high": (200, 80)}

DECODER = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
PYRAMID = {"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]], "fpn_hidden_size": 32}
HIERA = {
    "model_type": "sam2_hiera_det_model",
    "hidden_size": 8,
    "image_size": [64, 64],
    "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [8, 16, 32, 64],
    "window_size_per_stage": [4, 2, 2, 2],
    "global_attention_blocks": [3],
}
VIT = {
    "model_type": "sam3_vit_model",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "window_size": 2,
    "global_attn_indexes": [1],
    "pretrain_image_size": 28,
}
HQ = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "global_attn_indexes": [1],
    "image_size": 64,
    "output_channels": 32,
    "window_size": 2,
    "num_pos_feats": 16,
}
CHANNELS = {"backbone_channel_list": [64, 32, 16, 8]}
CONFIGS: dict[str, dict[str, Any]] = {
    "sam_hq": {
        "vision_config": HQ,
        "prompt_encoder_config": {"image_size": 64, "hidden_size": 32},
        "mask_decoder_config": DECODER | {"vit_dim": 16},
    },
    "sam2": {
        "vision_config": PYRAMID | CHANNELS | {"backbone_config": HIERA},
        "prompt_encoder_config": {"image_size": 64, "hidden_size": 32},
        "mask_decoder_config": DECODER,
    },
    "sam3_tracker": {
        "vision_config": PYRAMID | {"backbone_config": VIT},
        "prompt_encoder_config": {"image_size": 56, "patch_size": 14, "hidden_size": 32},
        "mask_decoder_config": DECODER,
    },
    "edgetam": {
        "vision_config": PYRAMID | CHANNELS | {"backbone_config": {"model_type": "steps"}},
        "prompt_encoder_config": {"image_size": 64, "hidden_size": 32},
        "mask_decoder_config": DECODER,
    },
}

SMALL = CONFIGS["sam2"]


class StepsConfig(PreTrainedConfig):
    model_type = "steps"


class Steps(PreTrainedModel):
    """Four levels of features, in the place of EdgeTAM's encoder from timm."""

    config_class = StepsConfig

    def __init__(self, config: StepsConfig) -> None:
        super().__init__(config)
        widths = [3, 8, 16, 32, 64]
        strides = [4, 2, 2, 2]
        self.steps = nn.ModuleList(
            nn.Conv2d(a, b, s, s) for a, b, s in zip(widths, widths[1:], strides, strict=False)
        )
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> SimpleNamespace:
        levels = []
        for step in self.steps:
            pixel_values = step(pixel_values).relu()
            levels.append(pixel_values)
        return SimpleNamespace(last_hidden_state=levels, hidden_states=None)


AutoConfig.register("steps", StepsConfig)
AutoModel.register(StepsConfig, Steps)


def network(type_: str) -> Any:
    """A tiny network of transformers, its weights arbitrary but not small."""
    classes = KINDS[type_].classes
    config = getattr(transformers, f"{classes}Config")(**CONFIGS[type_])
    return filled(getattr(transformers, f"{classes}Model")(config))


def filled(model: Any) -> Any:
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    model.load_state_dict(golden.weights(shapes))
    model.tie_weights()
    return model.eval()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Hub folders by model type, as ``save_pretrained`` writes them."""
    made: dict[str, Path] = {}

    def folder(type_: str) -> Path:
        if type_ not in made:
            made[type_] = tmp_path_factory.mktemp("hub") / f"tiny-{type_}"
            network(type_).save_pretrained(made[type_])
        return made[type_]

    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HISTOCLICK_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module", params=list(KINDS))
def type_(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def segmenter(
    hub: Callable[[str], Path], type_: str, tmp_path_factory: pytest.TempPathFactory
) -> PeerSegmenter:
    folder = tmp_path_factory.mktemp(type_)
    return family.load(family.convert(hub(type_), type_, folder), folder, "cpu")


@pytest.fixture(scope="module")
def images() -> dict[str, RGB8]:
    random = np.random.default_rng(3)
    return {k: random.integers(0, 256, (*shape, 3), np.uint8) for k, shape in SHAPES.items()}


@contextmanager
def overheard(segmenter: PeerSegmenter) -> Iterator[list[dict[str, Any]]]:
    """What the prompt encoder is told, click by click."""
    told: list[dict[str, Any]] = []
    hook = segmenter.model.prompt_encoder.register_forward_pre_hook(
        lambda _, args, kwargs: told.append(kwargs), with_kwargs=True
    )
    try:
        yield told
    finally:
        hook.remove()


class TestImport:
    def test_a_hub_folder_becomes_a_model(self, hub: Callable[[str], Path], type_: str) -> None:
        folder = registry.import_model(hub(type_), "peer", "my-model")
        card = read_card(folder)
        assert (card.id, card.family, card.architecture) == ("my-model", "peer", type_)
        assert card.sha256 == sha256(folder / "weights.safetensors")
        assert sha256(hub(type_) / "model.safetensors") in card.origin
        assert card.input_size == (56 if type_ == "sam3_tracker" else 64)
        assert card.parameters == sum(p.numel() for p in network(type_).parameters())
        assert not card.untrained
        assert isinstance(histoclick.load("my-model"), Segmenter)

    def test_weights_arrive(self, segmenter: PeerSegmenter, type_: str) -> None:
        expected = network(type_).state_dict()
        found = segmenter.model.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)

    def test_the_folder_s_colours_count(self, hub: Callable[[str], Path], tmp_path: Path) -> None:
        folder = edited(hub("sam2"), tmp_path)
        colours = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}
        size = {"size": {"height": 64, "width": 64}}
        (folder / "preprocessor_config.json").write_text(json.dumps(colours | size))
        registry.import_model(folder, "peer", "plain")
        (folder / "preprocessor_config.json").unlink()
        nested = {"image_processor": colours | size, "processor_class": "Sam2Processor"}
        (folder / "processor_config.json").write_text(json.dumps(nested))
        registry.import_model(folder, "peer", "nested")
        for id_ in ("plain", "nested"):
            model: Any = histoclick.load(id_)
            seen = pixels(model, np.full((64, 64, 3), 255, np.uint8))
            np.testing.assert_allclose(seen[0, :, 0, 0], [0.9, 0.4, 0.7 / 3], atol=1e-6)

    def test_of_a_video_model_the_part_for_images_is_kept(
        self, tmp_path: Path, images: dict[str, RGB8]
    ) -> None:
        small = {
            "memory_attention_hidden_size": 32,
            "memory_encoder_hidden_size": 32,
            "memory_encoder_output_channels": 8,
            "memory_attention_num_layers": 1,
            "memory_attention_feed_forward_hidden_size": 32,
            "memory_attention_rope_feat_sizes": [4, 4],
            "mask_downsampler_embed_dim": 32,
            "memory_fuser_num_layers": 1,
            "memory_fuser_embed_dim": 32,
            "memory_fuser_intermediate_dim": 32,
        }
        config = transformers.Sam2VideoConfig(**CONFIGS["sam2"], **small, image_size=64)
        filled(transformers.Sam2VideoModel(config)).save_pretrained(tmp_path / "video")
        registry.import_model(tmp_path / "video", "peer", "video")
        assert read_card(registry.find("video")[1]).architecture == "sam2"
        check_against_plain(histoclick.load("video"), network("sam2"))

    def test_of_sam_3_the_tracker_is_kept(self, tmp_path: Path) -> None:
        text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
        text |= {"num_attention_heads": 2, "vocab_size": 99, "projection_dim": 32}
        layer = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2}
        layer |= {"intermediate_size": 32}
        detector = {
            "model_type": "sam3",
            "vision_config": CONFIGS["sam3_tracker"]["vision_config"],
            "text_config": text | {"model_type": "clip_text_model"},
            "geometry_encoder_config": layer,
            "detr_encoder_config": layer,
            "detr_decoder_config": layer | {"num_queries": 3},
            "mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 2},
        }
        small = {
            "model_type": "sam3_tracker_video",
            "memory_attention_hidden_size": 32,
            "memory_encoder_hidden_size": 32,
            "memory_encoder_output_channels": 8,
            "memory_attention_num_layers": 1,
            "memory_attention_feed_forward_hidden_size": 32,
            "memory_attention_rope_feat_sizes": [4, 4],
            "mask_downsampler_embed_dim": 32,
            "memory_fuser_num_layers": 1,
            "memory_fuser_embed_dim": 32,
            "memory_fuser_intermediate_dim": 32,
            "image_size": 56,
        }
        config = transformers.Sam3VideoConfig(
            detector_config=detector, tracker_config=CONFIGS["sam3_tracker"] | small
        )
        model = transformers.Sam3VideoModel(config)
        (tmp_path / "sam3").mkdir()
        config.save_pretrained(tmp_path / "sam3")
        # under the names that the published file has; save_pretrained would change them
        save_file(model.state_dict(), tmp_path / "sam3/model.safetensors")
        registry.import_model(tmp_path / "sam3", "peer", "video")
        imported: Any = histoclick.load("video")
        assert read_card(registry.find("video")[1]).architecture == "sam3_tracker"
        theirs = model.tracker_model.mask_decoder.state_dict()
        ours = imported.model.mask_decoder.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs | ours)
        theirs = model.detector_model.vision_encoder.backbone.state_dict()
        ours = imported.model.vision_encoder.backbone.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs | ours)

    def test_nothing_in_the_folder_is_used_but_numbers(
        self, hub: Callable[[str], Path], tmp_path: Path
    ) -> None:
        folder = edited(hub("sam2"), tmp_path)
        values = json.loads((folder / "config.json").read_text())
        values["auto_map"] = {"AutoModel": "evil.Model"}
        values["quantization_config"] = {"quant_method": "evil"}
        for part in (values, values["vision_config"], values["vision_config"]["backbone_config"]):
            part["architecture"] = "hf-hub:evil/model"
            part["_attn_implementation"] = part["attn_implementation"] = "evil/kernels"
        (folder / "config.json").write_text(json.dumps(values))
        (folder / "evil.py").write_text("raise SystemExit")
        registry.import_model(folder, "peer", "mine")
        check_against_plain(histoclick.load("mine"), network("sam2"))
        assert "evil" not in (registry.find("mine")[1] / "config.json").read_text()

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (
                {"model_type": "yolo"},
                r"model type 'yolo' is not of this family; known: sam_hq, sam2",
            ),
            ({"model_type": None}, "model type 'None'"),
            ({"vision_config": {"fpn_hidden_size": "big"}}, "not a configuration of SAM 2"),
            ({"vision_config": 3}, "not a configuration of SAM 2"),
            ({"mask_decoder_config": {"num_attention_heads": 0}}, "not a configuration of SAM 2"),
        ],
    )
    def test_other_configurations(
        self, hub: Callable[[str], Path], tmp_path: Path, change: dict[str, Any], sentence: str
    ) -> None:
        folder = edited(hub("sam2"), tmp_path)
        values = json.loads((folder / "config.json").read_text()) | change
        (folder / "config.json").write_text(json.dumps(values))
        with pytest.raises(HistoclickError, match=sentence) as error:
            registry.import_model(folder, "peer", "mine")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"no_memory_embedding": None}, r"1 missing \(no_memory_embedding\)"),
            ({"surplus": torch.zeros(2)}, r"1 unexpected \(surplus\)"),
            (
                {"no_memory_embedding": torch.zeros(1, 1, 31)},
                r"no_memory_embedding \(1, 1, 31\) instead of \(1, 1, 32\)",
            ),
        ],
    )
    def test_other_weights(
        self,
        hub: Callable[[str], Path],
        tmp_path: Path,
        change: dict[str, Tensor | None],
        sentence: str,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        folder = edited(hub("sam2"), tmp_path)
        state = load_file(folder / "model.safetensors") | change
        kept = {name: weight for name, weight in state.items() if weight is not None}
        save_file(kept, folder / "model.safetensors")
        with pytest.raises(HistoclickError, match=sentence):
            registry.import_model(folder, "peer", "mine")
        assert capfd.readouterr().err == ""

    def test_incomplete_folders(self, hub: Callable[[str], Path], tmp_path: Path) -> None:
        folder = edited(hub("sam2"), tmp_path)
        with pytest.raises(HistoclickError, match="no folder; give one with config"):
            registry.import_model(folder / "model.safetensors", "peer", "mine")
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(HistoclickError, match=r"no model\.safetensors inside"):
            registry.import_model(folder, "peer", "mine")
        (folder / "config.json").write_text("{")
        with pytest.raises(HistoclickError, match="not valid JSON"):
            registry.import_model(folder, "peer", "mine")
        (folder / "config.json").unlink()
        with pytest.raises(HistoclickError, match="missing or not readable"):
            registry.import_model(folder, "peer", "mine")

    @pytest.mark.parametrize(
        "told", [{"size": {"longest_edge": 1024}}, {"image_mean": [0.5]}, {"size": [64, 64]}]
    )
    def test_preprocessing_that_cannot_be_this_network_s(
        self, hub: Callable[[str], Path], tmp_path: Path, told: dict[str, Any]
    ) -> None:
        folder = edited(hub("sam2"), tmp_path)
        (folder / "preprocessor_config.json").write_text(json.dumps(told))
        with pytest.raises(HistoclickError, match=r"preprocessor_config\.json: not"):
            registry.import_model(folder, "peer", "mine")

    def test_edgetam_s_encoder_needs_timm(self, hub: Callable[[str], Path], tmp_path: Path) -> None:
        if transformers.utils.is_timm_available():
            pytest.skip("timm is installed")
        folder = edited(hub("edgetam"), tmp_path)
        values = json.loads((folder / "config.json").read_text())
        values["vision_config"]["backbone_config"] = {
            "model_type": "timm_wrapper",
            "architecture": "repvit_m1",
        }
        (folder / "config.json").write_text(json.dumps(values))
        with pytest.raises(HistoclickError, match=r"pip install 'histoclick\[edgetam\]'"):
            registry.import_model(folder, "peer", "mine")

    def test_networks_are_drawn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        full = transformers.Sam2Config
        monkeypatch.setattr(transformers, "Sam2Config", lambda **parts: full(**(parts or SMALL)))
        folder = registry.with_random_weights("peer", "sam2", tmp_path / "random")
        assert read_card(folder).untrained
        model = histoclick.load(folder)
        answer = model.predict(model.encode(np.zeros((9, 9, 3), np.uint8)), Prompt((Click(4, 4),)))
        assert answer.logits.shape == (9, 9)
        with pytest.raises(HistoclickError, match="unknown architecture 'sam9'; known: sam_hq"):
            registry.with_random_weights("peer", "sam9", tmp_path / "other")


def edited(folder: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((folder / name).read_bytes())
    return copy


def pixels(segmenter: PeerSegmenter, image: RGB8) -> NDArray[np.float32]:
    """What the image encoder sees."""
    seen: list[Tensor] = []
    hook = segmenter.model.vision_encoder.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((*args, *kwargs.values())[0]), with_kwargs=True
    )
    segmenter.encode(image)
    hook.remove()
    return seen[0].numpy()


def check_against_plain(segmenter: Any, plain: Any) -> None:
    """Two clicks and a box on an image of the network's size, as transformers would have it."""
    side = segmenter.input_px
    image = np.random.default_rng(5).integers(0, 256, (side, side, 3), np.uint8)
    kind = KINDS[plain.config.model_type]
    ready = (image / 255.0 - kind.mean) / kind.std
    inputs: dict[str, Any] = {"pixel_values": torch.tensor(ready).permute(2, 0, 1)[None].float()}
    first, second = Click(10, 20), Click(40, 33, positive=False)
    with torch.no_grad():
        three = plain(
            **inputs,
            input_points=torch.tensor([[[[10.0, 20.0]]]]),
            input_labels=torch.tensor([[[1]]]),
            multimask_output=True,
        )
        best = three.iou_scores[0, 0].argmax()
        lowres = three.pred_masks[:, 0, best, None]
        one = plain(
            **inputs,
            input_points=torch.tensor([[[[10.0, 20.0], [40.0, 33.0]]]]),
            input_labels=torch.tensor([[[1, 0]]]),
            input_masks=lowres.clamp(-kind.limit, kind.limit),
            multimask_output=False,
        )
        boxed = plain(
            **inputs, input_boxes=torch.tensor([[[3.0, 5.0, 30.0, 44.0]]]), multimask_output=False
        )
    encoded = segmenter.encode(image)
    answer = segmenter.predict(encoded, Prompt((first,)))
    again = segmenter.predict(encoded, Prompt((first, second)), answer)
    box = segmenter.predict(encoded, Prompt(box=Box(3, 5, 30, 44)))
    for ours, theirs, mask in [(answer, three, best), (again, one, 0), (box, boxed, 0)]:
        raw = theirs.pred_masks[0, 0, mask]
        bounded = raw.clamp(-kind.limit, kind.limit)
        torch.testing.assert_close(ours.memory[0, 0], bounded, rtol=1e-5, atol=1e-5)
        whole = nn.functional.interpolate(raw[None, None], (side, side), mode="bilinear")[0, 0]
        np.testing.assert_allclose(ours.logits, whole, rtol=1e-5, atol=1e-5)
        score = float(theirs.iou_scores[0, 0, mask])
        assert ours.quality == pytest.approx(min(max(score, 0), 1), abs=1e-5)
    assert np.abs(again.logits - answer.logits).max() > 1e-2


class TestSegmenter:
    def test_agrees_with_transformers(self, segmenter: PeerSegmenter, type_: str) -> None:
        check_against_plain(segmenter, network(type_))

    @pytest.mark.parametrize("name", list(SHAPES))
    def test_clicks_land_where_the_image_lies(
        self, segmenter: PeerSegmenter, images: dict[str, RGB8], name: str
    ) -> None:
        """A bright spot around a click lies, for the network, around the coordinate it is told."""
        height, width = SHAPES[name]
        x, y = 3 * width // 4, height // 4
        image = np.zeros((height, width, 3), np.uint8)
        image[y - 7 : y + 8, x - 7 : x + 8] = 255
        seen = pixels(segmenter, image)[0, 0, :, :]
        bright = seen > (seen.max() + seen[0, 0]) / 2
        spot = np.argwhere(bright).mean(0)[::-1]
        with overheard(segmenter) as told:
            prompt = Prompt((Click(x, y),), Box(0, 0, x, y))
            segmenter.predict(segmenter.encode(image), prompt)
        point = told[0]["input_points"][0, 0, 0].numpy()
        np.testing.assert_allclose(point, spot, atol=0.7)
        np.testing.assert_array_equal(told[0]["input_boxes"][0, 0, 2:].numpy(), point)
        assert told[0]["input_labels"].tolist() == [[[1]]]

    def test_padding_is_zero_behind_normalisation(self, hub: Callable[[str], Path]) -> None:
        registry.import_model(hub("sam_hq"), "peer", "mine")
        model: Any = histoclick.load("mine")
        seen = pixels(model, np.full((100, 50, 3), 255, np.uint8))
        assert (seen[..., :, :32] > 2).all()
        assert not seen[..., 32:].any()

    def test_pictures_are_prepared_as_transformers_does(
        self, hub: Callable[[str], Path], images: dict[str, RGB8]
    ) -> None:
        from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

        theirs = SamImageProcessorPil(
            size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}
        )
        registry.import_model(hub("sam_hq"), "peer", "mine")
        model: Any = histoclick.load("mine")
        for image in images.values():
            wanted = theirs(image, return_tensors="np")["pixel_values"]
            np.testing.assert_allclose(pixels(model, image), wanted, rtol=0, atol=1e-5)

    def test_the_last_answer_is_fed_back(
        self, segmenter: PeerSegmenter, images: dict[str, RGB8]
    ) -> None:
        encoded = segmenter.encode(images["wide"])
        first = segmenter.predict(encoded, Prompt(CLICKS[:1]))
        with overheard(segmenter) as told:
            with_memory = segmenter.predict(encoded, Prompt(CLICKS[:2]), first)
            without = segmenter.predict(encoded, Prompt(CLICKS[:2]))
        assert torch.equal(told[0]["input_masks"], first.memory)
        assert told[1]["input_masks"] is None
        assert np.abs(with_memory.logits - without.logits).max() > 1e-3

    @pytest.mark.parametrize("name", list(SHAPES))
    def test_a_mask_from_elsewhere_is_a_start(
        self, segmenter: PeerSegmenter, images: dict[str, RGB8], name: str
    ) -> None:
        encoded = segmenter.encode(images[name])
        mask = np.zeros(encoded.shape, bool)
        mask[20:70, 15:60] = True
        start = Prediction.of_mask(mask)
        with overheard(segmenter) as told:
            answer = segmenter.predict(encoded, Prompt(CLICKS[:1]), start)
        fed = told[0]["input_masks"]
        assert fed.shape == answer.memory.shape
        back = segmenter._upsample(fed, encoded)[0, 0].numpy() > 0
        assert (back & mask).sum() / (back | mask).sum() > 0.85
        everywhere = Prediction.of_mask(np.ones(encoded.shape, bool))
        with overheard(segmenter) as told:
            segmenter.predict(encoded, Prompt(CLICKS[:1]), everywhere)
        fed = told[0]["input_masks"][0, 0]
        height, width = (px * fed.shape[0] // segmenter.input_px for px in encoded.resized)
        assert (fed[:height, :width] > 0).all()
        assert (fed[height + 1 :] < 0).all()
        assert (fed[:, width + 1 :] < 0).all()

    def test_a_mask_of_another_size_is_refused(
        self, segmenter: PeerSegmenter, images: dict[str, RGB8]
    ) -> None:
        encoded = segmenter.encode(images["wide"])
        with pytest.raises(ValueError, match="mask of the image's size"):
            segmenter.predict(encoded, Prompt(CLICKS), Prediction.of_mask(np.ones((9, 9), bool)))

    def test_interleaved_sessions_threads_and_undo_change_nothing(
        self, segmenter: PeerSegmenter, images: dict[str, RGB8]
    ) -> None:
        def session(name: str) -> list[Prediction]:
            encoded, answers = segmenter.encode(images[name]), []
            for count in (1, 2, 3):
                previous = answers[-1] if answers else None
                answers.append(segmenter.predict(encoded, Prompt(CLICKS[:count]), previous))
            return answers

        alone = {name: session(name) for name in images}
        names = ["wide", "high"] * 3
        with ThreadPoolExecutor(3) as pool:
            for name, answers in zip(names, pool.map(session, names), strict=True):
                for ours, theirs in zip(answers, alone[name], strict=True):
                    np.testing.assert_array_equal(ours.logits, theirs.logits)
        again = segmenter.predict(
            segmenter.encode(images["wide"]), Prompt(CLICKS), alone["wide"][1]
        )
        np.testing.assert_array_equal(again.logits, alone["wide"][2].logits)

    def test_frames_and_corners(self, segmenter: PeerSegmenter, images: dict[str, RGB8]) -> None:
        for image in images.values():
            encoded = segmenter.encode(image)
            height, width = encoded.shape
            corners = (Click(0, 0), Click(width - 1, height - 1, positive=False))
            answer = segmenter.predict(encoded, Prompt(corners, Box(0, 0, width - 1, height - 1)))
            assert answer.logits.shape == image.shape[:2]
            assert answer.logits.dtype == np.float32
            assert np.isfinite(answer.logits).all()
            with pytest.raises(ValueError, match="outside the image"):
                segmenter.predict(encoded, Prompt((Click(width, 0),)))
