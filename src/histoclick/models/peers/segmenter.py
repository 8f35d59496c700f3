"""The peers behind the ``Segmenter`` interface: their official image predictors without state.

Pictures are prepared here, with PIL, because transformers' own way needs torchvision. The rules are
SAM's; SAM 2 and later stretch the image to the network's square input and bound the logits they
feed back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from histoclick.geometry import fit
from histoclick.models.device import finish
from histoclick.models.peers.kinds import Colour, Kind
from histoclick.models.prompts import check_image, check_prompt
from histoclick.types import RGB8, Prediction, Prompt


@dataclass(frozen=True, slots=True, eq=False)
class PeerEncoded:
    """``features``: of the image, by the names under which the decoder takes them. Sizes are
    (height, width) in pixels."""

    features: dict[str, Any]
    shape: tuple[int, int]  # of the image
    resized: tuple[int, int]  # of the image inside the network's square input


class PeerSegmenter:
    """Clicks and boxes to masks with one of the ``KINDS``.

    ``model``: transformers' model of that kind, moved to ``device`` and kept, in evaluation mode.
    ``mean``, ``std``: of the images it was trained on. As with SAM, a first single click is
    ambiguous, and of three masks the one with the best predicted IoU is taken.
    """

    boxes = True  # it understands them

    def __init__(
        self,
        model: Any,
        kind: Kind,
        mean: Colour,
        std: Colour,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        self.model = model.to(device).eval()
        self.kind = kind
        self.device = torch.device(device)
        prompts = model.config.prompt_encoder_config
        self.input_px = side_px(prompts.image_size)
        self.lowres_px = 4 * (self.input_px // side_px(prompts.patch_size))
        self._mean, self._std = (torch.tensor(colour)[:, None, None] for colour in (mean, std))

    @torch.inference_mode()
    def encode(self, image: RGB8) -> PeerEncoded:
        """``image``: (H, W, 3) uint8 RGB."""
        check_image(image)
        shape, side = (image.shape[0], image.shape[1]), self.input_px
        height, width = (side, side) if self.kind.stretched else fit(*shape, side)
        picture = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        colours = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
        pixels = F.pad((colours - self._mean) / self._std, (0, side - width, 0, side - height))
        found = self.model.get_image_embeddings(pixels[None].to(self.device))
        features = {"image_embeddings": found}
        if isinstance(found, tuple):  # SAM-HQ's decoder sees the encoder's early layers as well
            features = {"image_embeddings": found[0], "intermediate_embeddings": found[1]}
        finish(self.device)
        return PeerEncoded(features, shape, (height, width))

    @torch.inference_mode()
    def predict(
        self, encoded: PeerEncoded, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        """See ``Segmenter``. ``memory`` of the answer: its logits as decoded, (1, 1, s, s)."""
        check_prompt(prompt, encoded.shape, boxes=True)
        first_click = previous is None and len(prompt.clicks) == 1 and prompt.box is None
        points, labels, boxes = scale_prompt(prompt, encoded.shape, encoded.resized)
        answer = self.model(
            **encoded.features,
            input_points=self._moved(points),
            input_labels=self._moved(labels),
            input_boxes=self._moved(boxes),
            input_masks=self._moved(self._mask_prompt(encoded, previous)),
            multimask_output=first_click,
        )
        best = int(answer.iou_scores[0, 0].argmax())
        lowres = answer.pred_masks[:, 0, best : best + 1].float()
        return Prediction(
            self._upsample(lowres, encoded)[0, 0].cpu().numpy(),
            memory=lowres.clamp(-self.kind.limit, self.kind.limit),
            quality=min(max(float(answer.iou_scores[0, 0, best]), 0.0), 1.0),
        )

    def _moved(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(self.device)

    def _mask_prompt(self, encoded: PeerEncoded, previous: Prediction | None) -> Tensor | None:
        """(1, 1, s, s): the last answer as decoded; a mask from elsewhere is resized to it, with
        background where the square input holds no image."""
        if previous is None:
            return None
        if previous.logits.shape != encoded.shape:
            raise ValueError(
                f"the previous mask is {previous.logits.shape} and the image {encoded.shape}; give "
                "a mask of the image's size"
            )
        if previous.memory is not None:
            memory: Tensor = previous.memory
            return memory
        logits = torch.from_numpy(np.asarray(previous.logits, np.float32))[None, None]
        side, limit = self.lowres_px, self.kind.limit
        height, width = (math.ceil(px * side / self.input_px) for px in encoded.resized)
        small = F.interpolate(logits, (height, width), mode="bilinear", antialias=True)
        padding = (0, side - width, 0, side - height)
        padded = F.pad(small, padding, value=-float(logits.abs().max()))
        return padded.clamp(-limit, limit)

    def _upsample(self, lowres: Tensor, encoded: PeerEncoded) -> Tensor:
        """Logits of the square input (1, 1, s, s) to those of the image (1, 1, H, W)."""
        if not self.kind.stretched:  # in two steps, as SAM does
            square = F.interpolate(lowres, (self.input_px, self.input_px), mode="bilinear")
            lowres = square[..., : encoded.resized[0], : encoded.resized[1]]
        return F.interpolate(lowres, encoded.shape, mode="bilinear")


def scale_prompt(
    prompt: Prompt, shape: tuple[int, int], resized: tuple[int, int]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Points (1, 1, N, 2) of x, y, labels (1, 1, N), box (1, 1, 4), in pixels of the input.

    Image coordinates are multiplied, not shifted by half pixels: what the weights were trained on.
    """
    scale = torch.tensor([resized[1] / shape[1], resized[0] / shape[0]], dtype=torch.float64)
    points = labels = box = None
    if prompt.clicks:
        places = torch.tensor([(c.x, c.y) for c in prompt.clicks], dtype=torch.float64)
        points = (places * scale).float()[None, None]
        labels = torch.tensor([[[int(c.positive) for c in prompt.clicks]]])
    if prompt.box is not None:
        b = prompt.box
        corners = torch.tensor([(b.x0, b.y0), (b.x1, b.y1)], dtype=torch.float64)
        box = (corners * scale).float().reshape(1, 1, 4)
    return points, labels, box


def side_px(size: int | list[int] | tuple[int, ...]) -> int:
    """Side of a square that transformers gives as one number or as two."""
    return size if isinstance(size, int) else int(size[0])
