"""SAM as a segmenter, with networks of no experience, and its files."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import golden
from histoclick.metrics import iou
from histoclick.models import registry
from histoclick.models.device import fast_dtype
from histoclick.models.sam import family, network
from histoclick.models.sam.keys import to_native, to_official
from histoclick.models.sam.segmenter import (
    SamEncoded,
    SamSegmenter,
    downsample,
    normalise,
    upsample,
)
from histoclick.models.weights import check_keys, read_state_dict, shapes
from histoclick.types import (
    RGB8,
    BatchSegmenter,
    Box,
    Click,
    HistoclickError,
    Mask,
    Prediction,
    Prompt,
    Segmenter,
)

TINY = network.Encoder(16, 2, 2, (1,))


def tiny_network(input_px: int = 256) -> Any:
    """The whole code path around an encoder of a few kilobytes."""
    model = network.assemble(TINY, input_px)
    official = to_official(shapes(model.state_dict()))
    model.load_state_dict(to_native(golden.weights(official)))
    return model


@pytest.fixture(scope="module")
def tiny() -> SamSegmenter:
    return SamSegmenter(tiny_network(), dtype=torch.float32)


@pytest.fixture(scope="module")
def images() -> dict[str, RGB8]:
    random = np.random.default_rng(3)
    return {
        "wide": random.integers(0, 256, (90, 140, 3), np.uint8),
        "high": random.integers(0, 256, (200, 60, 3), np.uint8),
    }


CLICKS = (Click(30, 20), Click(50, 60, positive=False), Click(12.5, 70))


def disc(shape: tuple[int, int], x: float, y: float, radius: float) -> Mask:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


class TestSegmenter:
    """What a session relies on."""

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

    def test_embeddings_go_through_arrays(
        self, tiny: SamSegmenter, images: dict[str, RGB8]
    ) -> None:
        for image in images.values():
            encoded = tiny.encode(image)
            again = tiny.unpack(tiny.pack(encoded))
            click = Prompt((Click(20, 20),))
            expected = tiny.predict(encoded, click)
            assert np.array_equal(tiny.predict(again, click).logits, expected.logits)
        with pytest.raises(ValueError, match="shape"):
            tiny.unpack({"embedding": np.zeros((1, 256, 3, 3)), "shape": np.array([9, 9])})

    def test_half_precision_encoder(self, tiny: SamSegmenter, images: dict[str, RGB8]) -> None:
        half = SamSegmenter(tiny_network(), dtype=torch.bfloat16)
        a, b = half.encode(images["wide"]), tiny.encode(images["wide"])
        assert a.embedding.dtype == torch.float32
        assert 0 < (a.embedding - b.embedding).abs().mean() < 0.01
        assert half.predict(a, Prompt(CLICKS)).logits.dtype == np.float32

    @pytest.mark.parametrize("feature", ["_is_amx_tile_supported", "_is_avx512_bf16_supported"])
    def test_half_precision_where_it_is_fast(
        self, monkeypatch: pytest.MonkeyPatch, feature: str
    ) -> None:
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda: False)
        assert SamSegmenter(tiny_network()).settings["encoder"] == "float32"
        monkeypatch.setattr(torch.cpu, feature, lambda: True)
        assert SamSegmenter(tiny_network()).settings["encoder"] == "bfloat16"
        assert fast_dtype("cuda") == torch.float32

    def test_says_how_it_predicts(self) -> None:
        segmenter = SamSegmenter(tiny_network(), dtype=torch.float32, multimask_first=False)
        assert segmenter.settings == {
            "zoom": "none; longest side to 256 px",
            "tta": "none",
            "first_click": "one mask",
            "encoder": "float32",
        }

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


@pytest.mark.parametrize(
    ("shape", "resized"),
    [((90, 140), (165, 256)), ((200, 60), (256, 77)), ((600, 600), (256, 256))],
)
class TestMaskPrompt:
    """A mask that no SAM made, in the frame of the decoder's."""

    def test_returns_to_itself(self, shape: tuple[int, int], resized: tuple[int, int]) -> None:
        mask = disc(shape, 0.4 * shape[1], 0.6 * shape[0], 0.3 * min(shape))
        lowres = downsample(Prediction.of_mask(mask).logits, resized, 256)
        assert lowres.shape == (1, 64, 64)
        again = upsample(lowres[None], resized, shape)[0, 0].numpy()
        assert iou(mask, again > 0) > 0.95
        assert np.abs(again).max() == pytest.approx(16)

    def test_outside_the_image_is_background(
        self, shape: tuple[int, int], resized: tuple[int, int]
    ) -> None:
        full = Prediction.of_mask(np.ones(shape, bool))
        lowres = downsample(full.logits, resized, 256)[0]
        inside = torch.zeros(64, 64, dtype=torch.bool)
        inside[: resized[0] // 4, : resized[1] // 4] = True
        assert (lowres[inside] > 15.9).all()
        outside = torch.ones(64, 64, dtype=torch.bool)
        outside[: -(-resized[0] // 4), : -(-resized[1] // 4)] = False
        assert (lowres[outside] < -15.9).all()


class TestStart:
    """Clicks that correct a mask from elsewhere."""

    def test_counts_like_an_answer(self, tiny: SamSegmenter, images: dict[str, RGB8]) -> None:
        encoded = tiny.encode(images["wide"])
        start = Prediction.of_mask(disc(encoded.shape, 60, 40, 25))
        prompt = Prompt(CLICKS[:1])
        answer = tiny.predict(encoded, prompt, start)
        mask = downsample(start.logits, encoded.resized, 256)
        logits, _ = tiny.decode(encoded, prompt, mask, multimask=False)
        torch.testing.assert_close(answer.memory, logits, rtol=0, atol=1e-5)
        other = Prediction.of_mask(disc(encoded.shape, 90, 40, 25))
        assert np.abs(tiny.predict(encoded, prompt, other).logits - answer.logits).max() > 1e-3

    def test_of_another_size_is_refused(self, tiny: SamSegmenter, images: dict[str, RGB8]) -> None:
        encoded = tiny.encode(images["wide"])
        start = Prediction.of_mask(np.zeros((140, 90), bool))
        with pytest.raises(ValueError, match="give a mask of the image's size"):
            tiny.predict(encoded, Prompt(CLICKS), start)


class TestBatch:
    def test_is_offered(self, tiny: SamSegmenter) -> None:
        assert isinstance(tiny, BatchSegmenter)
        assert tiny.encode_batch([]) == []
        assert tiny.predict_batch([], [], []) == []

    def test_users_do_not_touch(self, tiny: SamSegmenter, images: dict[str, RGB8]) -> None:
        """First and later clicks, boxes, memories and starting masks, on two images at once."""
        both = [*images.values(), images["wide"]]
        encoded = tiny.encode_batch(both)
        for each, image in zip(encoded, both, strict=True):
            alone = tiny.encode(image)
            assert (each.shape, each.resized) == (alone.shape, alone.resized)
            torch.testing.assert_close(each.embedding, alone.embedding, rtol=0, atol=1e-5)
        wide, high, again = encoded
        start = Prediction.of_mask(disc(high.shape, 30, 90, 20))
        first = tiny.predict(wide, Prompt(CLICKS[:1]))
        users: list[tuple[SamEncoded, Prompt, Prediction | None]] = [
            (wide, Prompt(CLICKS[:1]), None),
            (high, Prompt(CLICKS[:2]), start),
            (again, Prompt((Click(70, 70),)), None),
            (wide, Prompt(CLICKS[:2]), first),
            (wide, Prompt(CLICKS[:2]), None),
            (high, Prompt(CLICKS[:2], Box(5, 5, 50, 90)), None),
            (high, Prompt((), Box(5, 5, 50, 90)), None),
            (wide, Prompt(CLICKS[1:]), None),
        ]
        together = tiny.predict_batch(*map(list, zip(*users, strict=True)))  # type: ignore[arg-type]
        for user, answer in zip(users, together, strict=True):
            alone = tiny.predict(*user)
            np.testing.assert_allclose(answer.logits, alone.logits, rtol=0, atol=1e-4)
            assert answer.quality == pytest.approx(alone.quality, abs=1e-5)
            torch.testing.assert_close(answer.memory, alone.memory, rtol=0, atol=1e-4)

    def test_a_point_that_is_none_would_be_noticed(
        self, tiny: SamSegmenter, images: dict[str, RGB8]
    ) -> None:
        """Why only those are decoded together who gave as many clicks."""
        embedding = tiny.encode(images["wide"]).embedding
        points = torch.tensor([[[20.0, 30.0], [0.0, 0.0]]])
        with torch.inference_mode():
            padded, _ = network.decode(
                tiny.model, embedding, points, torch.tensor([[1, -1]]), multimask=False
            )
            plain, _ = network.decode(
                tiny.model, embedding, points[:, :1], torch.tensor([[1]]), multimask=False
            )
        assert (padded - plain).abs().max() > 1e-3


class TestFiles:
    """An official-style ``.pth`` to a network."""

    def test_two_positional_matrices_stay_one_parameter(self) -> None:
        model = tiny_network()
        shared = model.shared_image_embedding.positional_embedding
        assert model.prompt_encoder.shared_embedding.positional_embedding is shared
        assert not shared.requires_grad

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

    @pytest.mark.parametrize("name", ["sam", "mobilesam"])
    def test_a_file_is_what_it_is_whichever_family_is_named(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HISTOCLICK_HOME", str(tmp_path / "home"))
        weights = golden.weights(network.expected_shapes("vit_t"))
        torch.save(weights, tmp_path / "mobile_sam.pt")
        folder = registry.import_model(tmp_path / "mobile_sam.pt", name, "mobile")
        card, _ = registry.find(folder)
        assert (card.family, card.architecture) == ("mobilesam", "vit_t")
        assert card.summary.startswith("MobileSAM, vit_t")
        segmenter = registry.load("mobile")
        assert isinstance(segmenter, SamSegmenter)
        assert segmenter.settings["encoder"] == "float32"

    def test_files_of_others_are_refused(self, tmp_path: Path) -> None:
        torch.save({"backbone.weight": torch.zeros(3)}, tmp_path / "other.pth")
        with pytest.raises(HistoclickError, match="not a Segment Anything checkpoint"):
            family.convert(tmp_path / "other.pth", "other", tmp_path)
