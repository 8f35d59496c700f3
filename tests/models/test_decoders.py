"""The decoders of other lines of work on the gated family's trunk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from histoclick.files import sha256
from histoclick.models.card import Card
from histoclick.models.gatedclick.decoders import DECODERS, Pyramid
from histoclick.models.gatedclick.fusion import DISC_PX, discs
from histoclick.models.gatedclick.network import GatedClickNet
from histoclick.models.gatedclick.parts import ARCHITECTURES
from histoclick.models.gatedclick.segmenter import GatedClickSegmenter, load
from histoclick.models.nets.clicktokens import ClickTokens, Positions
from histoclick.models.weights import write_safetensors
from histoclick.types import Click, Prompt

OTHERS = ("small-sam", "small-paper", "small-segnext", "small-merge")
CLICKS = torch.tensor([[[20.0, 30.0, 1.0], [50.0, 9.0, -1.0]]] * 2)


def made(name: str) -> GatedClickNet:
    torch.manual_seed(0)
    return GatedClickNet(ARCHITECTURES[name], norm=False)


def encoded(net: GatedClickNet) -> Pyramid:
    torch.manual_seed(1)
    return net.encode(torch.rand(2, 3, 96, 64) * 2 - 1)


def test_every_decoder_is_some_architecture_s() -> None:
    assert {parts.decoder for parts in ARCHITECTURES.values()} == DECODERS.keys()


@pytest.mark.parametrize("name", OTHERS)
def test_shapes(name: str) -> None:
    net = made(name)
    pyramid = encoded(net)
    assert tuple(part.shape[1] for part in pyramid) == net.channels
    draft = net.decoder(pyramid, CLICKS, torch.rand(2, 1, 48, 32))
    w2, *_, w16 = net.parts.widths
    assert draft.proposal.shape == (2, 1, 48, 32)
    assert draft.fine.shape == (2, w2, 48, 32)
    assert draft.coarse.shape == (2, w16, 6, 4)


@pytest.mark.parametrize("name", OTHERS)
def test_gradients_reach_all_weights(name: str) -> None:
    """One user begins, the other has a mask already."""
    net = made(name)
    for layer in net.modules():  # what begins as no correction lets nothing through
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and not weight.any():
            torch.nn.init.normal_(weight)
    begun = torch.tensor([0.0, 1.0])
    decoded = net.decode(encoded(net), CLICKS, torch.randn(2, 1, 96, 64), begun)
    (decoded.logits.square().mean() + decoded.quality.sum()).backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    # A key's bias adds the same to all scores of a query; sums over places, in exact arithmetic,
    # leave nothing of it.
    silent = [name for name in silent if not name.endswith("k_proj.bias")]
    assert silent == []


@pytest.mark.parametrize("name", OTHERS)
def test_a_click_and_the_last_mask_change_the_answer(name: str) -> None:
    net = made(name).eval()
    pyramid, before = encoded(net), torch.randn(2, 1, 96, 64)

    def answer(clicks: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            return net.decode(pyramid, clicks, mask, torch.ones(2)).logits

    first = answer(CLICKS, before)
    assert not torch.equal(first, answer(CLICKS[:, :1], before))
    moved, other = CLICKS.clone(), CLICKS.clone()
    moved[:, 1, 0], other[:, 1, 2] = 10.0, 1.0
    assert not torch.equal(first, answer(moved, before))
    assert not torch.equal(first, answer(other, before))
    assert not torch.equal(first, answer(CLICKS, before.flip(2)))


@pytest.mark.parametrize("name", OTHERS)
def test_padding_between_clicks_changes_nothing(name: str) -> None:
    """A batch holds users with few clicks and users with many."""
    net = made(name).eval()
    pyramid, before = encoded(net), torch.randn(2, 1, 96, 64)
    padded = torch.zeros(2, 5, 3)
    padded[:, [0, 3]] = CLICKS
    with torch.no_grad():
        one, other = (
            net.decode(pyramid, clicks, before, torch.ones(2)).logits for clicks in (CLICKS, padded)
        )
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_a_folder_brings_back_the_same_model(name: str, tmp_path: Path) -> None:
    net = made(name).eval()
    state = {key: value.half().float() for key, value in net.state_dict().items()}
    net.load_state_dict(state)
    file = tmp_path / "weights.safetensors"
    write_safetensors({key: value.half() for key, value in state.items()}, file)
    card = Card("mine", "gatedclick", name, "", "", "", sha256(file), input_size=64)
    card.write(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    answers = []
    for segmenter in (GatedClickSegmenter(net, 64), load(card, tmp_path, "cpu")):
        held = segmenter.unpack(segmenter.pack(segmenter.encode(image)))
        prompt = Prompt((Click(10, 20), Click(40, 30, False)))
        answers.append(segmenter.predict(held, prompt).logits)
    np.testing.assert_array_equal(*answers)


def test_positions_tell_places_apart_and_fit_the_grid() -> None:
    torch.manual_seed(0)
    positions = Positions(64)
    grid = positions.grid(torch.zeros(1, 1, 6, 4))[0]
    assert grid.shape == (64, 6, 4)
    # The centre of the cell in row 2, column 3 of a 4 x 6 grid
    torch.testing.assert_close(grid[:, 2, 3], positions(torch.tensor([3.5 / 4, 2.5 / 6])))
    flat = grid.flatten(1).T
    assert torch.cdist(flat, flat).add(torch.eye(24) * 9).min() > 0.5


def test_no_mask_is_not_an_empty_mask() -> None:
    torch.manual_seed(0)
    prompts = ClickTokens(32)
    nothing = prompts.dense(torch.zeros(1, 1, 16, 16))
    empty = prompts.dense(torch.full((1, 1, 16, 16), 1e-6))
    expected = prompts.no_mask.weight[0, :, None, None].expand(1, -1, 4, 4)
    torch.testing.assert_close(nothing, expected)
    assert not torch.allclose(empty, expected)


def test_discs_are_where_the_clicks_are() -> None:
    maps = discs(CLICKS[:1], torch.zeros(1, 1, 48, 32))[0]
    for channel, (x, y) in enumerate(((20, 30), (50, 9))):
        rows, columns = maps[channel].nonzero(as_tuple=True)
        distance = torch.hypot(2 * columns + 0.5 - x, 2 * rows + 0.5 - y)
        assert distance.max() <= DISC_PX
        assert len(rows) == pytest.approx(np.pi * DISC_PX**2 / 4, rel=0.25)
