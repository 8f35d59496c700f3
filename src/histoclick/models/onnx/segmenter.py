"""Exported models behind the ``Segmenter`` protocol. Never imports torch.

``encoder.onnx``: ``picture`` (1, H, W, 3) uint8, sides multiples of ``multiple`` -> float32 maps.
``decoder.onnx``: the maps; ``clicks`` (1, N, 3) float32 of x, y and sign (1 positive, -1 negative)
in px of that picture, oldest first; ``before`` (1, 1, H / stride, W / stride) float32, the last
answer; ``begun`` (1,) float32, what that is: 0 nothing, 1 logits, 2 a mask in 0..1 -> ``logits`` of
the shape of ``before``, and (1,) ``quality`` of models that tell it. What is done to the logits
then is in the card (``models.compliance``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histoclick.geometry import Frame, fit, up_to_multiple
from histoclick.models.card import Card
from histoclick.models.compliance import Rules, logit
from histoclick.models.nets.modelinput import click_array, mirrored
from histoclick.models.prompts import check_image, check_previous, check_prompt
from histoclick.types import RGB8, HistoclickError, Logits, Prediction, Prompt

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
NOTHING, LOGITS, MASK = 0, 1, 2  # what ``before`` is

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """Of the graphs: ``maps`` and their strides in order, ``stride`` of the logits, ``multiple`` of
    the input's sides."""

    maps: dict[str, int]
    stride: int
    multiple: int


@dataclass(frozen=True, slots=True)
class OnnxEncoded:
    """``maps``: by name. ``shape``: of the image. ``resized``: height and width of its part of the
    model's input, whose rest is padding. ``frame``: the model's input on the image."""

    maps: dict[str, Floats]
    shape: tuple[int, int]
    resized: tuple[int, int]
    frame: Frame


class OnnxSegmenter:
    """Resizes the longer side to ``input_size`` px and pads by reflection.

    ``encoder``, ``decoder``: sessions of onnxruntime. ``threads``: theirs, for who asks.
    ``Prediction.memory`` is the logit map (h, w) float32 of the padded input, at ``layout.stride``.
    """

    def __init__(
        self, encoder: Any, decoder: Any, layout: Layout, rules: Rules, input_size: int,
        threads: int,
    ) -> None:  # fmt: skip
        self.threads = threads
        self._encoder = encoder
        self._decoder = decoder
        self._layout = layout
        self._rules = rules
        self._input_size = input_size

    def encode(self, image: RGB8) -> OnnxEncoded:
        """Run the trunk. ``image``: (H, W, 3) uint8 RGB."""
        check_image(image)
        picture = mirrored(image, self._input_size, self._layout.multiple)
        maps = self._encoder.run([*self._layout.maps], {"picture": picture[None]})
        return self._encoded(dict(zip(self._layout.maps, maps, strict=True)), *image.shape[:2])

    def pack(self, encoded: OnnxEncoded) -> dict[str, NDArray[np.generic]]:
        """An embedding as arrays, for a disk."""
        return {**encoded.maps, "shape": np.array(encoded.shape)}

    def unpack(self, arrays: Mapping[str, NDArray[np.generic]]) -> OnnxEncoded:
        """What ``pack`` was given. Raises ``KeyError`` or ``ValueError`` for other arrays."""
        height, width = (int(side) for side in arrays["shape"])
        rows, columns = self._padded(fit(height, width, self._input_size))
        inputs = {each.name: each.shape for each in self._decoder.get_inputs()}
        maps = {}
        for name, stride in self._layout.maps.items():
            maps[name] = np.array(arrays[name], np.float32)
            if maps[name].shape != (1, inputs[name][1], rows // stride, columns // stride):
                raise ValueError(f"{name} of an embedding has shape {maps[name].shape}")
        return self._encoded(maps, height, width)

    def predict(
        self, encoded: OnnxEncoded, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        """The mask after ``prompt``. Raises ``ValueError`` for a prompt without clicks, with a box
        (these models have no boxes), or with a click outside the image."""
        check_prompt(prompt, encoded.shape, boxes=False)
        inner = tuple(map(encoded.frame.from_parent, prompt.clicks))
        before, kind = self._before(encoded, previous)
        logits, *quality = self._decoder.run(
            None,
            {
                **encoded.maps,
                "clicks": click_array([inner]),
                "before": before[None, None],
                "begun": np.array([kind], np.float32),
            },
        )
        settled = self._rules.settle(logits[0, 0], self._old(before, kind), inner)
        stride = self._layout.stride
        full = settled
        if stride > 1:
            size = settled.shape[1] * stride, settled.shape[0] * stride
            full = np.asarray(cv2.resize(settled, size, interpolation=cv2.INTER_LINEAR), np.float32)
        shown = self._rules.show(full, encoded.resized, encoded.shape, prompt.clicks)
        return Prediction(shown, settled, float(quality[0][0]) if quality else None)

    def _old(self, before: Floats, kind: int) -> Logits | None:
        """``before`` as logits, for rules that ask for it."""
        if kind == NOTHING or not (self._rules.merge or self._rules.lower):
            return None
        if kind == LOGITS:
            return before
        if math.isfinite(self._rules.sure):
            return np.float32(self._rules.sure) * (2 * before - 1)  # as the network itself has it
        return logit(before)

    def _padded(self, resized: tuple[int, int]) -> tuple[int, int]:
        rows, columns = (up_to_multiple(side, self._layout.multiple) for side in resized)
        return rows, columns

    def _encoded(self, maps: dict[str, Floats], height: int, width: int) -> OnnxEncoded:
        resized = fit(height, width, self._input_size)
        frame = Frame.resized(height, width, *resized)
        return OnnxEncoded(maps, (height, width), resized, frame)

    def _before(self, encoded: OnnxEncoded, previous: Prediction | None) -> tuple[Logits, int]:
        """The last answer at the stride of the logits, and what it is."""
        stride = self._layout.stride
        height, width = (side // stride for side in self._padded(encoded.resized))
        if previous is None:
            return np.zeros((height, width), np.float32), NOTHING
        if previous.memory is not None:
            return np.asarray(previous.memory, np.float32), LOGITS
        check_previous(previous, encoded.shape)
        rows, columns = encoded.resized
        padded = np.zeros((height * stride, width * stride), np.float32)
        padded[:rows, :columns] = cv2.resize(
            previous.mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA
        )
        return padded.reshape(height, stride, width, stride).mean((1, 3)), MASK


def load(card: Card, folder: Path, device: str, threads: int = 0) -> OnnxSegmenter:
    """The segmenter of an exported model. ``threads``: of the processor; 0: as many as it has.

    Raises ``HistoclickError`` for another device than the processor, and for damaged graphs.
    """
    if device != "cpu":
        raise HistoclickError(f"{folder}: exported models run on the processor; give --device cpu")
    if card.input_size < 1:
        raise HistoclickError(f"{folder}: input_size is {card.input_size}; it must be 1 up")
    layout, rules = facts(card, folder)
    threads = threads or os.cpu_count() or 1
    encoder, decoder = (session(folder / name, threads) for name in (ENCODER, DECODER))
    wanted = {*layout.maps, "clicks", "before", "begun"}
    if [each.name for each in encoder.get_outputs()] != [*layout.maps] or {
        each.name for each in decoder.get_inputs()
    } != wanted:
        raise HistoclickError(f"{folder}: its graphs are not those of its card; export it again")
    return OnnxSegmenter(encoder, decoder, layout, rules, card.input_size, threads)


def facts(card: Card, folder: Path) -> tuple[Layout, Rules]:
    """What the card says of the graphs. Raises ``HistoclickError`` if that is not enough."""
    try:
        if card.graphs["sha256"].keys() != {ENCODER, DECODER}:
            raise ValueError("sha256 must name the two graphs")
        layout = Layout(dict(card.graphs["maps"]), card.graphs["stride"], card.graphs["multiple"])
        strides = (layout.stride, *layout.maps.values())
        if not all(isinstance(each, int) and each > 0 for each in (layout.multiple, *strides)):
            raise ValueError("strides and multiple must be whole numbers")
        if any(layout.multiple % stride for stride in strides):
            raise ValueError("strides must divide the multiple")
        return layout, Rules(**card.graphs["rules"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HistoclickError(
            f"{folder / 'card.toml'}: [graphs] is not what an export writes ({error}); export the "
            "model again"
        ) from None


def session(path: Path, threads: int) -> Any:
    """A graph, ready to run. Raises ``HistoclickError`` for a damaged one."""
    try:
        import onnxruntime
    except ImportError:
        raise HistoclickError(
            f"{path}: running it takes onnxruntime; pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:  # its exceptions have no common ancestor but Exception
        # From bytes, so that a graph cannot name other files.
        return onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HistoclickError(
            f"{path} is damaged or no graph that onnxruntime knows ({reason}); export it again"
        ) from error
