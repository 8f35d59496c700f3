"""SAM and MobileSAM against the official predictor's numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
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

import golden
from histoclick.models.sam import family, network
from histoclick.models.sam.keys import native_name, official_name, to_native, to_official
from histoclick.models.sam.segmenter import (
    SamEncoded,
    SamSegmenter,
    normalise,
    resize_longest,
    upsample,
)
from histoclick.types import Box, Click, Prediction, Prompt

Arrays = dict[str, NDArray[Any]]
Step = tuple[EllipsisType | slice, ...]

FAMILY = {"vit_t": "mobilesam", "vit_b": "sam", "vit_l": "sam", "vit_h": "sam"}


@pytest.fixture(scope="module")
def conformance(shared: Path) -> Path:
    return shared / "conformance"


class TestNames:
    @pytest.mark.parametrize("variant", FAMILY)
    def test_expected_names_and_shapes_are_the_official_ones(
        self, conformance: Path, variant: str
    ) -> None:
        official = golden.official_shapes(conformance / FAMILY[variant], variant)
        assert network.expected_shapes(variant) == official

    @pytest.mark.parametrize("variant", FAMILY)
    def test_names_translate_back(self, variant: str) -> None:
        for name in network.expected_shapes(variant):
            assert official_name(native_name(name)) == name

    def test_the_fourier_matrix_stands_twice_in_native_and_once_in_official(self) -> None:
        state = {"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": 7}
        native = to_native(state)
        assert set(native.values()) == {7}
        assert len(native) == 2
        assert to_official(native) == state

    @pytest.mark.parametrize("variant", FAMILY)
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
def reference(
    conformance: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], SamSegmenter]:
    """Variant to segmenter with the reference's weights. One at a time: the largest is 2.5 GB.

    The small one comes the way of its users, from an official-style file through a model folder.
    """

    @lru_cache(maxsize=1)
    def make(variant: str) -> SamSegmenter:
        weights = golden.official_weights(conformance / FAMILY[variant], variant)
        if variant != "vit_t":
            return SamSegmenter(network.build(variant, weights), dtype=torch.float32)
        folder = tmp_path_factory.mktemp("mobile")
        torch.save(weights, folder / "mobile_sam.pt")
        card = family.convert(folder / "mobile_sam.pt", "mobile", folder)
        assert (card.family, card.architecture) == ("mobilesam", "vit_t")
        return family.load(card, folder, "cpu")

    return make


def slow(*values: str) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("vit_t", "A"),
        ("vit_t", "B"),
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
    arrays = golden.arrays(conformance / FAMILY[variant] / f"{variant}.npz")
    encoded = segmenter.encode(golden.arrays(conformance / "inputs/inputs.npz")[f"image_{name}"])
    check_embedding(arrays, name, encoded, *((1e-2, 5e-4) if variant == "vit_t" else (5e-3, 2e-4)))

    clicks = clicks_of(arrays, name)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["A", "B"])
def test_half_precision_changes_few_pixels(
    reference: Callable[[str], SamSegmenter], conformance: Path, name: str
) -> None:
    """On any processor, though only those made for it are quick at it."""
    arrays = golden.arrays(conformance / "sam/vit_b.npz")
    image = golden.arrays(conformance / "inputs/inputs.npz")[f"image_{name}"]
    weights = golden.official_weights(conformance / "sam", "vit_b")
    half = SamSegmenter(network.build("vit_b", weights), dtype=torch.bfloat16)
    single = reference("vit_b")
    encoded, exactly = half.encode(image), single.encode(image)
    clicks, previous = clicks_of(arrays, name), None
    for count in (1, 2, 5):
        prompt = Prompt(clicks[:count])
        answer = half.predict(encoded, prompt, previous)
        previous = single.predict(exactly, prompt, previous)
        assert 0 < (answer.mask != previous.mask).mean() < 5e-3


def clicks_of(arrays: Arrays, name: str) -> tuple[Click, ...]:
    points = zip(arrays[f"{name}_point_coords_xy"], arrays[f"{name}_point_labels"], strict=True)
    return tuple(Click(float(x), float(y), bool(label)) for (x, y), label in points)


def check_embedding(
    arrays: Arrays, name: str, encoded: SamEncoded, most: float, mean: float
) -> None:
    embedding = encoded.embedding.numpy()
    part = embedding[:, ::4, ::4, ::4]
    agrees(arrays, f"{name}_embedding_sub", part, (...,), most)
    assert np.abs(part - arrays[f"{name}_embedding_sub"]).mean() < mean
    stats = [embedding.mean(), embedding.std(), embedding.min(), embedding.max()]
    np.testing.assert_allclose(stats, arrays[f"{name}_embedding_stats"], rtol=0, atol=most)
    if f"{name}_embedding_full_f16" in arrays:
        full = arrays[f"{name}_embedding_full_f16"].astype(np.float32)
        np.testing.assert_allclose(embedding, full, rtol=0, atol=most)


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
