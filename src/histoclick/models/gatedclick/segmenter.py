"""The gated family behind the ``Segmenter`` protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from histoclick.geometry import Frame, fit, up_to_multiple
from histoclick.models.card import Card, check_architecture
from histoclick.models.device import finish
from histoclick.models.gatedclick.decoders import Pyramid
from histoclick.models.gatedclick.graphs import graphs_of, rules_of
from histoclick.models.gatedclick.network import LIKENESS, MULTIPLE, SURE, GatedClickNet
from histoclick.models.gatedclick.parts import ARCHITECTURES
from histoclick.models.graphs import Graphs
from histoclick.models.nets.modelinput import alike, click_tensor, mirrored
from histoclick.models.prompts import check_image, check_prompt
from histoclick.models.weights import check_keys, read_state_dict, shapes
from histoclick.types import RGB8, Click, HistoclickError, Logits, Prediction, Prompt


@dataclass(frozen=True, slots=True)
class GatedClickEncoded:
    """``shape``: of the image. ``resized``: height and width of its part of the model's input,
    whose rest is padding. ``frame``: the model's input on the image."""

    pyramid: Pyramid
    shape: tuple[int, int]
    resized: tuple[int, int]
    frame: Frame


class GatedClickSegmenter:
    """Resizes the longer side to ``input_size`` px and pads by reflection to multiples of 32.

    ``Prediction.memory`` is the logit map (h, w) float32 of the padded input.
    """

    def __init__(self, net: GatedClickNet, input_size: int, device: str = "cpu") -> None:
        # Channels last is what the convolutions of this network are fastest in, on CPU and GPU.
        self._net = net.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._parts = net.parts
        self._rules = rules_of(net.parts)
        self._input_size = input_size
        self._device = device

    def encode(self, image: RGB8) -> GatedClickEncoded:
        """Run the trunk. ``image``: (H, W, 3) uint8 RGB."""
        return self.encode_batch([image])[0]

    @torch.inference_mode()
    def encode_batch(self, images: Sequence[RGB8]) -> list[GatedClickEncoded]:
        """``encode`` of every image; those of one padded size pass through the trunk together."""
        padded, encoded = [], {}
        for image in images:
            check_image(image)
            padded.append(mirrored(image, self._input_size, MULTIPLE))
        for members in alike([picture.shape for picture in padded]):
            batch = torch.from_numpy(np.stack([padded[i] for i in members])).to(self._device)
            batch = (batch.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(
                memory_format=torch.channels_last
            )
            maps = [part.split(1) for part in self._net.encode(batch)]
            for i, *parts in zip(members, *maps, strict=True):
                height, width = images[i].shape[:2]
                resized = fit(height, width, self._input_size)
                frame = Frame.resized(height, width, *resized)
                encoded[i] = GatedClickEncoded(Pyramid(*parts), (height, width), resized, frame)
        finish(self._device)
        return [encoded[i] for i in range(len(images))]

    def pack(self, encoded: GatedClickEncoded) -> dict[str, NDArray[np.generic]]:
        """An embedding as arrays, for a disk."""
        maps = {name: part.cpu().numpy() for name, part in encoded.pyramid._asdict().items()}
        return {**maps, "shape": np.array(encoded.shape)}

    def unpack(self, arrays: Mapping[str, NDArray[np.generic]]) -> GatedClickEncoded:
        """What ``pack`` was given. Raises ``KeyError`` or ``ValueError`` for other arrays."""
        height, width = (int(side) for side in arrays["shape"])
        resized = fit(height, width, self._input_size)
        sides = [up_to_multiple(side, MULTIPLE) for side in resized]
        channels = (*self._parts.widths, LIKENESS, 3)
        parts = []
        for name, count, stride in zip(Pyramid._fields, channels, (2, 4, 8, 16, 8, 1), strict=True):
            part = torch.from_numpy(np.array(arrays[name], np.float32))
            if part.shape != (1, count, sides[0] // stride, sides[1] // stride):
                raise ValueError(f"{name} of an embedding has shape {tuple(part.shape)}")
            parts.append(part.to(self._device, memory_format=torch.channels_last))
        frame = Frame.resized(height, width, *resized)
        return GatedClickEncoded(Pyramid(*parts), (height, width), resized, frame)

    def predict(
        self, encoded: GatedClickEncoded, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        """The mask after ``prompt``. Raises ``ValueError`` for a prompt without clicks, with a box
        (this family has no boxes), or with a click outside the image."""
        return self.predict_batch([encoded], [prompt], [previous])[0]

    @torch.inference_mode()
    def predict_batch(
        self,
        encoded: Sequence[GatedClickEncoded],
        prompts: Sequence[Prompt],
        previous: Sequence[Prediction | None],
    ) -> list[Prediction]:
        """``predict`` of every user; those on images of one padded size are decoded together."""
        answers = {}
        for each, prompt in zip(encoded, prompts, strict=True):
            check_prompt(prompt, each.shape, boxes=False)
        inner = [
            tuple(map(each.frame.from_parent, prompt.clicks))
            for each, prompt in zip(encoded, prompts, strict=True)
        ]
        for members in alike([tuple(each.pyramid.s2.shape) for each in encoded]):
            pyramid = Pyramid(
                *map(torch.cat, zip(*(encoded[i].pyramid for i in members), strict=True))
            )
            clicks = click_tensor([inner[i] for i in members], self._device)
            before = [self._before(encoded[i], previous[i]) for i in members]
            begun = torch.tensor([float(previous[i] is not None) for i in members])
            decoded = self._net.decode(
                pyramid,
                clicks,
                torch.from_numpy(np.stack(before)[:, None]).to(self._device),
                begun.to(self._device),
            )
            whole = decoded.logits[:, 0].float().cpu().numpy()
            qualities = decoded.quality.tolist()
            for now, old, quality, i in zip(whole, before, qualities, members, strict=True):
                answers[i] = self._answer(
                    encoded[i], prompts[i], inner[i], now, None if previous[i] is None else old,
                    quality,
                )  # fmt: skip
        return [answers[i] for i in range(len(encoded))]

    def _answer(
        self,
        encoded: GatedClickEncoded,
        prompt: Prompt,
        inner: Sequence[Click],
        logits: Logits,
        before: Logits | None,
        quality: float,
    ) -> Prediction:
        """``inner``: the clicks in the frame of ``logits`` and ``before``, the padded input."""
        settled = self._rules.settle(logits, before, inner)
        shown = self._rules.show(settled, encoded.resized, encoded.shape, prompt.clicks)
        return Prediction(shown, settled, quality)

    def _before(self, encoded: GatedClickEncoded, previous: Prediction | None) -> Logits:
        """Logits of the mask so far, (h, w) of the padded input; the padding is not the object."""
        height, width = encoded.pyramid.image.shape[2:]
        if previous is None:
            return np.zeros((height, width), np.float32)
        if previous.memory is not None:
            return np.asarray(previous.memory, np.float32)
        rows, columns = encoded.resized
        sure = np.where(previous.mask, np.float32(SURE), np.float32(-SURE))
        logits = np.full((height, width), -SURE, np.float32)
        logits[:rows, :columns] = cv2.resize(sure, (columns, rows), interpolation=cv2.INTER_AREA)
        return logits


def build(card: Card, folder: Path) -> GatedClickNet:
    """The network of a model folder, every key of its weights checked."""
    check_architecture(card.architecture, ARCHITECTURES, str(folder))
    if card.input_size < MULTIPLE:
        raise HistoclickError(
            f"{folder}: input_size is {card.input_size}; it must be {MULTIPLE} up"
        )
    net = GatedClickNet(ARCHITECTURES[card.architecture], norm=False)
    file = folder / "weights.safetensors"
    state = {key: value.float() for key, value in read_state_dict(file).items()}
    check_keys(shapes(state), shapes(net.state_dict()), str(file))
    net.load_state_dict(state)
    return net


def load(card: Card, folder: Path, device: str) -> GatedClickSegmenter:
    """Build the network of a model folder and fill it, every key checked."""
    return GatedClickSegmenter(build(card, folder), card.input_size, device)


def graphs(card: Card, folder: Path) -> Graphs:
    """The networks of a model folder, for an export."""
    return graphs_of(build(card, folder))
