"""The paper's modified decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from histoclick.models import registry
from histoclick.models.nets.refine import RefineDecoder, SelfAttention
from histoclick.models.sam import network
from histoclick.models.sam.segmenter import SamSegmenter
from histoclick.types import Click, Prediction, Prompt

TINY = network.Encoder(16, 1, 2, (0,))


@pytest.fixture(scope="module")
def model() -> network.SamModel:
    torch.manual_seed(0)
    return network.assemble(TINY, 256, refine=True).eval()


def decoded(model: network.SamModel, embedding: Tensor, mask: Tensor | None = None) -> Tensor:
    points, labels = torch.tensor([[[60.0, 80.0], [200.0, 30.0]]]), torch.tensor([[1, 0]])
    return network.decode(model, embedding, points, labels, None, mask, multimask=True)[0]


def test_one_map_of_logits_behind_sams_own_signature(model: network.SamModel) -> None:
    embedding = torch.randn(1, 256, 16, 16)
    logits = decoded(model, embedding)
    assert logits.shape == (1, 1, 64, 64)
    moved = decoded(model, embedding, torch.randn(1, 1, 64, 64))
    assert not torch.equal(logits, moved)  # the previous mask is seen


def test_self_attention_is_that_of_the_textbook() -> None:
    block = SelfAttention(16, heads=2)
    maps, positions = torch.randn(2, 16, 3, 4), torch.randn(1, 16, 3, 4)
    with torch.no_grad():
        tokens, where = (m.flatten(2).transpose(1, 2) for m in (maps, positions))
        normed = block.norm1(tokens)
        query, key = block.query_key(normed + where).split(16, 2)
        value, seen = block.value(normed), []
        for head in (slice(0, 8), slice(8, 16)):
            q, k, v = query[..., head], key[..., head], value[..., head]
            seen.append(torch.softmax(q @ k.transpose(1, 2) / 8**0.5, 2) @ v)
        tokens = tokens + block.project(torch.cat(seen, 2))
        tokens = tokens + block.mlp(block.norm2(tokens))
        expected = tokens.transpose(1, 2).reshape(maps.shape)
        torch.testing.assert_close(block(maps, positions), expected, atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_weight_of_the_decoder(model: network.SamModel) -> None:
    logits = decoded(model, torch.randn(1, 256, 16, 16), torch.randn(1, 1, 64, 64))
    F.softplus(logits).mean().backward()
    for name, weight in model.mask_decoder.named_parameters():
        assert weight.grad is not None, name
        # A constant added before an instance norm is taken away by it.
        if not (name.endswith("bias") and "conv" in name):
            assert weight.grad.abs().max() > 0, name
    model.zero_grad(set_to_none=True)


def test_it_starts_from_sams_transformer(model: network.SamModel) -> None:
    torch.manual_seed(1)
    plain = network.assemble(TINY, 256)
    decoder = RefineDecoder(plain.mask_decoder)
    assert decoder.transformer.layers is plain.mask_decoder.transformer.layers
    assert decoder.mask_tokens is plain.mask_decoder.mask_tokens


def test_the_segmenter_makes_no_choice_and_claims_no_quality(model: network.SamModel) -> None:
    segmenter = SamSegmenter(model)
    assert segmenter.settings["first_click"] == "one mask"
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    encoded = segmenter.encode(image)
    first = segmenter.predict(encoded, Prompt((Click(20, 10),)))
    assert first.quality is None
    assert first.logits.shape == (40, 50)
    second = segmenter.predict(encoded, Prompt((Click(20, 10), Click(5, 5, positive=False))), first)
    assert np.isfinite(second.logits).all()
    started = Prediction.of_mask(np.eye(40, 50, dtype=bool))
    assert not np.array_equal(
        segmenter.predict(encoded, Prompt((Click(20, 10),)), started).logits, first.logits
    )


def test_a_model_folder_says_which_decoder_it_has(tmp_path: Path) -> None:
    folder = registry.with_random_weights("sam", "vit_t-refine", tmp_path / "random")
    card, _ = registry.find(folder)
    assert (card.family, card.architecture) == ("mobilesam", "vit_t-refine")
    segmenter = registry.load(folder)
    assert isinstance(segmenter, SamSegmenter)
    assert isinstance(segmenter.model.mask_decoder, RefineDecoder)
