"""SAM against the official predictor's numbers, and as a segmenter."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import SamModel

import golden
from histoclick.models.sam import network
from histoclick.models.sam.keys import native_name, official_name, to_native, to_official
from histoclick.models.sam.segmenter import (
    SamEncoded,
    SamSegmenter,
    normalise,
    resize_longest,
    upsample,
)
from histoclick.models.weights import check_keys, read_state_dict, shapes
from histoclick.types import RGB8, Box, Click, HistoclickError, Prediction, Prompt, Segmenter

Arrays = dict[str, NDArray[Any]]
Step = tuple[EllipsisType | slice, ...]

VARIANTS = list(network.VARIANTS)
TINY = network.Encoder(16, 2, 2, (1,))


def tiny_network(input_px: int = 256) -> Any:
    """The whole code path around an encoder of a few kilobytes."""
    model = network.assemble(TINY, input_px)
    official = to_official(shapes(model.state_dict()))
    model.load_state_dict(to_native(golden.weights(official)))
    return model


@pytest.fixture(scope="module")
def conformance(shared: Path) -> Path:
    return shared / "conformance"


@pytest.fixture(scope="module")
def tiny() -> SamSegmenter:
    return SamSegmenter(tiny_network())


@pytest.fixture(scope="module")
def images() -> dict[str, RGB8]:
    random = np.random.default_rng(3)
    return {
        "wide": random.integers(0, 256, (90, 140, 3), np.uint8),
        "high": random.integers(0, 256, (200, 60, 3), np.uint8),
    }


CLICKS = (Click(30, 20), Click(50, 60, positive=False), Click(12.5, 70))


class TestNames:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_expected_names_and_shapes_are_the_official_ones(
        self, conformance: Path, variant: str
    ) -> None:
        official = golden.official_shapes(conformance / "sam", variant)
        assert network.expected_shapes(variant) == official

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_names_translate_back(self, variant: str) -> None:
        for name in network.expected_shapes(variant):
            assert official_name(native_name(name)) == name

    def test_the_fourier_matrix_stands_twice_in_native_and_once_in_official(self) -> None:
        state = {"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": 7}
        native = to_native(state)
        assert set(native.values()) == {7}
        assert len(native) == 2
        assert to_official(native) == state

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_recognises_its_own(self, variant: str) -> None:
        expected = network.expected_shapes(variant)
        state = {name: torch.empty(shape, device="meta") for name, shape in expected.items()}
        assert network.recognise(state) == variant

    def test_does_not_recognise_others(self) -> None:
        assert network.recognise({"backbone.weight": torch.zeros(3)}) is None
        odd = {
            "image_encoder.pos_embed": torch.zeros(1, 64, 64, 96),
            "mask_decoder.mask_tokens.weight": torch.zeros(4, 256),
        }
        assert network.recognise(odd) is None

    def test_two_positional_matrices_stay_one_parameter(self) -> None:
        model = tiny_network()
        shared = model.shared_image_embedding.positional_embedding
        assert model.prompt_encoder.shared_embedding.positional_embedding is shared
        assert not shared.requires_grad


def agrees(arrays: Arrays, name: str, full: Tensor | NDArray[Any], step: Step, atol: float) -> None:
    """``full[step]`` is what the fixture holds, and ``full`` has the mean, std, min and max."""
    full = full.detach().numpy() if isinstance(full, Tensor) else full
    np.testing.assert_allclose(full[step], arrays[name], rtol=0, atol=atol, err_msg=name)
    if f"{name}__stats" in arrays:
        stats = [full.mean(dtype=np.float64), full.std(dtype=np.float64), full.min(), full.max()]
        np.testing.assert_allclose(stats, arrays[f"{name}__stats"], rtol=0, atol=atol, err_msg=name)


def every(step: int) -> Step:
    """The last two axes strided."""
    return (..., slice(None, None, step), slice(None, None, step))


@pytest.fixture(scope="module")
def parts(conformance: Path) -> Arrays:
    """Numbers of the prompt encoder, the decoder and the postprocessing, on given inputs."""
    return golden.arrays(conformance / "sam/prompt_encoder_mask_decoder.npz")


@pytest.fixture(scope="module")
def inputs(parts: Arrays) -> dict[str, Tensor]:
    """What the numbers of ``parts`` were computed from."""
    random = golden.stream("sam_parts0")
    random.uniform(size=(2, 4, 2))  # points, boxes and masks stand in the file
    random.uniform(size=(2, 2, 2))
    random.standard_normal((2, 1, 9, 9))
    embedding = np.float32(0.7) * random.standard_normal((1, 256, 64, 64)).astype(np.float32)
    expected = parts["in_embedding_check"]
    np.testing.assert_allclose(embedding[0, ::16, ::16, ::16], expected, atol=1e-6)
    coarse = torch.from_numpy(parts["in_mask_coarse"])
    return {
        "embedding": torch.from_numpy(embedding),
        "points": torch.from_numpy(parts["in_points"]),
        "labels": torch.from_numpy(parts["in_labels"]),
        "boxes": torch.from_numpy(parts["in_boxes"]),
        "masks": F.interpolate(coarse, (256, 256), mode="bilinear", align_corners=True),
    }


@pytest.fixture(scope="module")
def reference_parts(conformance: Path) -> Any:
    """The reference's prompt encoder and decoder; the image encoder is never asked."""
    model = network.assemble(network.Encoder(16, 1, 2, ())).eval()
    weights = golden.official_weights(conformance / "sam", "vit_b", skip="image_encoder.")
    assert not model.load_state_dict(to_native(weights), strict=False).unexpected_keys
    return model


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize(
    ("case", "given"),
    [
        ("pts", ("points", "labels")),
        ("box", ("boxes",)),
        ("ptsbox", ("points", "labels", "boxes")),
        ("mask", ("masks",)),
        ("all", ("points", "labels", "boxes", "masks")),
        ("ptsmask", ("points", "labels", "masks")),
        ("none", ()),
    ],
)
def test_prompts_are_embedded_and_decoded(
    reference_parts: Any,
    parts: Arrays,
    inputs: dict[str, Tensor],
    case: str,
    given: tuple[str, ...],
) -> None:
    prompt: dict[str, Tensor | None] = dict.fromkeys(("points", "labels", "boxes", "masks"))
    for name in given:  # "ptsmask" is one prompt of one point, the others are two of four
        prompt[name] = inputs[name][:1, :1] if case == "ptsmask" else inputs[name]
    # Which kernel convolves the one-channel mask depends on the processor, and normalising its four
    # output channels enlarges the last bit: up to 1.4e-4 in the logits against 9e-6 without oneDNN.
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=False):
        sparse, dense = network.embed_prompt(reference_parts, **prompt)
    agrees(parts, f"{case}_sparse", sparse, every(1), 1e-4)
    agrees(parts, f"{case}_dense_sub", dense[:, ::8], every(4), 1e-4)
    for multimask, count in ((True, 3), (False, 1)):
        with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=False):
            logits, iou = network.decode(
                reference_parts, inputs["embedding"], **prompt, multimask=multimask
            )
        assert logits.shape[1] == iou.shape[1] == count
        name = f"{case}_mm{multimask:d}"
        if f"{name}_lowres" in parts:
            agrees(parts, f"{name}_lowres", logits, every(4), 1e-4)
            agrees(parts, f"{name}_iou", iou, every(1), 1e-5)


def test_the_grid_of_positions(reference_parts: Any, parts: Arrays) -> None:
    with torch.inference_mode():
        positions = reference_parts.get_image_wide_positional_embeddings()
    agrees(parts, "dense_pe_sub", positions[0, ::4], every(4), 1e-4)


def test_masks_return_to_the_image(parts: Arrays, inputs: dict[str, Tensor]) -> None:
    first = inputs["masks"][:1]
    agrees(parts, "post_300x420", upsample(first, (731, 1024), (300, 420))[0, 0], every(3), 1e-4)
    agrees(parts, "post_400x400", upsample(first, (1024, 1024), (400, 400))[0, 0], every(4), 1e-4)


@pytest.mark.parametrize("name", ["A", "B"])
def test_pixels_are_those_of_the_reference(conformance: Path, name: str) -> None:
    arrays = golden.arrays(conformance / "sam/vit_b.npz")
    image = golden.arrays(conformance / "inputs/inputs.npz")[f"image_{name}"]
    resized = resize_longest(image, 1024)
    assert resized.shape == tuple(arrays[f"{name}_resized_shape"])
    digest = hashlib.sha256(resized.tobytes()).hexdigest()
    assert digest == str(arrays[f"{name}_resized_sha256"])
    np.testing.assert_array_equal(resized[::16, ::16], arrays[f"{name}_resized_sub"])
    pixels = normalise(resized, 1024)
    agrees(arrays, f"{name}_preprocessed_sub", pixels[0], every(32), 1e-6)


@pytest.fixture(scope="module")
def reference(conformance: Path) -> Callable[[str], SamSegmenter]:
    """Variant to segmenter with the reference's weights. One at a time: the largest is 2.5 GB."""

    @lru_cache(maxsize=1)
    def make(variant: str) -> SamSegmenter:
        weights = golden.official_weights(conformance / "sam", variant)
        return SamSegmenter(network.build(variant, weights))

    return make


def slow(*values: str) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("vit_b", "A"),
        slow("vit_b", "B"),
        slow("vit_l", "A"),
        slow("vit_l", "B"),
        slow("vit_h", "A"),
        slow("vit_h", "B"),
    ],
)
def test_from_pixels_and_clicks_to_masks(
    reference: Callable[[str], SamSegmenter], conformance: Path, variant: str, name: str
) -> None:
    segmenter = reference(variant)
    arrays = golden.arrays(conformance / f"sam/{variant}.npz")
    encoded = segmenter.encode(golden.arrays(conformance / "inputs/inputs.npz")[f"image_{name}"])
    check_embedding(arrays, name, encoded)

    points = zip(arrays[f"{name}_point_coords_xy"], arrays[f"{name}_point_labels"], strict=True)
    clicks = tuple(Click(float(x), float(y), bool(label)) for (x, y), label in points)
    one, two, five = Prompt(clicks[:1]), Prompt(clicks[:2]), Prompt(clicks)

    logits, iou = segmenter.decode(encoded, one, multimask=True)
    check_masks(arrays, f"{name}_c1_multi", encoded, logits, iou)
    first = segmenter.predict(encoded, one)
    assert torch.equal(first.memory, logits[iou.argmax()][None])
    single = SamSegmenter(segmenter.model, multimask_first=False)
    check_answer(arrays, f"{name}_c1_single", single.predict(encoded, one))
    second = segmenter.predict(encoded, two, first)
    check_answer(arrays, f"{name}_c2_prev_single", second)
    if name == "A":
        plain = segmenter.predict(encoded, five)
        check_answer(arrays, "A_c5_noprev_single", plain)
        check_answer(arrays, "A_c5_prev_single", segmenter.predict(encoded, five, second))
        box = Box(*map(float, arrays["A_box_xyxy"]))
        logits, iou = segmenter.decode(encoded, Prompt((), box), multimask=True)
        check_masks(arrays, "A_box_multi", encoded, logits, iou)
        boxed = segmenter.predict(encoded, Prompt(clicks[:2], box))
        check_answer(arrays, "A_box_c2_single", boxed)


def check_embedding(arrays: Arrays, name: str, encoded: SamEncoded) -> None:
    embedding = encoded.embedding.numpy()
    part = embedding[:, ::4, ::4, ::4]
    agrees(arrays, f"{name}_embedding_sub", part, (...,), 5e-3)
    assert np.abs(part - arrays[f"{name}_embedding_sub"]).mean() < 2e-4
    stats = [embedding.mean(), embedding.std(), embedding.min(), embedding.max()]
    np.testing.assert_allclose(stats, arrays[f"{name}_embedding_stats"], rtol=0, atol=5e-3)
    if f"{name}_embedding_full_f16" in arrays:
        full = arrays[f"{name}_embedding_full_f16"].astype(np.float32)
        np.testing.assert_allclose(embedding, full, rtol=0, atol=5e-3)


def check_masks(
    arrays: Arrays, case: str, encoded: SamEncoded, lowres: Tensor, iou: Tensor
) -> None:
    logits = upsample(lowres[None], encoded.resized, encoded.shape)[0]
    agrees(arrays, f"{case}_lowres", lowres, every(4), 2e-2)
    agrees(arrays, f"{case}_logits", logits, every(8), 2e-2)
    agrees(arrays, f"{case}_iou", iou, (...,), 1e-4)
    assert ((logits.numpy() > 0) != arrays[f"{case}_masks"]).mean() <= 5e-4


def check_answer(arrays: Arrays, case: str, answer: Prediction) -> None:
    agrees(arrays, f"{case}_lowres", answer.memory, every(4), 2e-2)
    agrees(arrays, f"{case}_logits", answer.logits[None], every(8), 2e-2)
    assert answer.quality == pytest.approx(arrays[f"{case}_iou"].clip(0, 1).item(), abs=1e-4)
    assert (answer.mask[None] != arrays[f"{case}_masks"]).mean() <= 5e-4


class TestSegmenter:
    """What a session relies on, with a network of no experience."""

    def test_is_a_segmenter(self, tiny: SamSegmenter) -> None:
        assert isinstance(tiny, Segmenter)

    @pytest.mark.parametrize("name", ["wide", "high"])
    def test_logits_have_the_frame_of_the_image(
        self, tiny: SamSegmenter, images: dict[str, RGB8], name: str
    ) -> None:
        encoded = tiny.encode(images[name])
        assert encoded.shape == images[name].shape[:2]
        assert max(encoded.resized) == 256
        answer = tiny.predict(encoded, Prompt(CLICKS[:1]))
        assert answer.logits.shape == encoded.shape
        assert answer.logits.dtype == np.float32
        assert answer.memory.shape == (1, 64, 64)
        assert answer.quality is not None
        assert 0 <= answer.quality <= 1

    def test_padding_is_zero_behind_normalisation(self) -> None:
        pixels = normalise(np.full((4, 6, 3), 255, np.uint8), 8)
        assert pixels.shape == (1, 3, 8, 8)
        assert (pixels[..., :4, :6] > 2).all()
        assert not pixels[..., 4:, :].any()
        assert not pixels[..., 6:].any()

    def test_an_answer_depends_on_the_one_before(
        self, tiny: SamSegmenter, images: dict[str, RGB8]
    ) -> None:
        encoded = tiny.encode(images["wide"])
        first = tiny.predict(encoded, Prompt(CLICKS[:1]))
        with_memory = tiny.predict(encoded, Prompt(CLICKS[:2]), first)
        without = tiny.predict(encoded, Prompt(CLICKS[:2]))
        assert np.abs(with_memory.logits - without.logits).max() > 1e-3
        unspoken = Prediction(first.logits)  # a mask that came from elsewhere
        np.testing.assert_array_equal(
            tiny.predict(encoded, Prompt(CLICKS[:2]), unspoken).logits, without.logits
        )

    def test_interleaved_sessions_and_undo_change_nothing(
        self, tiny: SamSegmenter, images: dict[str, RGB8]
    ) -> None:
        def session(encoded: SamEncoded) -> Iterator[Prediction]:
            previous = None
            for count in (1, 2, 3):
                previous = tiny.predict(encoded, Prompt(CLICKS[:count]), previous)
                yield previous

        wide, high = tiny.encode(images["wide"]), tiny.encode(images["high"])
        before = wide.embedding.clone()
        alone = [list(session(wide)), list(session(high))]
        together = list(zip(session(wide), session(high), strict=True))
        for step, (a, b) in enumerate(together):
            np.testing.assert_array_equal(a.logits, alone[0][step].logits)
            np.testing.assert_array_equal(b.logits, alone[1][step].logits)
        again = tiny.predict(wide, Prompt(CLICKS), alone[0][1])  # undo and redo the last click
        np.testing.assert_array_equal(again.logits, alone[0][2].logits)
        assert torch.equal(wide.embedding, before)

    def test_threads_share_a_segmenter(self, tiny: SamSegmenter, images: dict[str, RGB8]) -> None:
        def answer(name: str) -> NDArray[np.float32]:
            return tiny.predict(tiny.encode(images[name]), Prompt(CLICKS)).logits

        names = ["wide", "high"] * 4
        expected = {name: answer(name) for name in images}
        with ThreadPoolExecutor(4) as pool:
            for name, logits in zip(names, pool.map(answer, names), strict=True):
                np.testing.assert_array_equal(logits, expected[name])

    def test_prompts_of_a_batch_do_not_touch(
        self, tiny: SamSegmenter, images: dict[str, RGB8]
    ) -> None:
        embedding = tiny.encode(images["wide"]).embedding
        points = torch.tensor([[[20.0, 30.0]], [[200.0, 90.0]]])
        labels = torch.tensor([[1], [0]])
        with torch.inference_mode():
            both, _ = network.decode(tiny.model, embedding, points, labels, multimask=False)
            for i in (0, 1):
                alone, _ = network.decode(
                    tiny.model, embedding, points[[i]], labels[[i]], multimask=False
                )
                torch.testing.assert_close(both[[i]], alone, rtol=0, atol=1e-5)
        assert (both[0] - both[1]).abs().max() > 1e-2

    def test_another_decoder_takes_the_place(self, images: dict[str, RGB8]) -> None:
        class Plane(torch.nn.Module):
            """Says "object" everywhere, and is sure of it."""

            def forward(self, *, image_embeddings: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
                batch = len(image_embeddings)
                return torch.ones(batch, 1, 1, 64, 64), torch.full((batch, 1, 1), 1.25)

        model = tiny_network()
        model.mask_decoder = Plane()
        segmenter = SamSegmenter(model)
        answer = segmenter.predict(segmenter.encode(images["high"]), Prompt(CLICKS[:1]))
        assert answer.mask.all()
        assert answer.quality == 1

    def test_half_precision_encoder(self, tiny: SamSegmenter, images: dict[str, RGB8]) -> None:
        half = SamSegmenter(tiny_network(), dtype=torch.bfloat16)
        a, b = half.encode(images["wide"]), tiny.encode(images["wide"])
        assert a.embedding.dtype == torch.float32
        assert 0 < (a.embedding - b.embedding).abs().mean() < 0.05
        assert half.predict(a, Prompt(CLICKS)).logits.dtype == np.float32

    @pytest.mark.parametrize(
        "click", [Click(-1, 5), Click(140, 5), Click(5, 90), Click(float("nan"), 5)]
    )
    def test_a_click_beside_the_image_is_refused(
        self, tiny: SamSegmenter, images: dict[str, RGB8], click: Click
    ) -> None:
        encoded = tiny.encode(images["wide"])
        with pytest.raises(ValueError, match="outside the image of 140x90"):
            tiny.predict(encoded, Prompt((CLICKS[0], click)))

    def test_corners_are_inside(self, tiny: SamSegmenter, images: dict[str, RGB8]) -> None:
        prompt = Prompt((Click(0, 0), Click(139, 89)), Box(0, 0, 139, 89))
        assert np.isfinite(tiny.predict(tiny.encode(images["wide"]), prompt).logits).all()

    def test_an_empty_prompt_is_refused(self, tiny: SamSegmenter, images: dict[str, RGB8]) -> None:
        with pytest.raises(ValueError, match="no click and no box"):
            tiny.predict(tiny.encode(images["wide"]), Prompt())

    @pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)])
    def test_other_arrays_are_no_images(self, tiny: SamSegmenter, image: Any) -> None:
        with pytest.raises(ValueError, match="uint8 RGB"):
            tiny.encode(image)


class TestAttention:
    @pytest.mark.parametrize("rows", [1, 5, 64])
    def test_is_that_of_transformers(self, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
        monkeypatch.setattr(network, "CPU_ROWS", rows)
        model = tiny_network()
        plain = SamModel(model.config)
        plain.load_state_dict(model.state_dict())
        pixels = torch.from_numpy(golden.stream("pixels").random((2, 3, 256, 256), np.float32))
        with torch.no_grad():
            ours, theirs = (m.eval().get_image_embeddings(pixels) for m in (model, plain))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)

    def test_gradients_reach_the_position_tables(self) -> None:
        model = tiny_network()
        model.vision_encoder(torch.zeros(1, 3, 256, 256))[0].square().sum().backward()
        assert all(layer.attn.rel_pos_h.grad is not None for layer in model.vision_encoder.layers)


class TestFiles:
    """An official-style ``.pth`` to a network."""

    @pytest.fixture
    def official(self) -> dict[str, Tensor]:
        return to_official(tiny_network().state_dict())

    def test_round_trip(self, official: dict[str, Tensor], tmp_path: Path) -> None:
        torch.save(official, tmp_path / "sam.pth")
        state = read_state_dict(tmp_path / "sam.pth")
        check_keys(shapes(state), shapes(official), "tiny SAM")
        model = network.assemble(TINY, 256)
        model.load_state_dict(to_native(state), strict=True)
        for name, weight in to_official(model.state_dict()).items():
            assert torch.equal(weight, official[name])

    def test_keys_are_told_by_their_official_names(self) -> None:
        expected = network.expected_shapes("vit_b")
        found = dict(expected)
        del found["prompt_encoder.no_mask_embed.weight"]
        found["mask_decoder.hf_token.weight"] = (1, 256)
        with pytest.raises(HistoclickError) as error:
            check_keys(found, expected, "sam.pth")
        assert "1 missing (prompt_encoder.no_mask_embed.weight)" in str(error.value)
        assert "1 unexpected (mask_decoder.hf_token.weight)" in str(error.value)
