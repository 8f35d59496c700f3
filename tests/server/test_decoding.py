"""What browsers are handed out: by hash, so that nothing of two models meets."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load

from histoclick.geometry import Rect
from histoclick.models.card import Card
from histoclick.server.decoding import Decoder, _window, decoder_of, packed
from histoclick.session import Grid
from histoclick.slides import open_slide
from histoclick.types import RGB8, HistoclickError, Prediction, Prompt
from served import Server, serving

GRAPH = b"a decoder"
OTHER = "cd" * 32


class Packing:
    """Its embedding is one map: the red of the picture at stride 2."""

    def encode(self, image: RGB8) -> RGB8:
        return image

    def predict(
        self, encoded: RGB8, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        return Prediction(np.ones(encoded.shape[:2], np.float32))

    def pack(self, encoded: RGB8) -> dict[str, NDArray[np.generic]]:
        red = encoded[::2, ::2, 0].astype(np.float32)
        return {"s2": red[None, None], "shape": np.array(encoded.shape[:2])}

    def unpack(self, arrays: dict[str, NDArray[np.generic]]) -> Any:
        raise KeyError


def model_folder(folder: Path, **rules: Any) -> Card:
    """As an export writes it, but for the graphs themselves."""
    folder.mkdir()
    (folder / "decoder.onnx").write_bytes(GRAPH)
    hashes = {"encoder.onnx": OTHER, "decoder.onnx": hashlib.sha256(GRAPH).hexdigest()}
    graphs = {"stride": 2, "multiple": 32, "maps": {"s2": 2}, "rules": rules, "sha256": hashes}
    return Card("light", "onnx", "any", "", "", "", sha256="ab" * 32, input_size=448, graphs=graphs)


@pytest.fixture
def decoder(tmp_path: Path) -> Decoder:
    card = model_folder(tmp_path / "light", comply=True, sure=4.0)
    found = decoder_of(card, tmp_path / "light")
    assert found is not None
    return found


@pytest.fixture
def light(slides: Path, tmp_path: Path, decoder: Decoder) -> Iterator[Server]:
    store = tmp_path / "store.sqlite"
    with serving([slides], store, Packing(), decoder=decoder) as made:
        yield made


def test_models_that_differ_in_anything_have_other_names(tmp_path: Path, decoder: Decoder) -> None:
    card = model_folder(tmp_path / "again", comply=True, sure=4.0)
    graphs = card.graphs
    others = [
        dataclasses.replace(card, input_size=512),
        dataclasses.replace(card, graphs={**graphs, "rules": {"comply": True}}),
        dataclasses.replace(
            card, graphs={**graphs, "sha256": {**graphs["sha256"], "encoder.onnx": "ef" * 32}}
        ),
    ]
    found = [decoder_of(each, tmp_path / "again") for each in others]
    assert len({decoder.model, *(each.model for each in found if each is not None)}) == 4
    same = decoder_of(dataclasses.replace(card, summary="x"), tmp_path / "again")
    assert same == decoder


def test_the_decoder_is_named_by_its_hash(light: Server, decoder: Decoder) -> None:
    assert light.client.get("/api/info").json()["model"]["decoder"] == decoder.model
    told = light.client.get("/api/decoder").json()
    assert (told["model"], told["sha256"]) == (decoder.model, hashlib.sha256(GRAPH).hexdigest())
    assert (told["maps"], told["stride"], told["comply"], told["sure"]) == (["s2"], 2, True, 4.0)
    assert told["name"] == light.engine.model
    graph = light.client.get(f"/api/decoder/{told['sha256']}")
    assert graph.content == GRAPH
    assert "immutable" in graph.headers["cache-control"]
    assert light.client.get(f"/api/decoder/{OTHER}").status_code == 404


def test_embeddings_are_those_of_the_window(light: Server, decoder: Decoder, slides: Path) -> None:
    slide = light.id_of("a.tif")  # 1300 x 900 px of 0.5 um
    side = light.engine.window_px
    address = f"/api/slides/{slide}/embeddings/{decoder.model}"
    reply = light.client.get(address, params={"mpp": 0.5, "x": 224, "y": 900 - side})
    assert reply.status_code == 200, reply.text
    assert "immutable" in reply.headers["cache-control"]
    red = load(reply.content)["s2"]
    assert red.dtype == np.float16
    with open_slide(slides / "a.tif") as opened:
        picture = opened.read(Rect(224, 900 - side, side, side), side, side)
    np.testing.assert_array_equal(red[0, 0], picture[::2, ::2, 0])
    metadata = json.loads(reply.content[8 : 8 + int.from_bytes(reply.content[:8], "little")])
    assert metadata["__metadata__"]["model"] == decoder.model
    frame = json.loads(metadata["__metadata__"]["frame"])
    assert frame == {"shape": [side, side], "resized": [448, 448], "padded": [448, 448]}


@pytest.mark.parametrize(
    ("model", "query", "status"),
    [
        (OTHER, {"mpp": 0.5, "x": 0, "y": 0}, 409),
        (None, {"mpp": 0.5, "x": 1, "y": 0}, 404),  # off the lattice
        (None, {"mpp": 0.5, "x": 224000, "y": 0}, 404),
        (None, {"mpp": 0.5, "x": -1, "y": 0}, 422),
        (None, {"mpp": 0, "x": 0, "y": 0}, 422),
        ("x", {"mpp": 0.5, "x": 0, "y": 0}, 422),
    ],
)
def test_what_there_is_not(
    light: Server, decoder: Decoder, model: str | None, query: dict[str, float], status: int
) -> None:
    slide = light.id_of("a.tif")
    address = f"/api/slides/{slide}/embeddings/{model or decoder.model}"
    reply = light.client.get(address, params=query)
    assert reply.status_code == status, reply.text
    assert reply.json()["detail"]


def test_every_window_of_a_first_click_can_be_had(slides: Path) -> None:
    with open_slide(slides / "a.tif") as slide:
        for mpp in (0.5, 0.7, 1.0):
            grid = Grid.of(slide, mpp)
            for x in range(0, grid.width, 37):
                for y in range(0, grid.height, 41):
                    window = grid.nearest(x, y, 448)
                    assert _window(grid, window.x, window.y, 448) == window


def test_a_window_that_is_not_square_is_framed(decoder: Decoder) -> None:
    frame = decoder.frame(224, 560)
    assert frame == {"shape": [224, 560], "resized": [179, 448], "padded": [192, 448]}


def test_what_float16_cannot_hold_stays_float32() -> None:
    maps = {"a": np.float32([1e5, 1.0]), "b": np.float32([1.0])}
    found = load(packed(maps, OTHER, {}))
    assert (found["a"].dtype, found["b"].dtype) == (np.float32, np.float16)
    assert found["a"][0] == np.float32(1e5)


def test_the_answer_to_a_click_names_the_model(light: Server) -> None:
    slide = light.id_of("a.tif")
    done = light.click(slide, 600, 400)
    assert done["model"] == light.engine.model
    (item,) = done["objects"]
    assert light.act(slide, kind="name", object=item["id"], name="x")["model"] is None


def test_other_models_have_no_decoder(standing: Server, tmp_path: Path) -> None:
    assert standing.client.get("/api/info").json()["model"]["decoder"] is None
    assert standing.client.get("/api/decoder").status_code == 404
    slide = standing.id_of("a.tif")
    address = f"/api/slides/{slide}/embeddings/{OTHER}?mpp=0.5&x=0&y=0"
    assert standing.client.get(address).status_code == 409
    card = model_folder(tmp_path / "merging", merge=True)  # a rule that the page does not know
    assert decoder_of(card, tmp_path / "merging") is None
    assert decoder_of(dataclasses.replace(card, family="sam"), tmp_path / "merging") is None


def test_a_decoder_that_changed_is_refused(tmp_path: Path) -> None:
    card = model_folder(tmp_path / "light")
    (tmp_path / "light" / "decoder.onnx").write_bytes(b"another")
    with pytest.raises(HistoclickError, match=r"decoder\.onnx: changed while it was loaded"):
        decoder_of(card, tmp_path / "light")
