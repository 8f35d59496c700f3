from __future__ import annotations

import base64
import io
import json
import math
import re
import socket
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from shapely.geometry import shape
from skimage.data import immunohistochemistry

from askers import Knowing, Viewport, base64_of, client_of, comb, engine_of, png
from fakes import disc
from histoclick.geometry import Rect
from histoclick.masks import rasterise
from histoclick.models import registry
from histoclick.server import samapi, selftest
from histoclick.server.conversations import Conversations
from histoclick.server.engine import Engine
from histoclick.server.samwire import TYPES
from histoclick.server.uploads import Picture
from histoclick.types import Box, Click, HistoclickError

PINK = (230, 180, 210)
DARK = (90, 40, 120)


def painted(mask: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the object dark on pink."""
    return np.where(mask[..., None], DARK, PINK).astype(np.uint8)


def seen(picture: np.ndarray) -> np.ndarray:
    """What a model that knows sees in such a picture."""
    return picture[..., 0] < 160


@pytest.fixture
def knowing() -> Iterator[tuple[Knowing, TestClient]]:
    model = Knowing(seen)
    engine = engine_of(model, 448)
    yield model, client_of(samapi.router(engine))
    engine.close()


def filled(geometry: dict, height: int, width: int) -> np.ndarray:
    return rasterise(shape(geometry), Rect(0, 0, width, height), width, height)


# What the extension shows is what the model said.


def test_a_comb_with_a_hole_comes_back_exactly_at_downsample_8(knowing) -> None:
    model, client = knowing
    mask = comb(100, 380)
    view = Viewport(painted(mask), min_x=4000, min_y=12_000, downsample=8)
    click = (4000 + 8 * 15.5, 12_000 + 8 * 15.5)
    away = [(4000 + 8 * 370.0, 12_000 + 8 * 90.0), (1.0, 1.0)]  # one is outside and filtered
    body = view.request([click], away)
    assert body["point_coords"] == [[370, 90], [15, 15]]
    assert body["point_labels"] == [0, 1]
    assert "bbox" not in body
    [answer] = client.post("/sam/", json=body).json()

    full = view.placed(answer["geometry"])
    assert full.is_valid
    # Every px of the view is 8 x 8 px of the slide: all of them, and no others.
    rect0 = Rect(4000, 12_000, 380 * 8, 100 * 8)
    expected = np.kron(mask, np.ones((8, 8), np.bool_))
    assert (rasterise(full, rect0, 380 * 8, 100 * 8) == expected).all()
    assert full.bounds[0] == 4000 + 8 * 10  # the corner of px 10, not its centre
    assert full.area == 64 * mask.sum()
    assert len(full.geoms) == 3
    hole = full.geoms[0].interiors[0]
    assert len(hole.coords) > len(full.geoms[0].exterior.coords)
    assert [prompt.clicks[-1].positive for prompt, _ in model.prompts] == [True, False]


def test_the_reply_has_what_the_client_reads_and_no_object_idx(knowing) -> None:
    model, client = knowing
    model.quality = 0.93
    view = Viewport(painted(disc(100, 50, 50, 20)), 0, 0, 1)
    [answer] = client.post("/sam", json=view.request([(50, 50)])).json()
    assert answer["type"] == "Feature"
    assert answer["geometry"]["type"] == "Polygon"  # no collection of one
    ring = answer["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    assert all(type(number) is int for point in ring for number in point)
    assert answer["properties"] == {
        "quality": 0.93,
        "label": "object",
        "sam_model": "vit_l",
        "measurements": {"SAM clicks": 1},
        "metadata": {"model": "fake"},
    }


@pytest.mark.parametrize(
    ("side", "looked_at"), [(150, [150]), (700, [700, 128]), (1900, [1900, 128])]
)
def test_a_small_object_of_a_large_view_is_looked_at_closely(side: int, looked_at: list) -> None:
    model = Knowing(seen)
    engine = engine_of(model, 128)
    client = client_of(samapi.router(engine))
    x, y = side * 0.6, side * 0.4
    mask = disc(side, x, y, 40) & ~disc(side, x, y, 9)
    view = Viewport(painted(mask), 0, 0, 1)
    [answer] = client.post("/sam/", json=view.request([(x + 20, y)])).json()
    assert (filled(answer["geometry"], side, side) == mask).all()
    assert [len(picture) for picture in model.encoded] == looked_at
    # The next click goes on there; another object needs no new encoding of the view.
    client.post("/sam/", json=view.request([(x + 20, y), (x - 20, y)]))
    assert [len(picture) for picture in model.encoded] == looked_at
    assert len(model.prompts[-1][0].clicks) == 2
    client.post("/sam/", json=view.request([(x, y - 20)]))
    assert [len(picture) for picture in model.encoded] == looked_at
    engine.close()


def test_a_large_object_is_looked_at_as_a_whole() -> None:
    model = Knowing(seen)
    engine = engine_of(model, 128)
    client = client_of(samapi.router(engine))
    mask = disc(1000, 500, 500, 300)
    [answer] = client.post(
        "/sam/", json=Viewport(painted(mask), 0, 0, 1).request([(500, 500)])
    ).json()
    assert (filled(answer["geometry"], 1000, 1000) == mask).all()
    assert [len(picture) for picture in model.encoded] == [1000]
    engine.close()


def test_the_window_grows_with_the_object() -> None:
    """A first look that misses most of the object, as they do."""

    class Hesitant(Knowing):
        def predict(self, encoded, prompt, previous=None):
            shown = encoded
            if previous is None:
                x, y = prompt.clicks[0].x, prompt.clicks[0].y
                shown = encoded & disc(len(encoded), x, y, 30)
            return super().predict(shown, prompt, previous)

    model = Hesitant(seen)
    engine = engine_of(model, 128)
    client = client_of(samapi.router(engine))
    mask = disc(1500, 700, 800, 210)
    view = Viewport(painted(mask), 0, 0, 1)
    [answer] = client.post("/sam/", json=view.request([(700, 800)])).json()
    assert (filled(answer["geometry"], 1500, 1500) == mask).all()
    assert [len(picture) for picture in model.encoded] == [1500, 128, 256, 512]
    assert [went_on for _, went_on in model.prompts] == [False, True, True, True]
    engine.close()


def test_clicks_far_apart_are_seen_together() -> None:
    model = Knowing(seen)
    engine = engine_of(model, 128)
    client = client_of(samapi.router(engine))
    mask = disc(900, 150, 150, 30) | disc(900, 480, 200, 30)
    view = Viewport(painted(mask), 0, 0, 1)
    body = view.request([(150, 150), (480, 200)])
    [answer] = client.post("/sam/", json=body).json()
    assert (filled(answer["geometry"], 900, 900) == mask).all()
    engine.close()


def test_the_built_in_model_on_real_histology() -> None:
    class Remembers:
        """The model, and what it said."""

        def __init__(self) -> None:
            self.model = registry.load()
            self.said: list[np.ndarray] = []

        def encode(self, image):
            return self.model.encode(image)

        def predict(self, encoded, prompt, previous=None):
            prediction = self.model.predict(encoded, prompt, previous)
            self.said.append(prediction.mask)
            return prediction

    model = Remembers()
    card, _ = registry.find(registry.default_id())
    engine = Engine(model, card)
    client = client_of(samapi.router(engine))
    view = Viewport(immunohistochemistry(), 2048, 512, 8)
    points = [(350, 120), (300, 60), (400, 60), (330, 200)]
    for count in range(1, len(points) + 1):
        clicks = [(2048 + 8 * x + 3, 512 + 8 * y + 3) for x, y in points[:count]]
        body = view.request(clicks, [(2048 + 8 * 100, 512 + 8 * 300)])
        [answer] = client.post("/sam/", json=body).json()
        rect0 = Rect(2048, 512, 4096, 4096)
        full = rasterise(view.placed(answer["geometry"]), rect0, 4096, 4096)
        assert (full == np.kron(model.said[-1], np.ones((8, 8), np.bool_))).all()
    assert 0.1 < model.said[-1].mean() < 0.6
    assert 0 < answer["properties"]["quality"] < 1
    # The first request has two clicks, each later one is one more step.
    assert len(model.said) == 2 + 3
    engine.close()


# Embeddings and answers are used again.


def test_ten_clicks_encode_once(knowing) -> None:
    model, client = knowing
    view = Viewport(painted(disc(200, 100, 100, 60)), 0, 0, 1)
    points = [(60 + 8 * i, 100) for i in range(10)]
    for count in range(1, 11):
        client.post("/sam/", json=view.request(points[:count]))
    assert len(model.encoded) == 1
    assert [(len(prompt.clicks), went_on) for prompt, went_on in model.prompts] == [
        (count, count > 1) for count in range(1, 11)
    ]
    client.post("/sam/", json=view.request(points[:4]))  # undone: known already
    assert len(model.prompts) == 10


def test_a_new_background_point_comes_first_in_the_request_and_last_to_the_model(knowing) -> None:
    model, client = knowing
    view = Viewport(painted(disc(200, 100, 100, 60)), 0, 0, 1)
    client.post("/sam/", json=view.request([(90, 90), (110, 110)]))
    client.post("/sam/", json=view.request([(90, 90), (110, 110)], [(10, 10)]))
    prompt, went_on = model.prompts[-1]
    assert [(c.x, c.y, c.positive) for c in prompt.clicks] == [
        (90, 90, True), (110, 110, True), (10, 10, False),
    ]  # fmt: skip
    assert went_on
    assert len(model.prompts) == 3


def test_another_object_does_not_go_on_from_the_first(knowing) -> None:
    model, client = knowing
    view = Viewport(painted(disc(200, 100, 100, 60)), 0, 0, 1)
    client.post("/sam/", json=view.request([(90, 90)]))
    client.post("/sam/", json=view.request([(120, 120)]))
    assert len(model.encoded) == 1
    assert model.prompts[-1][1] is False


def test_what_is_remembered_is_bounded() -> None:
    engine = engine_of(Knowing(seen), 128)
    talk = Conversations(engine, max_bytes=1_000_000)
    for seed in range(30):
        noise = np.random.default_rng(seed).integers(0, 255, (120, 120, 3)).astype(np.uint8)
        picture = Picture.of_bytes(png(noise))
        for count in range(1, 4):
            talk.answer(picture, [Click(50 + i, 50) for i in range(count)], None)
            assert talk.nbytes <= 1_000_000
    engine.close()


def test_two_clients_with_different_pictures_at_once(knowing) -> None:
    model, client = knowing
    wrong = []

    def click_on(x: float) -> None:
        mask = disc(220, x, 110, 40)
        view = Viewport(painted(mask), 0, 0, 1)
        for step in range(8):
            [answer] = client.post("/sam/", json=view.request([(x, 110 - step)])).json()
            if (filled(answer["geometry"], 220, 220) != mask).any():
                wrong.append((x, step))

    users = [threading.Thread(target=click_on, args=(x,)) for x in (70, 110, 150)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert not wrong
    assert len(model.encoded) == 3


# Rectangles.


def test_a_rectangle_goes_to_a_model_that_knows_boxes_as_it_is() -> None:
    model = Knowing(seen, boxes=True)
    engine = engine_of(model, 448)
    client = client_of(samapi.router(engine))
    view = Viewport(painted(disc(200, 100, 100, 60)), 0, 0, 1)
    client.post("/sam/", json=view.request([], bbox=(40, 30, 161, 150)))
    client.post("/sam/", json=view.request([(100, 100)], bbox=(40, 30, 161, 150)))
    (first, _), (second, went_on) = model.prompts
    assert first.clicks == ()
    assert first.box == second.box == Box(40, 30, 160, 149)  # the pixels inside
    assert len(second.clicks) == 1
    assert went_on
    engine.close()


def test_a_rectangle_for_a_model_of_clicks_is_told_in_clicks_and_the_mask_stays_inside(
    knowing,
) -> None:
    model, client = knowing
    mask = disc(200, 100, 100, 60)
    view = Viewport(painted(mask), 0, 0, 1)
    [answer] = client.post("/sam/", json=view.request([], bbox=(50, 50, 120, 120))).json()
    inside = np.zeros_like(mask)
    inside[50:120, 50:120] = True
    assert (filled(answer["geometry"], 200, 200) == (mask & inside)).all()
    prompt, started_from_a_mask = model.prompts[0]
    assert [(c.x, c.y, c.positive) for c in prompt.clicks] == [(84.5, 84.5, True)]
    assert started_from_a_mask
    assert [c.positive for c in model.prompts[-1][0].clicks] == [True] + [False] * 4


@pytest.mark.parametrize("bbox", [(-500, -500, 120, 120), (120, 120, -500, -500)])
def test_a_rectangle_beyond_the_view_is_cut(knowing, bbox) -> None:
    _model, client = knowing
    view = Viewport(painted(disc(200, 60, 60, 30)), 0, 0, 1)
    [answer] = client.post("/sam/", json=view.request([], bbox=bbox)).json()
    assert (filled(answer["geometry"], 200, 200) == disc(200, 60, 60, 30)).all()


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"bbox": [500, 500, 600, 600]},
        {"bbox": [20, 20, 20, 60]},
        {"point_coords": [], "point_labels": []},
        {"point_coords": [[-4, 30], [30, 900]], "point_labels": [1, 1]},
        {"point_coords": [[30, 30]], "point_labels": [0]},
        {"point_coords": None, "point_labels": None, "bbox": None, "b64mask": None},
    ],
)
def test_nothing_to_go_on_gives_no_object(knowing, asked) -> None:
    model, client = knowing
    body = {"type": "vit_b", "b64img": base64_of(painted(disc(200, 100, 100, 60)))}
    reply = client.post("/sam/", json=body | asked)
    assert reply.status_code == 200
    assert reply.json() == []
    assert not model.prompts


def test_an_empty_mask_is_left_out() -> None:
    engine = engine_of(Knowing(lambda picture: np.zeros(picture.shape[:2], np.bool_)), 448)
    client = client_of(samapi.router(engine))
    view = Viewport(painted(disc(200, 100, 100, 60)), 0, 0, 1)
    assert client.post("/sam/", json=view.request([(100, 100)])).json() == []
    engine.close()


def test_points_without_labels_and_too_many_points_are_refused(knowing) -> None:
    _, client = knowing
    body = {"type": "vit_b", "b64img": base64_of(painted(disc(200, 100, 100, 60)))}
    reply = client.post("/sam/", json=body | {"point_coords": [[1, 2]], "point_labels": []})
    assert reply.status_code == 400
    assert "one label for each point" in reply.json()["detail"]
    many = {"point_coords": [[i, i] for i in range(150)], "point_labels": [1] * 150}
    reply = client.post("/sam/", json=body | many)
    assert reply.status_code == 400
    assert "at most 100" in reply.json()["detail"]
    # Points outside do not count: QuPath sends the background points of the whole slide.
    many = {"point_coords": [[100, 100]] + [[999, i] for i in range(500)]}
    reply = client.post("/sam/", json=body | many | {"point_labels": [1] + [0] * 500})
    assert len(reply.json()) == 1


# Weights, and what is not there.


@pytest.mark.parametrize("type_", TYPES)
def test_every_type_has_weights_and_they_answer(knowing, type_: str) -> None:
    _, client = knowing
    [weights] = client.get("/sam/weights/", params={"type": type_}).json()
    assert weights == {"type": type_, "name": "fake", "url": "histoclick://fake"}
    body = Viewport(painted(disc(200, 100, 100, 60)), 0, 0, 1).request([(100, 100)])
    body |= {"type": type_, "checkpoint_url": weights["url"]}
    [answer] = client.post("/sam/", json=body).json()
    assert answer["properties"]["sam_model"] == type_


def test_all_weights_at_once(knowing) -> None:
    _, client = knowing
    assert [each["type"] for each in client.get("/sam/weights/").json()] == list(TYPES)
    assert len(TYPES) == len(set(TYPES)) == 9


def test_registering_weights_downloads_nothing_and_says_what_to_do(knowing, monkeypatch) -> None:
    _, client = knowing

    def refuse(*_: object) -> None:
        raise AssertionError("something was to be downloaded")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    weights = {"type": "vit_b", "name": "mine", "url": "https://example.org/vit_b.pth"}
    reply = client.post("/sam/weights/", json=weights)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain")
    assert "histoclick serve --model" in reply.text
    assert client.get("/sam/progress/").json() == {"message": "Nothing to download", "percent": 100}
    assert client.get("/sam/weights/cancel/").status_code == 200
    assert client.get("/sam/version/").text.startswith("0.7.1")


@pytest.mark.parametrize("path", ["/sam/video/", "/sam/sam3video/", "/sam/upload/"])
def test_video_is_refused_with_a_sentence(knowing, path: str) -> None:
    _, client = knowing
    reply = client.post(path, json={"type": "sam2_l", "dirname": "../../etc"})
    assert reply.status_code == 501
    assert "not stacks or time series" in reply.json()["detail"]


def test_the_page_for_people(knowing) -> None:
    _, client = knowing
    for path in ("/sam/", "/sam"):
        page = client.get(path)
        assert page.status_code == 200
        assert "It works" in page.text
        assert "http://testserver/sam/" in page.text
        assert "http://testserver/t/TOKEN/sam/" in page.text
        assert "<script" not in page.text


def test_the_page_says_when_the_model_fails() -> None:
    def fail(_: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of <memory>")

    engine = engine_of(Knowing(fail), 448)
    page = client_of(samapi.router(engine)).get("/sam/")
    assert page.status_code == 503
    assert "out of &lt;memory&gt;" in page.text
    engine.close()


# SAM 3.


def test_concepts_by_rectangles_are_answered_and_by_text_refused(knowing) -> None:
    _model, client = knowing
    mask = disc(300, 60, 60, 30) | disc(300, 200, 200, 40)
    body = {
        "type": "sam3",
        "b64img": base64_of(painted(mask)),
        "text_prompt": "",
        "positive_bboxes": [[20, 20, 80, 80], [150, 150, 100, 100]],
        "negative_bboxes": [[280, 10, 10, 10]],
        "reset_prompts": True,
        "confidence_threshold": 0.4,
    }
    one, two = client.post("/sam/sam3/", json=body).json()
    assert (filled(one["geometry"], 300, 300) == disc(300, 60, 60, 30)).all()
    assert (filled(two["geometry"], 300, 300) == disc(300, 200, 200, 40)).all()
    refused = client.post("/sam/sam3/", json=body | {"text_prompt": "tumour"})
    assert refused.status_code == 501
    assert "no text" in refused.json()["detail"]


# Pictures of strangers.


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_grey_alpha_and_palettes(mode: str) -> None:
    file = io.BytesIO()
    Image.fromarray(painted(disc(120, 60, 60, 30))).convert(
        mode, palette=Image.Palette.ADAPTIVE
    ).save(file, "PNG")
    picture = Picture.of_bytes(file.getvalue())
    assert picture.pixels.shape == (120, 120, 3)
    assert picture.pixels.dtype == np.uint8
    assert len(np.unique(picture.pixels.reshape(-1, 3), axis=0)) == 2
    if mode in ("L", "LA", "1"):
        assert (picture.pixels == picture.pixels[..., :1]).all()


def bomb(width: int, height: int, extra: bytes = b"") -> bytes:
    """A PNG that says it is large; its pixels would be zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (bomb(50_000, 50_000), "too large"),
        (bomb(9_000, 9_000), "too large"),
        (bomb(2_000, 2_000), "cut off or damaged"),
        (bomb(0, 10), "neither PNG nor JPEG|damaged"),
        (b"GIF89a" + bytes(100), "neither PNG nor JPEG"),
        (b"", "neither PNG nor JPEG"),
        (b"\x89PNG\r\n\x1a\n", "damaged|neither"),
    ],
)
def test_bombs_and_broken_pictures_are_refused(knowing, data: bytes, sentence: str) -> None:
    _, client = knowing
    body = {"type": "vit_b", "b64img": base64.b64encode(data).decode()}
    body |= {"point_coords": [[5, 5]], "point_labels": [1]}
    reply = client.post("/sam/", json=body)
    assert reply.status_code == 400
    assert re.search(sentence, reply.json()["detail"])


def test_a_bomb_is_refused_in_little_memory() -> None:
    data = bomb(19_000, 19_000)
    tracemalloc.start()
    with pytest.raises(HistoclickError, match="too large"):
        Picture.of_bytes(data)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("text", ["%%%", "data:image/png;base64,AAAA", "AAA", "é"])
def test_malformed_base64_is_refused(knowing, text: str) -> None:
    _, client = knowing
    body = {"type": "vit_b", "b64img": text, "point_coords": [[5, 5]], "point_labels": [1]}
    reply = client.post("/sam/", json=body)
    assert reply.status_code == 400
    assert "base64" in reply.json()["detail"]


def test_deep_pictures_are_refused() -> None:
    deep = np.full((20, 20), 40_000, np.uint16)
    with pytest.raises(HistoclickError, match="8 bits"):
        Picture.of_bytes(png(deep))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 700), (700, 2)])
def test_tiny_pictures(width: int, height: int) -> None:
    engine = engine_of(Knowing(lambda picture: np.ones(picture.shape[:2], np.bool_)), 64)
    client = client_of(samapi.router(engine))
    picture = np.zeros((height, width, 3), np.uint8)
    body = {"type": "vit_b", "b64img": base64_of(picture)}
    body |= {"point_coords": [[0, 0]], "point_labels": [1]}
    [answer] = client.post("/sam/", json=body).json()
    assert filled(answer["geometry"], height, width).all()
    engine.close()


# Anything at all.

SMALL = base64_of(painted(disc(40, 20, 20, 10)))
numbers = st.one_of(
    st.integers(-60, 100), st.floats(-1e3, 1e3), st.sampled_from([10**400, 2**63, -1e308, 1e300])
)
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
pairs = st.lists(st.lists(numbers, min_size=2, max_size=2), max_size=6)
bodies = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES), "b64img": st.just(SMALL)},
    optional={
        "bbox": st.lists(numbers, min_size=4, max_size=4) | anything,
        "point_coords": pairs | anything,
        "point_labels": st.lists(st.integers(-1, 2), max_size=6) | anything,
        "multimask_output": st.booleans() | anything,
        "checkpoint_url": anything,
        "positive_bboxes": st.lists(st.lists(numbers, min_size=4, max_size=4), max_size=3)
        | anything,
        "negative_bboxes": anything,
        "text_prompt": anything,
        "points_per_side": st.integers(-1, 5) | anything,
        "crop_n_layers": st.integers(-1, 2) | anything,
        "crop_overlap_ratio": st.floats(0, 1) | anything,
        "crop_n_points_downscale_factor": st.integers(0, 3),
        "min_mask_region_area": st.integers(0, 500) | anything,
        "include_image_edge": st.booleans(),
    },
)


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[TestClient]:
    engine = engine_of(Knowing(seen), 24)
    yield client_of(samapi.router(engine))
    engine.close()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(["/sam/", "/sam/automask/", "/sam/sam3/"]), body=bodies)
def test_no_body_breaks_it(fuzzed: TestClient, path: str, body: dict) -> None:
    reply = fuzzed.post(
        path, content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert reply.status_code in (200, 400, 422, 501)
    if reply.status_code == 200:
        for answer in reply.json():
            assert shape(answer["geometry"]).is_valid
            assert math.isfinite(answer["properties"]["quality"])
    else:
        assert isinstance(reply.json()["detail"], str)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=80) | anything.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_break_it(fuzzed: TestClient, content: bytes) -> None:
    reply = fuzzed.post("/sam/", content=content, headers={"content-type": "application/json"})
    assert 400 <= reply.status_code < 500


# All objects of a picture.


def automask(model: Knowing, mask: np.ndarray, **wish: object):
    engine = engine_of(model, 448)
    client = client_of(samapi.router(engine))
    body = {"type": "vit_b", "b64img": base64_of(painted(mask)), **wish}
    reply = client.post("/sam/automask/", json=body)
    engine.close()
    assert reply.status_code == 200, reply.json()
    return reply


class Separate(Knowing):
    """Answers with the one part that was clicked on, and is surer of larger ones."""

    def predict(self, encoded, prompt, previous=None):
        _, parts = cv2.connectedComponents(encoded.astype(np.uint8))
        click = prompt.clicks[-1]
        part = parts[round(click.y), round(click.x)]
        mask = (parts == part) if part else np.zeros_like(encoded)
        prediction = super().predict(mask, prompt, previous)
        object.__setattr__(prediction, "quality", 0.9 + 0.09 * mask.mean())
        return prediction


def test_automask_finds_every_object_once_with_its_own_quality() -> None:
    discs = [disc(256, 60, 60, 40), disc(256, 180, 70, 30), disc(256, 120, 190, 35)]
    mask = np.any(discs, axis=0)
    reply = automask(Separate(seen), mask, points_per_side=16)
    answers = reply.json()
    assert len(answers) == 3
    found = [filled(answer["geometry"], 256, 256) for answer in answers]
    for one in discs:
        assert any((one == other).all() for other in found)
    for answer, other in zip(answers, found, strict=True):
        assert answer["properties"]["quality"] == round(0.9 + 0.09 * other.mean(), 4)
    qualities = [answer["properties"]["quality"] for answer in answers]
    assert qualities == sorted(qualities, reverse=True)
    assert json.loads(unquote(reply.headers["X-Notes"])) == []


def test_automask_drops_the_unsure_the_unsteady_and_the_edge() -> None:
    mask = disc(256, 60, 60, 40)
    assert len(automask(Separate(seen), mask, pred_iou_thresh=0.95).json()) == 0
    assert len(automask(Separate(seen, confidence=0.5), mask).json()) == 0
    assert (
        len(automask(Separate(seen, confidence=0.5), mask, stability_score_offset=0.2).json()) == 1
    )
    edge = disc(256, 10, 60, 40)
    assert len(automask(Separate(seen), edge).json()) == 0
    assert len(automask(Separate(seen), edge, include_image_edge=True).json()) == 1


def test_automask_cleans_masks() -> None:
    mask = disc(256, 100, 100, 60) & ~disc(256, 100, 100, 3)
    [kept] = automask(Separate(seen), mask).json()
    [cleaned] = automask(Separate(seen), mask, min_mask_region_area=100).json()
    assert len(kept["geometry"]["coordinates"]) == 2
    assert (filled(cleaned["geometry"], 256, 256) == disc(256, 100, 100, 60)).all()


def test_automask_in_crops_finds_what_a_coarse_grid_misses() -> None:
    mask = disc(256, 96, 96, 8)
    assert len(automask(Separate(seen), mask, points_per_side=2).json()) == 0
    wish = {"points_per_side": 8, "crop_n_layers": 1, "crop_overlap_ratio": 0.3}
    [answer] = automask(Separate(seen), mask, **wish).json()
    assert (filled(answer["geometry"], 256, 256) == mask).all()


def test_automask_says_what_it_left_out(monkeypatch) -> None:
    monkeypatch.setattr(samapi.automask.objects, "__defaults__", (0.0,))
    reply = automask(Separate(seen), disc(256, 60, 60, 40), points_per_side=8)
    assert reply.json() == []
    [note] = json.loads(unquote(reply.headers["X-Notes"]))
    assert note.startswith("64 points")


def test_the_slash_at_the_end_and_the_type_may_be_missing(knowing) -> None:
    _, client = knowing
    for path in ("/sam/version", "/sam/weights", "/sam/progress", "/sam/weights/cancel"):
        reply = client.get(path, follow_redirects=False)
        assert reply.status_code == 200
        assert reply.content == client.get(f"{path}/").content
    assert len(client.get("/sam/weights/?type=").json()) == len(TYPES)


def test_of_too_many_background_points_the_nearest_stay(knowing) -> None:
    model, client = knowing
    view = Viewport(painted(disc(400, 60, 60, 30)), 0, 0, 1)
    away = [(395 - i, 200) for i in range(150)] + [(100, 60), (60, 100)]
    [answer] = client.post("/sam/", json=view.request([(60, 60)], away)).json()
    told = [(c.x, c.y) for c in model.prompts[-1][0].clicks if not c.positive]
    assert len(told) == 20
    assert {(100, 60), (60, 100)} <= set(told)
    assert max(x for x, _ in told) < 290
    assert answer["properties"]["metadata"]["note"].startswith("132 background points")


def test_visits_of_the_page_share_a_trial(knowing, monkeypatch) -> None:
    model, client = knowing
    first = client.get("/sam/")
    asked = len(model.prompts)
    assert asked
    assert client.get("/sam/").text == first.text
    assert len(model.prompts) == asked
    monkeypatch.setattr(selftest, "KEPT_SECONDS", 0.0)
    trials = selftest.Trials(engine_of(model, 448))
    assert trials.last() is not trials.last()
    trials.engine.close()
