"""The built-in family behind the ``Segmenter`` protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from histoclick.geometry import Frame, fit, up_to_multiple
from histoclick.models.card import Card
from histoclick.models.denseclick.network import MULTIPLE, DenseClickNet, Pyramid
from histoclick.models.denseclick.prompt import STRIDE
from histoclick.models.device import finish
from histoclick.models.prompts import check_image, check_prompt
from histoclick.models.weights import check_keys, read_state_dict, shapes
from histoclick.types import RGB8, HistoclickError, Prediction, Prompt


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

    ``Prediction.memory`` is the stride-4 logit map (1, 1, h, w) of the padded input.
    """

    def __init__(self, net: DenseClickNet, input_size: int, device: str = "cpu") -> None:
        # Channels last is what the convolutions of this network are fastest in, on CPU and GPU.
        self._net = net.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._input_size = input_size
        self._device = device

    @torch.inference_mode()
    def encode(self, image: RGB8) -> DenseClickEncoded:
        """Run the trunk. ``image``: (H, W, 3) uint8 RGB."""
        check_image(image)
        height, width = image.shape[:2]
        resized = fit(height, width, self._input_size)
        shrinks = resized[0] < height
        small = cv2.resize(
            image, resized[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
        bottom = up_to_multiple(resized[0], MULTIPLE) - resized[0]
        right = up_to_multiple(resized[1], MULTIPLE) - resized[1]
        padded = np.pad(small, ((0, bottom), (0, right), (0, 0)), "symmetric")
        batch = torch.from_numpy(padded).to(self._device).permute(2, 0, 1)[None]
        batch = (batch.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        frame = Frame.resized(height, width, *resized)
        pyramid = self._net.encode(batch)
        finish(self._device)
        return DenseClickEncoded(pyramid, (height, width), resized, frame)

    @torch.inference_mode()
    def predict(
        self, encoded: DenseClickEncoded, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        """The mask after ``prompt``. Raises ``ValueError`` for a prompt without clicks, with a box
        (this family has no boxes), or with a click outside the image."""
        check_prompt(prompt, encoded.shape, boxes=False)
        placed = [encoded.frame.from_parent(click) for click in prompt.clicks]
        packed = [[click.x, click.y, 1.0 if click.positive else -1.0] for click in placed]
        clicks = torch.tensor([packed], dtype=torch.float32, device=self._device)
        height, width = encoded.pyramid.s4.shape[2:]
        before = torch.zeros((1, 1, height, width), device=self._device)
        if previous is not None:
            before = torch.sigmoid(previous.memory)
        low: Tensor = self._net.decode(encoded.pyramid, clicks, before)
        rows, columns = encoded.resized
        high = F.interpolate(low, scale_factor=float(STRIDE), mode="bilinear", align_corners=False)
        logits = cv2.resize(
            high[0, 0, :rows, :columns].contiguous().cpu().numpy(),
            encoded.shape[::-1],
            interpolation=cv2.INTER_LINEAR,
        )
        return Prediction(np.asarray(logits, np.float32), memory=low)


def load(card: Card, folder: Path, device: str) -> DenseClickSegmenter:
    """Build the network of a model folder and fill it, every key checked."""
    if card.input_size < MULTIPLE:
        raise HistoclickError(
            f"{folder}: input_size is {card.input_size}; it must be {MULTIPLE} up"
        )
    net = DenseClickNet(norm=False)
    file = folder / "weights.safetensors"
    state = {key: value.float() for key, value in read_state_dict(file).items()}
    check_keys(shapes(state), shapes(net.state_dict()), str(file))
    net.load_state_dict(state)
    return DenseClickSegmenter(net, card.input_size, device)
