"""SAM behind the ``Segmenter`` interface: the official predictor without its state.

The official rules, to the digit: longest side to 1024 px (PIL bilinear on uint8), zeros appended
right and below after normalisation, clicks and boxes scaled alike, the low-resolution logits of
the last answer fed back unchanged, and two bilinear steps back to the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import SamModel

from histoclick.geometry import fit
from histoclick.models.device import finish
from histoclick.models.prompts import check_image, check_prompt
from histoclick.models.sam.network import decode
from histoclick.types import RGB8, Prediction, Prompt

MEAN = (123.675, 116.28, 103.53)  # of the encoder's training images, 0..255
STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True, eq=False)
class SamEncoded:
    """``embedding``: (1, 256, 64, 64) float32. Sizes are (height, width) in pixels."""

    embedding: Tensor
    shape: tuple[int, int]  # of the image
    resized: tuple[int, int]  # of the image inside the encoder's square input


class SamSegmenter:
    """Clicks and boxes to masks with a SAM network.

    ``model`` is moved to ``device`` and kept, in evaluation mode. ``dtype`` is that of the image
    encoder, where the time goes; the rest stays float32, because click positions do not survive
    half precision. ``multimask_first``: a first single click is ambiguous, so of three masks the
    one with the best predicted IoU is taken; every other prompt asks for the one mask.
    """

    def __init__(
        self,
        model: SamModel,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        multimask_first: bool = True,
    ) -> None:
        self.model = model.to(device).float().eval()
        self.model.vision_encoder.to(dtype)
        self.device = torch.device(device)
        self.dtype = dtype
        self.multimask_first = multimask_first
        self.input_px: int = model.config.vision_config.image_size

    @torch.inference_mode()
    def encode(self, image: RGB8) -> SamEncoded:
        """``image``: (H, W, 3) uint8 RGB."""
        check_image(image)
        resized = resize_longest(image, self.input_px)
        pixels = normalise(resized, self.input_px).to(self.device, self.dtype)
        embedding = self.model.vision_encoder(pixels)[0].float()
        finish(self.device)
        return SamEncoded(
            embedding, (image.shape[0], image.shape[1]), (resized.shape[0], resized.shape[1])
        )

    @torch.inference_mode()
    def predict(
        self, encoded: SamEncoded, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        """See ``Segmenter``. ``memory`` of the answer: its logits as decoded, (1, 256, 256)."""
        check_prompt(prompt, encoded.shape, boxes=True)
        first_click = previous is None and len(prompt.clicks) == 1 and prompt.box is None
        lowres, iou = self.decode(
            encoded,
            prompt,
            None if previous is None else previous.memory,
            multimask=self.multimask_first and first_click,
        )
        best = int(iou.argmax())
        logits = upsample(lowres[None, best : best + 1], encoded.resized, encoded.shape)[0, 0]
        return Prediction(
            logits.cpu().numpy(),
            memory=lowres[best : best + 1].clone(),
            quality=min(max(float(iou[best]), 0.0), 1.0),
        )

    @torch.inference_mode()
    def decode(
        self, encoded: SamEncoded, prompt: Prompt, mask: Tensor | None = None, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """What the decoder says, before a choice: logits (M, 256, 256) and predicted IoU (M,).

        ``mask``: logits (1, 256, 256) of an earlier answer. M is 3 with ``multimask``, else 1.
        """
        points, labels, boxes = (
            None if array is None else torch.from_numpy(array)[None].to(self.device)
            for array in scale_prompt(prompt, encoded.shape, encoded.resized)
        )
        masks = None if mask is None else mask[None].to(self.device)
        logits, iou = decode(
            self.model, encoded.embedding, points, labels, boxes, masks, multimask=multimask
        )
        return logits[0], iou[0]


def resize_longest(image: RGB8, side_px: int) -> RGB8:
    """``image`` with its longest side at ``side_px``, by PIL's antialiased bilinear filter."""
    height, width = fit(image.shape[0], image.shape[1], side_px)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(resized)


def normalise(image: RGB8, side_px: int) -> Tensor:
    """(1, 3, side, side) float32 from (h, w, 3) uint8; zeros, not black, right and below."""
    pixels = (torch.from_numpy(image).permute(2, 0, 1) - _column(MEAN)) / _column(STD)
    height, width = image.shape[:2]
    return F.pad(pixels, (0, side_px - width, 0, side_px - height))[None]


def upsample(lowres: Tensor, resized: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """Logits of the square input (B, M, side / 4, side / 4) to those of the image (B, M, H, W)."""
    square = F.interpolate(lowres, scale_factor=4.0, mode="bilinear", align_corners=False)
    inside = square[:, :, : resized[0], : resized[1]]
    return F.interpolate(inside, shape, mode="bilinear", align_corners=False)


def scale_prompt(
    prompt: Prompt, shape: tuple[int, int], resized: tuple[int, int]
) -> tuple[NDArray[np.float32] | None, NDArray[np.int32] | None, NDArray[np.float32] | None]:
    """Points (N, 2) of x, y, labels (N,), box (4,), in pixels of the encoder's input.

    Image coordinates are multiplied, not shifted by half pixels: what the weights were trained on.
    """
    scale = np.array([resized[1] / shape[1], resized[0] / shape[0]])
    points = labels = box = None
    if prompt.clicks:
        points = (np.array([(c.x, c.y) for c in prompt.clicks]) * scale).astype(np.float32)
        labels = np.array([c.positive for c in prompt.clicks], np.int32)
    if prompt.box is not None:
        b = prompt.box
        corners = np.array([(b.x0, b.y0), (b.x1, b.y1)]) * scale
        box = corners.astype(np.float32).ravel()
    return points, labels, box


def _column(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values)[:, None, None]
