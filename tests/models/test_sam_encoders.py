"""The image encoders of SAM and MobileSAM, against slow twins of their parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import SamModel

import golden
from histoclick.models.nets.fold import fold
from histoclick.models.sam import network, tinyvit, vit
from histoclick.models.sam.keys import to_native, to_official
from histoclick.models.sam.windows import cut, join
from histoclick.models.weights import shapes

TINY_VIT = network.Encoder(16, 2, 2, (1,))
TINY_STAGES = (
    tinyvit.Stage(8, 1, 0, 0, True),
    tinyvit.Stage(16, 1, 2, 3, True),
    tinyvit.Stage(24, 1, 3, 5, False),
    tinyvit.Stage(32, 1, 2, 3, False),
)


def tiny(encoder: Any, *, fast: bool = True) -> Any:
    """A network of a few kilobytes, the same at every call. 16x16 places: windows overlap them."""
    model = network.assemble(encoder, 256, fast=fast)
    model.load_state_dict(to_native(golden.weights(to_official(shapes(model.state_dict())))))
    return model.eval()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.from_numpy(golden.stream("pixels").random((2, 3, 256, 256), "float32"))


class TestWindows:
    def test_are_squares_of_the_grid(self) -> None:
        grid = torch.arange(2 * 6 * 9).view(2, 6, 9, 1)
        windows = cut(grid, 3)
        assert windows.shape == (2, 2, 3, 3, 3, 1)
        assert torch.equal(windows[1, 1, 2], grid[1, 3:6, 6:9])

    def test_are_joined_without_what_was_filled_up(self) -> None:
        grid = torch.randn(2, 6, 9, 4)
        assert torch.equal(join(cut(grid, 3), 5, 7), grid[:, :5, :7])


class TestLayers:
    @pytest.mark.parametrize("rows", [1, 5, 64])
    def test_are_those_of_transformers(
        self, monkeypatch: pytest.MonkeyPatch, pixels: Tensor, rows: int
    ) -> None:
        monkeypatch.setattr(vit, "CPU_ROWS", rows)
        ours, theirs = tiny(TINY_VIT), tiny(TINY_VIT, fast=False)
        assert isinstance(theirs, SamModel)
        with torch.no_grad():
            embeddings = [model.get_image_embeddings(pixels) for model in (ours, theirs)]
        torch.testing.assert_close(*embeddings, rtol=0, atol=1e-5)
        assert embeddings[0].std() > 0.1

    def test_scores_by_heads_are_those_of_pytorch(self) -> None:
        random = torch.Generator().manual_seed(0)
        query = torch.randn(2, 3, 4, 8, 16, generator=random)  # four of eight rows ask
        key, value = torch.randn(2, 2, 3, 64, 16, generator=random)
        summands = vit._parts(query, torch.randn(4, 8, 16), torch.randn(8, 8, 16))
        query = query.flatten(2, 3)
        torch.testing.assert_close(
            vit._by_heads(query, key, value, *summands),
            vit._at_once(query, key, value, *summands),
            rtol=0,
            atol=1e-5,
        )

    @pytest.mark.parametrize("checkpointing", [False, True])
    def test_gradients_are_those_of_transformers(
        self, pixels: Tensor, *, checkpointing: bool
    ) -> None:
        gradients, passes = [], []
        for model in (tiny(TINY_VIT), tiny(TINY_VIT, fast=False)):
            if checkpointing:
                model.activation_checkpointing_enable()
            norm = model.vision_encoder.layers[0].layer_norm1
            norm.register_forward_hook(lambda *_: passes.append(1))
            model.train().vision_encoder(pixels)[0].square()[:, ::3].sum().backward()
            parameters = dict(model.vision_encoder.named_parameters())
            gradients.append({name: weight.grad for name, weight in parameters.items()})
        assert len(passes) == (4 if checkpointing else 2)
        ours, theirs = gradients
        assert ours.keys() == theirs.keys()
        for name, gradient in theirs.items():
            scale = float(gradient.abs().max()) + 1e-3
            torch.testing.assert_close(ours[name], gradient, rtol=0, atol=1e-4 * scale, msg=name)

    def test_half_precision_is_near(self, pixels: Tensor) -> None:
        half = tiny(TINY_VIT)
        assert network.narrow(half, torch.bfloat16) == torch.bfloat16
        with torch.no_grad():
            rough = half.get_image_embeddings(pixels)
            exact = tiny(TINY_VIT).get_image_embeddings(pixels)
        assert rough.dtype == torch.float32
        assert 0 < (rough - exact).abs().mean() < 0.01


def slow_window_attention(attention: tinyvit.WindowAttention, x: Tensor) -> Tensor:
    """Window by window and head by head. ``x``: (1, H, W, C)."""
    side, heads = attention.side, attention.heads
    _, height, width, channels = x.shape
    down, across = -(-height // side), -(-width // side)
    full = torch.zeros(1, down * side, across * side, channels)
    full[:, :height, :width] = x
    out = torch.zeros_like(full)
    places = [(i, j) for i in range(side) for j in range(side)]
    size = channels // heads
    for top in range(0, down * side, side):
        for left in range(0, across * side, side):
            inside = (0, slice(top, top + side), slice(left, left + side))
            tokens = attention.norm(full[inside].reshape(-1, channels))
            told = []
            for head, one in enumerate(attention.qkv(tokens).split(3 * size, 1)):
                query, key, value = one.split(size, 1)
                scores = query @ key.T / size**0.5
                for a, (y, x_) in enumerate(places):
                    for b, (v, u) in enumerate(places):
                        distance = abs(y - v) * side + abs(x_ - u)
                        scores[a, b] += attention.attention_biases[head, distance]
                told.append(scores.softmax(1) @ value)
            out[inside] = attention.proj(torch.cat(told, 1)).view(side, side, channels)
    return out[:, :height, :width]


class TestTinyViT:
    def test_attention_is_within_windows_and_by_distance(self) -> None:
        torch.manual_seed(0)
        attention = tinyvit.WindowAttention(12, 2, 3)
        torch.nn.init.normal_(attention.attention_biases)
        torch.nn.init.normal_(attention.norm.bias)  # so that filled up places count
        x = torch.randn(1, 5, 7, 12)
        with torch.no_grad():
            torch.testing.assert_close(attention(x), slow_window_attention(attention, x))

    def test_biases_are_read_when_asked(self) -> None:
        attention = tinyvit.WindowAttention(12, 2, 3).eval()
        before = attention.biases()
        torch.nn.init.ones_(attention.attention_biases)
        assert not before.any()
        assert attention.biases().all()

    def test_embeds_pixels(self, pixels: Tensor) -> None:
        model = tiny(TINY_STAGES)
        with torch.no_grad():
            embedding = model.get_image_embeddings(pixels)
            alone = model.get_image_embeddings(pixels[1:])
        assert embedding.shape == (2, 256, 16, 16)
        torch.testing.assert_close(embedding[1:], alone, rtol=0, atol=1e-4)

    def test_folded_it_says_the_same(self, pixels: Tensor) -> None:
        model = tiny(TINY_STAGES)
        with torch.no_grad():
            before = model.get_image_embeddings(pixels)
            fold(model.vision_encoder, "cpu")
            after = model.get_image_embeddings(pixels)
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.vision_encoder.modules())
        torch.testing.assert_close(after, before, rtol=0, atol=1e-4)

    def test_stays_in_full_precision(self) -> None:
        model = tiny(TINY_STAGES)
        assert network.narrow(model, torch.bfloat16) == torch.float32
        assert all(weight.dtype == torch.float32 for weight in model.parameters())
