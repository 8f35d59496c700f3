"""The built-in family behind the ``Segmenter`` protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from histoclick.geometry import Frame, fit, up_to_multiple
from histoclick.models.card import Card
from histoclick.models.denseclick.graphs import graphs_of
from histoclick.models.denseclick.network import (
    LIKENESS,
    MULTIPLE,
    WIDTHS,
    DenseClickNet,
    Pyramid,
    lowered,
)
from histoclick.models.device import finish
from histoclick.models.graphs import Graphs
from histoclick.models.nets.modelinput import alike, click_tensor, mirrored
from histoclick.models.prompts import check_image, check_prompt
from histoclick.models.weights import check_keys, read_state_dict, shapes
from histoclick.types import RGB8, HistoclickError, Prediction, Prompt

# Name, channels and stride of the maps of an embedding.
LAYOUT = tuple(zip(Pyramid._fields, (*WIDTHS, LIKENESS), (2, 4, 8, 16, 8), strict=True))


@dataclass(frozen=True, slots=True)
class DenseClickEncoded:
    """``shape``: of the image. ``resized``: height and width of its part of the model's input,
    whose rest is padding. ``frame``: the model's input on the image."""

    pyramid: Pyramid
    shape: tuple[int, int]
    resized: tuple[int, int]
    frame: Frame


class DenseClickSegmenter:
    """Resizes the longer side to ``input_size`` px and pads by reflection to multiples of 32.

    ``Prediction.memory`` is the stride-2 logit map (1, 1, h, w) of the padded input. After a
    negative click no logit is higher than before.
    """

    def __init__(self, net: DenseClickNet, input_size: int, device: str = "cpu") -> None:
        # Channels last is what the convolutions of this network are fastest in, on CPU and GPU.
        self._net = net.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._input_size = input_size
        self._device = device

    def encode(self, image: RGB8) -> DenseClickEncoded:
        """Run the trunk. ``image``: (H, W, 3) uint8 RGB."""
        return self.encode_batch([image])[0]

    @torch.inference_mode()
    def encode_batch(self, images: Sequence[RGB8]) -> list[DenseClickEncoded]:
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
                encoded[i] = DenseClickEncoded(Pyramid(*parts), (height, width), resized, frame)
        finish(self._device)
        return [encoded[i] for i in range(len(images))]

    def pack(self, encoded: DenseClickEncoded) -> dict[str, NDArray[np.generic]]:
        """An embedding as arrays, for a disk."""
        maps = {name: part.cpu().numpy() for name, part in encoded.pyramid._asdict().items()}
        return {**maps, "shape": np.array(encoded.shape)}

    def unpack(self, arrays: Mapping[str, NDArray[np.generic]]) -> DenseClickEncoded:
        """What ``pack`` was given. Raises ``KeyError`` or ``ValueError`` for other arrays."""
        height, width = (int(side) for side in arrays["shape"])
        resized = fit(height, width, self._input_size)
        sides = [up_to_multiple(side, MULTIPLE) for side in resized]
        parts = []
        for name, channels, stride in LAYOUT:
            part = torch.from_numpy(np.array(arrays[name], np.float32))
            if part.shape != (1, channels, sides[0] // stride, sides[1] // stride):
                raise ValueError(f"{name} of an embedding has shape {tuple(part.shape)}")
            parts.append(part.to(self._device, memory_format=torch.channels_last))
        frame = Frame.resized(height, width, *resized)
        return DenseClickEncoded(Pyramid(*parts), (height, width), resized, frame)

    def predict(
        self, encoded: DenseClickEncoded, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        """The mask after ``prompt``. Raises ``ValueError`` for a prompt without clicks, with a box
        (this family has no boxes), or with a click outside the image."""
        return self.predict_batch([encoded], [prompt], [previous])[0]

    @torch.inference_mode()
    def predict_batch(
        self,
        encoded: Sequence[DenseClickEncoded],
        prompts: Sequence[Prompt],
        previous: Sequence[Prediction | None],
    ) -> list[Prediction]:
        """``predict`` of every user; those on images of one padded size are decoded together."""
        answers = {}
        for each, prompt in zip(encoded, prompts, strict=True):
            check_prompt(prompt, each.shape, boxes=False)
        for members in alike([tuple(each.pyramid.s2.shape) for each in encoded]):
            pyramid = Pyramid(
                *map(torch.cat, zip(*(encoded[i].pyramid for i in members), strict=True))
            )
            users = [[*map(encoded[i].frame.from_parent, prompts[i].clicks)] for i in members]
            clicks = click_tensor(users, self._device)
            before = torch.cat([self._before(encoded[i], previous[i]) for i in members])
            low = self._net.decode(pyramid, clicks, before)
            begun = [previous[i] is not None for i in members]
            low[begun] = lowered(low[begun], before[begun], clicks[begun])
            high = F.interpolate(low, scale_factor=2.0, mode="bilinear", align_corners=False)
            for place, i in enumerate(members):
                rows, columns = encoded[i].resized
                logits = cv2.resize(
                    high[place, 0, :rows, :columns].contiguous().cpu().numpy(),
                    encoded[i].shape[::-1],
                    interpolation=cv2.INTER_LINEAR,
                )
                memory = low[place : place + 1].clone()
                answers[i] = Prediction(np.asarray(logits, np.float32), memory)
        return [answers[i] for i in range(len(encoded))]

    def _before(self, encoded: DenseClickEncoded, previous: Prediction | None) -> Tensor:
        """Probability of the mask so far, (1, 1, h, w) at stride 2 of the padded input."""
        height, width = encoded.pyramid.s2.shape[2:]
        if previous is None:
            return torch.zeros((1, 1, height, width), device=self._device)
        if previous.memory is not None:
            return torch.sigmoid(previous.memory)
        rows, columns = encoded.resized
        resized = cv2.resize(
            previous.mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA
        )
        padded = F.pad(
            torch.from_numpy(resized)[None, None], (0, 2 * width - columns, 0, 2 * height - rows)
        )
        return F.avg_pool2d(padded, 2).to(self._device)


def build(card: Card, folder: Path) -> DenseClickNet:
    """The network of a model folder, every key of its weights checked."""
    if card.input_size < MULTIPLE:
        raise HistoclickError(
            f"{folder}: input_size is {card.input_size}; it must be {MULTIPLE} up"
        )
    net = DenseClickNet(norm=False)
    file = folder / "weights.safetensors"
    state = {key: value.float() for key, value in read_state_dict(file).items()}
    check_keys(shapes(state), shapes(net.state_dict()), str(file))
    net.load_state_dict(state)
    return net


def load(card: Card, folder: Path, device: str) -> DenseClickSegmenter:
    """The segmenter of a model folder."""
    return DenseClickSegmenter(build(card, folder), card.input_size, device)


def graphs(card: Card, folder: Path) -> Graphs:
    """The networks of a model folder, for an export."""
    return graphs_of(build(card, folder))
