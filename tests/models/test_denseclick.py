import math

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from histoclick.models import registry
from histoclick.models.denseclick.network import DenseClickNet
from histoclick.models.denseclick.segmenter import DenseClickSegmenter
from histoclick.models.nets.clickrasters import FAR, click_distances, rasterise, spots
from histoclick.models.nets.clickunits import likeness_maps
from histoclick.models.nets.mobilenet import CHANNELS, MobileNetV2, calibrate
from histoclick.types import BatchSegmenter, Box, Click, Prediction, Prompt

STRIDES = (2, 4, 8, 16, 32)
CLICKS = torch.tensor(
    [[[10.0, 20.0, 1], [40.5, 3.0, -1], [0, 0, 0]], [[5, 5, -1], [0, 0, 0], [60, 30, 1]]]
)


@pytest.mark.parametrize("stride", [2, 4])
def test_distances_are_from_cell_centres(stride: int) -> None:
    found = click_distances(CLICKS, (8, 16), stride)
    for b in range(2):
        for n in range(3):
            x, y, sign = CLICKS[b, n].tolist()
            for i in range(8):
                for j in range(16):
                    centre = [np.mean(range(stride * k, stride * (k + 1))) for k in (j, i)]
                    expected = math.dist(centre, (x, y)) if sign else FAR
                    assert found[b, n, i, j] == pytest.approx(expected, rel=1e-6)


def test_prompt_maps_against_their_definition() -> None:
    previous = torch.rand(2, 1, 8, 16)
    maps = rasterise(CLICKS, previous)
    distance = click_distances(CLICKS, (8, 16), 4)
    fine = click_distances(CLICKS, (8, 16), 2)
    near_positive = [distance[0, 0], distance[1, 2]]
    near_negative = [distance[0, 1], distance[1, 0]]
    last = [(distance[0, 1], -1), (distance[1, 2], 1)]
    for b in range(2):
        expected = [
            torch.exp(-(near_positive[b] ** 2) / 50),
            torch.exp(-near_positive[b] / 32),
            torch.exp(-(near_negative[b] ** 2) / 50),
            torch.exp(-near_negative[b] / 32),
            last[b][1] * torch.exp(-(last[b][0] ** 2) / 288),
            previous[b, 0],
        ]
        torch.testing.assert_close(maps[b], torch.stack(expected))
        near = [fine[b][CLICKS[b, :, 2] == sign].amin(0) for sign in (1, -1)]
        spotted = [torch.exp(-(each**2) / 50) for each in near]
        torch.testing.assert_close(
            spots(CLICKS, previous)[b], torch.stack([*spotted, previous[b, 0]])
        )


def test_padding_clicks_change_nothing() -> None:
    previous = torch.rand(2, 1, 8, 16)
    padded = torch.cat([CLICKS, torch.zeros(2, 5, 3)], 1)
    torch.testing.assert_close(rasterise(padded, previous), rasterise(CLICKS, previous))
    torch.testing.assert_close(spots(padded, previous), spots(CLICKS, previous))
    features = torch.nn.functional.normalize(torch.randn(2, 6, 4, 8), dim=1)
    torch.testing.assert_close(likeness_maps(features, padded), likeness_maps(features, CLICKS))


def test_likeness_against_its_definition() -> None:
    features = torch.nn.functional.normalize(torch.randn(2, 6, 4, 8), dim=1)
    found = likeness_maps(features, CLICKS)
    for b in range(2):
        for channel, wanted in enumerate((1, -1)):
            cosines = [
                torch.einsum("chw,c->hw", features[b], features[b, :, int(y) // 8, int(x) // 8])
                for x, y, sign in CLICKS[b].tolist()
                if sign == wanted
            ]
            torch.testing.assert_close(found[b, channel], torch.stack(cosines).amax(0))


def test_no_click_of_a_sign_is_zero_likeness() -> None:
    features = torch.nn.functional.normalize(torch.randn(1, 6, 4, 8), dim=1)
    found = likeness_maps(features, torch.tensor([[[3.0, 3.0, 1.0]]]))
    assert (found[:, 1] == 0).all()


def test_trunk_strides_and_channels() -> None:
    features = MobileNetV2().eval()(torch.rand(1, 3, 96, 64))
    shapes = [tuple(f.shape[1:]) for f in features]
    assert shapes == [(c, 96 // s, 64 // s) for c, s in zip(CHANNELS, STRIDES, strict=True)]


@pytest.mark.filterwarnings("ignore:Conversion")
def test_calibrating_and_folding_keep_the_function() -> None:
    torch.manual_seed(0)
    plain = MobileNetV2(norm=False).eval()
    images = torch.rand(4, 3, 64, 64) * 2 - 1
    trained = MobileNetV2()
    calibrate(trained, dict(plain.state_dict()), images)
    for normed, folded in zip(trained.eval()(images), plain(images), strict=True):
        torch.testing.assert_close(normed, folded, rtol=1e-3, atol=1e-5)
    trained.fold()
    plain.load_state_dict(trained.state_dict())
    for again, folded in zip(trained(images), plain(images), strict=True):
        torch.testing.assert_close(again, folded)


@pytest.fixture(scope="module")
def segmenter() -> DenseClickSegmenter:
    torch.manual_seed(0)
    return DenseClickSegmenter(DenseClickNet(norm=False), input_size=96)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("shape", [(96, 96), (50, 131), (300, 200), (1, 1), (7, 400)])
def test_logits_have_the_image_s_shape(
    segmenter: DenseClickSegmenter, shape: tuple[int, int]
) -> None:
    encoded = segmenter.encode(picture(*shape))
    prediction = segmenter.predict(encoded, Prompt((Click(0, 0),)))
    assert prediction.logits.shape == shape
    assert prediction.logits.dtype == np.float32
    assert np.isfinite(prediction.logits).all()


def test_sessions_on_one_image_do_not_see_each_other(segmenter: DenseClickSegmenter) -> None:
    encoded = segmenter.encode(picture(80, 90))
    sessions = [Prompt((Click(10, 10),)), Prompt((Click(70, 60, False),))]
    more = [Click(40, 40, False), Click(20, 70)]

    def alone(first: Prompt, click: Click) -> np.ndarray:
        before = segmenter.predict(encoded, first)
        return segmenter.predict(encoded, first.add(click), before).logits

    firsts = [segmenter.predict(encoded, prompt) for prompt in sessions]
    mixed = [
        segmenter.predict(encoded, prompt.add(click), first).logits
        for prompt, click, first in zip(sessions, more, firsts, strict=True)
    ]
    for prompt, click, logits in zip(sessions, more, mixed, strict=True):
        np.testing.assert_array_equal(alone(prompt, click), logits)


def test_prompts_that_make_no_sense(segmenter: DenseClickSegmenter) -> None:
    encoded = segmenter.encode(picture(40, 50))
    with pytest.raises(ValueError, match="no click"):
        segmenter.predict(encoded, Prompt())
    with pytest.raises(ValueError, match="outside the image of 50x40"):
        segmenter.predict(encoded, Prompt((Click(50, 3),)))
    with pytest.raises(ValueError, match="clicks only"):
        segmenter.predict(encoded, Prompt((Click(1, 1),), Box(0, 0, 5, 5)))


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)],
)
def test_images_of_another_type(segmenter: DenseClickSegmenter, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 RGB"):
        segmenter.encode(image)


def test_encoding_is_the_same_for_every_resize_of_a_flat_image(
    segmenter: DenseClickSegmenter,
) -> None:
    """Reflection padding must not invent an edge."""
    flat = [np.full((h, w, 3), 180, np.uint8) for h, w in ((96, 70), (96, 96))]
    narrow, square = (segmenter.encode(image).pyramid.s4 for image in flat)
    torch.testing.assert_close(narrow[..., 6:12, 6:12], square[..., 6:12, 6:12])


def test_users_together_are_answered_as_alone(segmenter: DenseClickSegmenter) -> None:
    """Pictures of two padded sizes, one to three clicks, with and without a previous mask."""
    assert isinstance(segmenter, BatchSegmenter)
    images = [picture(96, 70), picture(90, 64), picture(40, 50)]
    prompts = [
        Prompt((Click(10, 20),)),
        Prompt((Click(10, 20), Click(60, 80, False), Click(30, 50))),
        Prompt((Click(5, 5), Click(30, 30, False))),
    ]
    together = segmenter.encode_batch(images)
    alone = [segmenter.encode(image) for image in images]
    start = Prediction.of_mask(np.arange(90 * 64).reshape(90, 64) % 3 == 0)
    before = [None, start, segmenter.predict(alone[2], Prompt((Click(5, 5),)))]
    found = segmenter.predict_batch(together, prompts, before)
    for each, encoded, prompt, previous in zip(found, alone, prompts, before, strict=True):
        expected = segmenter.predict(encoded, prompt, previous)
        np.testing.assert_allclose(each.logits, expected.logits, atol=1e-4)


def test_a_mask_from_elsewhere_is_gone_on_from(segmenter: DenseClickSegmenter) -> None:
    """It stands where it was drawn, whatever the padding."""
    image = picture(96, 70)
    mask = np.zeros((96, 70), bool)
    mask[20:60, 10:50] = True
    encoded = segmenter.encode(image)
    seen = segmenter._before(encoded, Prediction.of_mask(mask))
    rows, columns = encoded.resized
    assert seen.shape[2:] == encoded.pyramid.s2.shape[2:]
    small = cv2.resize(mask.astype(np.float32), (columns // 2, rows // 2))
    found = seen[0, 0, : rows // 2, : columns // 2].numpy()
    assert np.abs(found - small).mean() < 0.02
    assert seen[0, 0, :, -(-columns // 2) :].sum() == 0
    first = Prompt((Click(30, 40),))
    from_nothing = segmenter.predict(encoded, first)
    assert not np.array_equal(
        from_nothing.logits, segmenter.predict(encoded, first, Prediction.of_mask(mask)).logits
    )


@pytest.mark.parametrize("shape", [(64, 64), (50, 90), (300, 128)])
def test_embeddings_go_through_arrays(shape: tuple[int, int]) -> None:
    torch.manual_seed(3)
    segmenter = DenseClickSegmenter(DenseClickNet(norm=False), 128)
    encoded = segmenter.encode(np.random.default_rng(4).integers(0, 255, (*shape, 3), np.uint8))
    again = segmenter.unpack(
        {name: np.ascontiguousarray(array) for name, array in segmenter.pack(encoded).items()}
    )
    previous = None
    for prompt in (Prompt((Click(20, 30),)), Prompt((Click(20, 30), Click(40, 45, False)))):
        expected = segmenter.predict(encoded, prompt, previous)
        assert np.array_equal(segmenter.predict(again, prompt, previous).logits, expected.logits)
        previous = expected
    assert again.shape == shape
    with pytest.raises(ValueError, match="shape"):
        segmenter.unpack(segmenter.pack(encoded) | {"s4": np.zeros((1, 32, 4, 4), np.float32)})


@pytest.mark.parametrize("start", ["an answer", "a mask"])
def test_a_click_outside_takes_away_and_adds_nothing(start: str) -> None:
    segmenter = registry.load("histoclick-tiny")
    image = skimage.data.immunohistochemistry()
    encoded = segmenter.encode(image)
    first = segmenter.predict(encoded, Prompt((Click(256, 256),)))
    before = first if start == "an answer" else Prediction.of_mask(first.mask)
    y, x = np.argwhere(first.mask)[::97].T
    taken = 0
    for px, py in zip(x[:12].tolist(), y[:12].tolist(), strict=True):
        prompt = Prompt((Click(256, 256), Click(px, py, positive=False)))
        after = segmenter.predict(encoded, prompt, before)
        assert not (after.mask & ~first.mask).any()
        taken += int((first.mask & ~after.mask).sum())
    assert taken > 0
