"""Routes of what a browser needs to answer clicks itself: the graph of the decoder, and embeddings.

The model's hash is in the address of an embedding, and in the embedding, so that a decoder never
runs on what the encoder of another model saw. What a browser shows is a preview: the answer to the
click is the server's.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Response
from fastapi import Path as InPath
from numpy.typing import NDArray
from safetensors.numpy import save

import histoclick
from histoclick.geometry import fit, up_to_multiple
from histoclick.models.card import Card
from histoclick.models.compliance import Rules
from histoclick.models.onnx.segmenter import DECODER, Layout
from histoclick.models.onnx.segmenter import facts as graph_facts
from histoclick.server.engine import Engine
from histoclick.server.library import Library
from histoclick.server.sight import Sight
from histoclick.server.threads import Staff
from histoclick.server.viewing import ERRORS, Answers, SlideId
from histoclick.server.wire import DecoderInfo, Mpp, Trouble
from histoclick.session import Grid, Window
from histoclick.types import HistoclickError

FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # what is named by its hash
NONE = (
    "this model has no decoder for browsers; serve one that was exported: histoclick models export"
)
Hash = Annotated[str, InPath(pattern=r"^[0-9a-f]{64}$", description="SHA-256, hexadecimal.")]
Corner = Annotated[int, Query(ge=0, le=2**31, description="Of a window, px at mpp.")]


@dataclass(frozen=True)
class Decoder:
    """What a model hands out. ``model``: the SHA-256 of all that its embeddings and answers depend
    on. ``graph``: the bytes of its decoder, whose SHA-256 is ``sha256``."""

    model: str
    graph: bytes
    sha256: str
    layout: Layout
    rules: Rules
    input_size: int

    def frame(self, height: int, width: int) -> dict[str, list[int]]:
        """How a window of (``height``, ``width``) px lies in the model's input: as sides of the
        window, of its part of the input, and of the input."""
        resized = fit(height, width, self.input_size)
        padded = [up_to_multiple(side, self.layout.multiple) for side in resized]
        return {"shape": [height, width], "resized": [*resized], "padded": padded}


def decoder_of(card: Card, folder: Path) -> Decoder | None:
    """The decoder of an exported model; ``None`` for other models, and for one with a rule that the
    page does not know. Raises ``HistoclickError`` for a folder that is damaged."""
    if card.family != "onnx":
        return None
    layout, rules = graph_facts(card, folder)
    if rules.merge:
        return None
    graph = (folder / DECODER).read_bytes()
    sha256 = card.graphs["sha256"][DECODER]
    if hashlib.sha256(graph).hexdigest() != sha256:
        raise HistoclickError(f"{folder / DECODER}: changed while it was loaded; start again")
    # The hashes of both graphs, checked when it was loaded, and what is done around them.
    facts = [histoclick.__version__, card.input_size, card.graphs]
    model = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return Decoder(model, graph, sha256, layout, rules, card.input_size)


def router(library: Library, engine: Engine, staff: Staff, decoder: Decoder | None) -> APIRouter:
    """``decoder``: of the engine's model, if it has one for browsers."""
    stale: Answers = {409: {"model": Trouble, "description": "Of another model"}}
    routes = APIRouter(tags=["decoder"], responses=ERRORS | stale)
    binary: Answers = {200: {"content": {"application/octet-stream": {}}, "description": "A file"}}

    @routes.get("/decoder")
    async def description() -> DecoderInfo:
        """What a browser has to know of the model's decoder."""
        if decoder is None:
            raise HTTPException(404, NONE)
        rules = asdict(decoder.rules)
        return DecoderInfo(
            model=decoder.model,
            name=engine.model,
            sha256=decoder.sha256,
            window_px=engine.window_px,
            stride=decoder.layout.stride,
            maps=[*decoder.layout.maps],
            comply=rules["comply"],
            bump_px=rules["bump_px"],
            lower=rules["lower"],
            sure=None if math.isinf(rules["sure"]) else rules["sure"],
        )

    @routes.get("/decoder/{sha256}", response_class=Response, responses=binary)
    async def graph(sha256: Hash) -> Response:
        """The decoder with this SHA-256, as an ONNX graph."""
        if decoder is None or sha256 != decoder.sha256:
            raise HTTPException(404, NONE if decoder is None else "the decoder is another one now")
        return Response(decoder.graph, media_type="application/octet-stream", headers=FOR_EVER)

    @routes.get("/slides/{id}/embeddings/{model}", response_class=Response, responses=binary)
    async def embedding(
        slide_id: SlideId, model: Hash, mpp: Annotated[Mpp, Query()], x: Corner, y: Corner
    ) -> Response:
        """What a model, named by its SHA-256, saw in a window: a safetensors file of the inputs of
        its decoder, float16 where that is enough, with the window's frame in ``__metadata__``."""
        if decoder is None or model != decoder.model:
            raise HTTPException(409, "the server runs another model; ask for its decoder")

        def work() -> bytes:
            sight = Sight(engine, library, library.entry(slide_id))
            with library.open(slide_id) as slide:
                grid = Grid.of(slide, max(mpp, slide.mpp or 1.0))
            window = _window(grid, x, y, sight.window_px)
            seen = engine.pack(sight.encode(grid.rect0(window), window.width, window.height))
            frame = decoder.frame(window.height, window.width)
            return packed({name: seen[name] for name in decoder.layout.maps}, model, frame)

        content = await staff.work.run(work)
        return Response(content, media_type="application/octet-stream", headers=FOR_EVER)

    return routes


def packed(
    maps: Mapping[str, NDArray[np.generic]], model: str, frame: Mapping[str, list[int]]
) -> bytes:
    """A safetensors file. ``maps``: float32, told as float16 unless that is too small for them."""
    tensors = {}
    for name, values in maps.items():
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        tensors[name] = np.ascontiguousarray(half if np.isfinite(half).all() else values)
    return save(tensors, {"model": model, "frame": json.dumps(frame)})


def _window(grid: Grid, x: int, y: int, side: int) -> Window:
    """The window of the lattice with this corner: no others, or one could have anything encoded."""
    near = grid.ahead(grid.rect0(Window(x, y, side, side)), side)
    found = next((each for each in near if (each.x, each.y) == (x, y)), None)
    if found is None:
        raise HTTPException(404, "the model looks at no window there")
    return found
