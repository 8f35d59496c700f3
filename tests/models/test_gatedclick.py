"""The gated family: its parts, and what no click can do whatever the weights are."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from histoclick.files import sha256
from histoclick.models import registry
from histoclick.models.card import Card
from histoclick.models.compliance import REACH, comply, merged
from histoclick.models.gatedclick.network import FAR, FREE, NEAR, GatedClickNet, within_reach
from histoclick.models.gatedclick.parts import ARCHITECTURES, SMALL
from histoclick.models.gatedclick.refiner import SIDE, Refiner, cut, paste
from histoclick.models.gatedclick.segmenter import GatedClickSegmenter
from histoclick.models.nets.clickrasters import last_click
from histoclick.models.weights import write_safetensors
from histoclick.types import BatchSegmenter, Click, HistoclickError, Prediction, Prompt


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def unsettled(architecture: str = "small", seed: int = 0) -> GatedClickNet:
    """A network whose answers are wild: no part of it begins as nothing."""
    torch.manual_seed(seed)
    net = GatedClickNet(ARCHITECTURES[architecture], norm=False)
    for name, parameter in net.named_parameters():
        if not parameter.any() or "gate" in name or "refiner.head" in name or "correct" in name:
            torch.nn.init.normal_(parameter, std=3.0)
    return net.eval()


@pytest.fixture(scope="module")
def segmenter() -> GatedClickSegmenter:
    return GatedClickSegmenter(unsettled(), input_size=96)


# ------------------------------------------------------------------------------- the network


@pytest.mark.parametrize(("name", "parameters"), [("small", 2_119_484), ("base", 3_368_844)])
def test_sizes(name: str, parameters: int) -> None:
    net = GatedClickNet(ARCHITECTURES[name], norm=False)
    assert sum(p.numel() for p in net.parameters()) == parameters
    pyramid = net.encode(torch.zeros(2, 3, 96, 64))
    shapes = [tuple(part.shape[1:]) for part in pyramid]
    w2, w4, w8, w16 = ARCHITECTURES[name].widths
    assert shapes == [
        (w2, 48, 32),
        (w4, 24, 16),
        (w8, 12, 8),
        (w16, 6, 4),
        (32, 12, 8),
        (3, 96, 64),
    ]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_answers(name: str) -> None:
    segmenter = GatedClickSegmenter(unsettled(name), 64)
    encoded = segmenter.encode(picture(70, 50))
    prompt = Prompt((Click(10, 20),))
    first = segmenter.predict(encoded, prompt)
    second = segmenter.predict(encoded, prompt.add(Click(30, 40, False)), first)
    for prediction in (first, second):
        assert prediction.logits.shape == (70, 50)
        assert np.isfinite(prediction.logits).all()
        assert prediction.quality is not None
        assert 0 <= prediction.quality <= 1


def test_a_part_that_is_switched_off_is_gone() -> None:
    def names(name: str) -> set[str]:
        net = GatedClickNet(ARCHITECTURES[name], norm=False)
        return {key.split(".")[0] for key in net.state_dict()}

    assert names("small") - names("small-nogate") == {"gate"}
    assert names("small") - names("small-norefiner") == {"refiner"}
    torch.manual_seed(0)
    decode = []
    state = unsettled().state_dict()
    for parts in (
        SMALL,
        *(replace(SMALL, **{name: False}) for name in ("skips", "likeness", "halos", "previous")),
    ):
        net = GatedClickNet(parts, norm=False).eval()
        net.load_state_dict(state)
        pyramid = net.encode(torch.rand(1, 3, 64, 64))
        clicks = torch.tensor([[[20.0, 30.0, 1.0], [50.0, 9.0, -1.0]]])
        decode.append(net.decode(pyramid, clicks, torch.randn(1, 1, 64, 64), torch.ones(1)).logits)
    for other in decode[1:]:
        assert not torch.equal(decode[0], other)


def test_the_first_click_is_answered_by_the_decoder_alone() -> None:
    net = unsettled()
    pyramid = net.encode(torch.rand(1, 3, 64, 96))
    clicks = torch.tensor([[[20.0, 30.0, 1.0]]])
    nothing = torch.zeros(1, 1, 64, 96)
    decoded = net.decode(pyramid, clicks, nothing, torch.zeros(1))
    expected = torch.nn.functional.interpolate(
        decoded.proposal, scale_factor=2.0, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(decoded.logits, expected)
    # ... and what stands in ``before`` does not matter then
    again = net.decode(pyramid, clicks, nothing + 7, torch.zeros(1))
    torch.testing.assert_close(again.logits, decoded.logits)


def test_where_the_gate_is_closed_the_mask_stays() -> None:
    """But around the click, where the refiner looks."""
    net = unsettled()
    torch.nn.init.zeros_(net.gate.weight)
    torch.nn.init.constant_(net.gate.bias, -50.0)
    pyramid = net.encode(torch.rand(1, 3, 160, 160))
    before = torch.randn(1, 1, 160, 160)
    clicks = torch.tensor([[[20.0, 30.0, 1.0], [100.0, 90.0, -1.0]]])
    after = net.decode(pyramid, clicks, before, torch.ones(1)).logits
    changed = (after[0, 0] > 0) != (before[0, 0] > 0)
    y, x = changed.nonzero(as_tuple=True)
    assert len(y) > 0
    assert torch.hypot(x - 100.0, y - 90.0).max() < SIDE / 2


@pytest.mark.parametrize("clicks", [1, FREE, FREE + 1, FREE + 8])
def test_reach_of_a_click(clicks: int) -> None:
    points = torch.rand(1, clicks, 3) * 300
    points[:, :, 2] = 1
    points[0, -1] = torch.tensor([250.0, 40.0, -1.0])
    reach = within_reach(torch.cat([points, torch.zeros(1, 3, 3)], 1), (300, 500))[0, 0]
    for y, x in ((40, 250), (40, 340), (41, 420), (240, 250), (299, 499), (0, 0)):
        distance = math.hypot(x - 250, y - 40)
        share = min(max((distance - NEAR) / (FAR - NEAR), 0), 1)
        expected = math.cos(share * math.pi / 2) ** 2 if clicks > FREE else 1
        assert reach[y, x] == pytest.approx(expected, abs=1e-5)
        if distance >= FAR and clicks > FREE:
            assert reach[y, x] == 0


# ------------------------------------------------------------------------------- the refiner


def test_crops_are_put_back_where_they_were_cut() -> None:
    maps = torch.rand(2, 1, 40, 50)
    rows, columns = torch.tensor([[3, 4, 5], [0, 1, 2]]), torch.tensor([[7, 8], [48, 49]])
    crops = cut(maps, rows, columns)
    for b in range(2):
        assert torch.equal(crops[b, 0], maps[b, 0][rows[b][:, None], columns[b]])
    back = paste(crops, rows, columns, (40, 50))
    assert torch.equal(cut(back, rows, columns), crops)
    assert back.count_nonzero() == crops.count_nonzero()


@pytest.mark.parametrize("click", [(0, 0), (159, 3), (80, 81), (41, 127)])
def test_a_refiner_sees_one_place_in_all_its_maps(click: tuple[int, int]) -> None:
    """Image, features at stride 2, and clicks that mark one pixel are aligned in its crop."""
    refiner = Refiner(fine=1)
    seen: list[torch.Tensor] = []
    refiner.convs.register_forward_hook(lambda module, given, made: seen.append(given[0]))
    ramp = (torch.arange(160.0)[:, None] * 1000 + torch.arange(160.0))[None, None]
    fine = torch.nn.functional.avg_pool2d(ramp, 2)
    x, y = click
    clicks = torch.tensor([[[x, y, 1.0], [0, 0, 0]]])
    refiner(ramp.expand(1, 3, -1, -1), fine, ramp, ramp, clicks)
    crop = seen[0][0]
    inner = slice(1, -1)
    torch.testing.assert_close(crop[0, inner, inner], crop[3, inner, inner], rtol=0, atol=0.5)
    spot = crop[6]
    row, column = divmod(int(spot.argmax()), SIDE)
    assert crop[0, row, column] == 1000 * y + x


@settings(max_examples=10, deadline=None)
@given(x=st.floats(0, 199), y=st.floats(0, 149), seed=st.integers(0, 99))
def test_a_refiner_s_correction_ends(x: float, y: float, seed: int) -> None:
    torch.manual_seed(seed)
    refiner = Refiner(fine=8)
    torch.nn.init.normal_(refiner.head.weight, std=30)
    maps = [torch.randn(1, c, 150, 200) for c in (3, 1, 1)]
    image, logits, before = maps
    clicks = torch.tensor([[[x, y, -1.0], [0, 0, 0]]])
    change = refiner(image, torch.randn(1, 8, 75, 100), logits, before, clicks)[0, 0]
    rows, columns = change.nonzero(as_tuple=True)
    assert torch.hypot(columns - x, rows - y).max() < SIDE / 2 + 1e-3


def test_the_last_click_is_before_the_padding() -> None:
    clicks = torch.tensor([[[1.0, 2, 1], [3, 4, -1], [0, 0, 0]], [[5, 6, 1], [0, 0, 0], [7, 8, 1]]])
    assert last_click(clicks).tolist() == [[3, 4, -1], [7, 8, 1]]


# --------------------------------------------------------------- what holds for every click

places = st.tuples(st.integers(0, 79), st.integers(0, 59), st.booleans())


@settings(max_examples=60, deadline=None)
@given(clicks=st.lists(places, min_size=1, max_size=50), seed=st.integers(0, 99))
def test_every_click_is_obeyed_and_nothing_else_is_touched(
    clicks: list[tuple[int, int, bool]], seed: int
) -> None:
    """Also 50 of them, of two signs side by side, at the border, and again on one pixel."""
    logits = np.random.default_rng(seed).normal(0, 8, (60, 80)).astype(np.float32)
    made = [Click(x, y, positive) for x, y, positive in clicks]
    obeyed = comply(logits, made, 6.0)
    said = {(x, y): positive for x, y, positive in clicks}
    away = np.ones(logits.shape, bool)
    for (x, y), positive in said.items():
        assert (obeyed[y, x] > 0) == positive
        yy, xx = np.ogrid[:60, :80]
        away &= np.hypot(xx - x, yy - y) >= REACH * 6
    assert np.array_equal(obeyed[away], logits[away])
    assert np.array_equal(comply(obeyed, made, 6.0), obeyed)


def test_clicks_of_two_signs_side_by_side_flip_little() -> None:
    logits = np.full((60, 80), -7.0, np.float32)
    obeyed = comply(logits, [Click(40, 30), Click(45, 30, False)], 6.0)
    assert obeyed[30, 40] > 0 > obeyed[30, 45]
    assert 1 <= (obeyed > 0).sum() < 25


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), x=st.integers(0, 19), y=st.integers(0, 14))
def test_merging_against_its_definition(seed: int, x: int, y: int) -> None:
    rng = np.random.default_rng(seed)
    before, now = rng.random((2, 15, 20)) < 0.4
    taken = merged(before, now, [Click(x, y)])
    changed = before != now
    if not changed[y, x]:
        assert taken.all()
        return
    grown = {(y, x)}
    edge = [(y, x)]
    while edge:
        i, j = edge.pop()
        for near in [(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]:
            inside = 0 <= near[0] < 15 and 0 <= near[1] < 20
            if inside and changed[near] and near not in grown:
                grown.add(near)
                edge.append(near)
    assert set(map(tuple, np.argwhere(taken).tolist())) == grown


ADVERSE = {
    "in the background": [Click(30, 30, True)],
    "two signs, 5 px apart": [Click(100, 100), Click(105, 100, False)],
    "on the border": [Click(0, 0), Click(419, 419, False), Click(0, 250), Click(200, 419)],
    "fifty": [Click(7 * i + 30, 5 * i + 40, i % 2 == 0) for i in range(50)],
}


@pytest.mark.parametrize("clicks", ADVERSE.values(), ids=ADVERSE)
def test_late_clicks_never_change_what_is_far_away(clicks: list[Click]) -> None:
    """Whatever the weights are: beyond the reach of the last click the mask stays to the pixel."""
    segmenter = GatedClickSegmenter(unsettled(seed=5), 448)
    encoded = segmenter.encode(picture(420, 420))
    mask = np.zeros((420, 420), bool)
    mask[100:330, 90:350] = True
    prompt = Prompt(tuple(Click(150 + 40 * i, 200) for i in range(FREE)))
    previous = segmenter.predict(encoded, prompt, Prediction.of_mask(mask))
    rows, columns = np.mgrid[:420, :420]
    scale = 420 / 448
    prompt = Prompt((*prompt.clicks, *clicks[:-4]))
    previous = segmenter.predict(encoded, prompt, previous)
    for click in clicks[-4:]:
        prompt = prompt.add(click)
        now = segmenter.predict(encoded, prompt, previous)
        assert now.mask[round(click.y), round(click.x)] == click.positive
        far = np.hypot(columns - click.x, rows - click.y) > FAR * scale + 2
        assert far.any()
        assert not (now.mask != previous.mask)[far].any()
        previous = now


# ------------------------------------------------------------------------- behind the protocol


def test_users_together_are_answered_as_alone(segmenter: GatedClickSegmenter) -> None:
    """Pictures of two padded sizes, one to five clicks, with and without a previous mask."""
    assert isinstance(segmenter, BatchSegmenter)
    images = [picture(96, 70), picture(90, 64), picture(40, 50)]
    late = Prompt(tuple(Click(10 + 9 * i, 20 + 7 * i, i % 2 == 0) for i in range(5)))
    prompts = [Prompt((Click(10, 20),)), late, Prompt((Click(5, 5), Click(30, 30, False)))]
    together = segmenter.encode_batch(images)
    alone = [segmenter.encode(image) for image in images]
    start = Prediction.of_mask(np.arange(90 * 64).reshape(90, 64) % 3 == 0)
    before = [None, start, segmenter.predict(alone[2], Prompt((Click(5, 5),)))]
    found = segmenter.predict_batch(together, prompts, before)
    for each, encoded, prompt, previous in zip(found, alone, prompts, before, strict=True):
        expected = segmenter.predict(encoded, prompt, previous)
        np.testing.assert_allclose(each.logits, expected.logits, atol=2e-3)
        assert each.quality == pytest.approx(expected.quality, abs=1e-4)


def test_a_mask_from_elsewhere_stands_where_it_was_drawn(segmenter: GatedClickSegmenter) -> None:
    mask = np.zeros((96, 70), bool)
    mask[20:60, 10:50] = True
    seen = segmenter._before(segmenter.encode(picture(96, 70)), Prediction.of_mask(mask))
    assert seen.shape == (96, 96)
    assert np.array_equal(seen[:, :70] > 0, mask)
    assert (seen[:, 70:] < 0).all()


def test_embeddings_go_through_arrays(segmenter: GatedClickSegmenter) -> None:
    encoded = segmenter.encode(picture(50, 90))
    again = segmenter.unpack(
        {name: np.ascontiguousarray(array) for name, array in segmenter.pack(encoded).items()}
    )
    previous = None
    for prompt in (Prompt((Click(20, 30),)), Prompt((Click(20, 30), Click(40, 45, False)))):
        expected = segmenter.predict(encoded, prompt, previous)
        assert np.array_equal(segmenter.predict(again, prompt, previous).logits, expected.logits)
        previous = expected
    with pytest.raises(ValueError, match="shape"):
        segmenter.unpack(segmenter.pack(encoded) | {"s4": np.zeros((1, 32, 4, 4), np.float32)})


def test_a_model_folder_is_loaded_strictly(tmp_path: Path) -> None:
    net = GatedClickNet(SMALL, norm=False)
    write_safetensors(net.state_dict(), tmp_path / "weights.safetensors")
    card = Card(
        id=tmp_path.name, family="gatedclick", architecture="small", summary="", licence="",
        origin="", sha256=sha256(tmp_path / "weights.safetensors"), input_size=64,
    )  # fmt: skip
    card.write(tmp_path)
    found = registry.load(tmp_path)
    prompt = Prompt((Click(5, 6),))
    expected = GatedClickSegmenter(net, 64)
    image = picture(40, 50)
    answers = [each.predict(each.encode(image), prompt).logits for each in (found, expected)]
    np.testing.assert_array_equal(*answers)
    replace(card, architecture="large").write(tmp_path)
    with pytest.raises(HistoclickError, match="unknown architecture 'large'; known: small, base"):
        registry.load(tmp_path)
    replace(card, architecture="small-nogate").write(tmp_path)
    with pytest.raises(HistoclickError, match="gate"):
        registry.load(tmp_path)
