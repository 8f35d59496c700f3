"""SAM behind the ``Segmenter`` interface: the official predictor without its state.

The official rules, to the digit: longest side to 1024 px (PIL bilinear on uint8), zeros appended
right and below after normalisation, clicks and boxes scaled alike, the low-resolution logits of
the last answer fed back unchanged, and two bilinear steps back to the image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import SamModel

from histoclick.geometry import fit
from histoclick.models.device import fast_dtype, finish
from histoclick.models.nets.refine import RefineDecoder
from histoclick.models.prompts import check_image, check_previous, check_prompt
from histoclick.models.sam.network import decode, narrow
from histoclick.types import RGB8, Logits, Prediction, Prompt

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
    encoder's transformer layers, where the time goes; the rest stays float32, because click
    positions do not survive half precision. Without one it is what ``device`` multiplies fastest
    without harm. ``multimask_first``: a first single click is ambiguous, so of three masks the one
    with the best predicted IoU is taken; every other prompt asks for the one mask.
    """

    boxes = True  # it understands them

    def __init__(
        self,
        model: SamModel,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        multimask_first: bool = True,
    ) -> None:
        self.model = model.to(device).float().eval()
        self.device = torch.device(device)
        self.dtype = narrow(model, dtype or fast_dtype(device))
        self.multimask_first = multimask_first and not isinstance(model.mask_decoder, RefineDecoder)
        self.input_px: int = model.config.vision_config.image_size

    @property
    def settings(self) -> dict[str, str]:
        """How it predicts, for the protocol card."""
        return {
            "zoom": f"none; longest side to {self.input_px} px",
            "tta": "none",
            "first_click": "best of three masks" if self.multimask_first else "one mask",
            "encoder": str(self.dtype).removeprefix("torch."),
        }

    def encode(self, image: RGB8) -> SamEncoded:
        """``image``: (H, W, 3) uint8 RGB."""
        return self.encode_batch([image])[0]

    @torch.inference_mode()
    def encode_batch(self, images: Sequence[RGB8]) -> list[SamEncoded]:
        """``encode`` of every image: together, but on a CPU, which gains nothing, one by one."""
        for image in images:
            check_image(image)
        resized = [resize_longest(image, self.input_px) for image in images]
        step = 1 if self.device.type == "cpu" else max(1, len(images))
        embeddings: list[Tensor] = []
        for first in range(0, len(images), step):
            batch = [normalise(each, self.input_px) for each in resized[first : first + step]]
            embedding = self.model.vision_encoder(torch.cat(batch).to(self.device))[0]
            embeddings += embedding.split(1)
        finish(self.device)
        return [
            SamEncoded(embedding, image.shape[:2], small.shape[:2])
            for embedding, image, small in zip(embeddings, images, resized, strict=True)
        ]

    def pack(self, encoded: SamEncoded) -> dict[str, NDArray[np.generic]]:
        """An embedding as arrays, for a disk."""
        return {"embedding": encoded.embedding.cpu().numpy(), "shape": np.array(encoded.shape)}

    def unpack(self, arrays: Mapping[str, NDArray[np.generic]]) -> SamEncoded:
        """What ``pack`` was given. Raises ``KeyError`` or ``ValueError`` for other arrays."""
        height, width = (int(side) for side in arrays["shape"])
        embedding = torch.from_numpy(np.array(arrays["embedding"], np.float32))
        side = self.input_px // 16
        if embedding.shape != (1, 256, side, side):
            raise ValueError(f"an embedding of shape {tuple(embedding.shape)}")
        resized = fit(height, width, self.input_px)
        return SamEncoded(embedding.to(self.device), (height, width), resized)

    def predict(
        self, encoded: SamEncoded, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        """See ``Segmenter``. ``memory`` of the answer: its logits as decoded, (1, 256, 256)."""
        return self.predict_batch([encoded], [prompt], [previous])[0]

    @torch.inference_mode()
    def predict_batch(
        self,
        encoded: Sequence[SamEncoded],
        prompts: Sequence[Prompt],
        previous: Sequence[Prediction | None],
    ) -> list[Prediction]:
        """See ``BatchSegmenter``. Users are decoded together who gave as many clicks, and alike a
        box and a mask: the decoder has no padding that it does not notice.
        """
        users = list(zip(encoded, prompts, previous, strict=True))
        masks = [self._mask_prompt(each, before) for each, _, before in users]
        alike: defaultdict[tuple[int, bool, bool, bool], list[int]] = defaultdict(list)
        for i, (each, prompt, before) in enumerate(users):
            check_prompt(prompt, each.shape, boxes=True)
            first = before is None and len(prompt.clicks) == 1 and prompt.box is None
            multimask = self.multimask_first and first
            parts = prompt.box is not None, masks[i] is not None
            alike[len(prompt.clicks), *parts, multimask].append(i)
        answers: dict[int, Prediction] = {}
        for (*_, multimask), group in alike.items():
            logits, quality = self._decode(
                [encoded[i] for i in group],
                [prompts[i] for i in group],
                [mask for i in group if (mask := masks[i]) is not None],
                multimask=multimask,
            )
            for i, lowres, iou in zip(group, logits, quality, strict=True):
                answers[i] = _answer(encoded[i], lowres, iou)
        finish(self.device)
        return [answers[i] for i in range(len(users))]

    @torch.inference_mode()
    def decode(
        self, encoded: SamEncoded, prompt: Prompt, mask: Tensor | None = None, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """What the decoder says, before a choice: logits (M, 256, 256) and predicted IoU (M,).

        ``mask``: logits (1, 256, 256) of an earlier answer. M is 3 with ``multimask``, else 1.
        """
        masks = [] if mask is None else [mask]
        logits, iou = self._decode([encoded], [prompt], masks, multimask=multimask)
        return logits[0], iou[0]

    def _decode(
        self,
        encoded: Sequence[SamEncoded],
        prompts: Sequence[Prompt],
        masks: Sequence[Tensor],
        *,
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """``decode`` for B users whose prompts are alike; ``masks`` holds B or none."""
        scaled = [
            scale_prompt(prompt, each.shape, each.resized)
            for each, prompt in zip(encoded, prompts, strict=True)
        ]
        points, labels, boxes = (
            None if parts[0] is None else torch.from_numpy(np.stack(parts)).to(self.device)
            for parts in zip(*scaled, strict=True)
        )
        embedding = torch.cat([each.embedding for each in encoded])
        mask = torch.stack(list(masks)) if masks else None
        return decode(self.model, embedding, points, labels, boxes, mask, multimask=multimask)

    def _mask_prompt(self, encoded: SamEncoded, previous: Prediction | None) -> Tensor | None:
        """Logits (1, 256, 256) of the answer before, also if somebody else gave it."""
        if previous is None:
            return None
        check_previous(previous, encoded.shape)
        if previous.memory is None:
            mask = downsample(previous.logits, encoded.resized, self.input_px)
            return mask.to(self.device)
        memory: Tensor = previous.memory
        return memory


def _answer(encoded: SamEncoded, lowres: Tensor, iou: Tensor) -> Prediction:
    """The best of the masks, ``lowres`` (M, 256, 256), by its predicted ``iou`` (M,)."""
    best = int(iou.argmax())
    logits = upsample(lowres[None, best : best + 1], encoded.resized, encoded.shape)[0, 0]
    quality = None if iou.isnan().any() else min(max(float(iou[best]), 0.0), 1.0)
    return Prediction(logits.cpu().numpy(), lowres[best : best + 1].clone(), quality)


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


def downsample(logits: Logits, resized: tuple[int, int], side_px: int) -> Tensor:
    """Logits of the image (H, W) to those of the square input (1, side / 4, side / 4).

    As ``upsample`` would want them: outside the image they say background, as surely as inside.
    """
    image = torch.from_numpy(np.asarray(logits, np.float32))[None, None]
    inside = F.interpolate(image, resized, mode="bilinear", align_corners=False, antialias=True)
    outside = 0, side_px - resized[1], 0, side_px - resized[0]
    square = F.pad(inside, outside, value=-float(np.abs(logits).max()))
    return F.avg_pool2d(square, 4)[0]


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
