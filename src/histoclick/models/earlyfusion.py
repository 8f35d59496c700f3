"""The segmenter around networks that see image, clicks and previous mask at once, from the input.

RITM (Sofiiuk et al. 2022) and SimpleClick (Liu et al. 2023): every click runs the whole network, on
a zoomed-in region that is kept between clicks, and on its mirror image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histoclick.models.clickmaps import pack, pad
from histoclick.models.device import finish
from histoclick.models.prompts import check_image, check_previous, check_prompt
from histoclick.models.zoom import Roi, ZoomRule, fit
from histoclick.types import RGB8, Click, Logits, Prediction, Prompt

THRESHOLD = 0.49  # of the probability, in the published evaluations of this lineage
LEAST = 1e-7  # probability that stands for 0, and 1 - LEAST for 1, so that logits stay finite


@dataclass(frozen=True, slots=True, eq=False)
class EarlyFusionEncoded:
    """``pixels``: (1, 3, H, W) uint8 RGB on the segmenter's device."""

    pixels: Tensor

    @classmethod
    def of(cls, image: RGB8, device: torch.device) -> EarlyFusionEncoded:
        """A copy of ``image``, (H, W, 3) uint8 RGB."""
        check_image(image)
        pixels = torch.from_numpy(np.array(image.transpose(2, 0, 1)[None], order="C"))
        return cls(pixels.to(device))

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[2], self.pixels.shape[3]


@dataclass(frozen=True, slots=True, eq=False)
class EarlyFusionMemory:
    """``probabilities``: (1, 1, H, W) float32, the network's next input. ``roi``: where it looked,
    ``None`` for the whole image at its own size."""

    probabilities: Tensor
    roi: Roi | None


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """What the network sees of one user's image, and the way back.

    ``inputs``: (1, 4, h, w) float32. ``clicks`` are on it. ``sizes``: (height, width) the answer is
    resized to, one after the other, before it is put at ``roi``.
    """

    inputs: Tensor
    clicks: tuple[Click, ...]
    sizes: tuple[tuple[int, int], ...]
    roi: Roi | None


class EarlyFusion(ABC):
    """A segmenter that works at clicks only, on many users at once as on one."""

    device: torch.device

    def encode(self, image: RGB8) -> EarlyFusionEncoded:
        """Only keeps ``image``, (H, W, 3) uint8 RGB: every part of these networks sees clicks."""
        return EarlyFusionEncoded.of(image, self.device)

    def encode_batch(self, images: Sequence[RGB8]) -> list[EarlyFusionEncoded]:
        """``encode`` of every image."""
        return [self.encode(image) for image in images]

    def predict(
        self, encoded: EarlyFusionEncoded, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        """See ``Segmenter``; clicks only."""
        return self.predict_batch([encoded], [prompt], [previous])[0]

    @abstractmethod
    def predict_batch(
        self,
        encoded: Sequence[EarlyFusionEncoded],
        prompts: Sequence[Prompt],
        previous: Sequence[Prediction | None],
    ) -> list[Prediction]:
        """See ``BatchSegmenter``."""


class EarlyFusionSegmenter(EarlyFusion):
    """Clicks to masks with a network of the RITM kind. ``Prediction.memory``: its state.

    ``net(inputs, points)``: ``inputs`` (B, 4, h, w) float32, RGB in 0..1 and the probabilities of
    the previous mask; ``points`` (B, 2n, 3) as in ``clickmaps``; returns logits (B, 1, h, w). It
    normalises the colours itself. It is moved to ``device`` and kept, in evaluation mode.

    ``rule``: the zoom-in; ``None`` shows it the whole image at its own size, always. ``flip``:
    logits are averaged with those of the mirror image. ``click_limit``: later clicks are not shown.
    ``max_side``: longest side in px that the network gets to see, after the zoom-in.
    """

    def __init__(
        self,
        net: nn.Module,
        rule: ZoomRule | None,
        *,
        flip: bool = True,
        click_limit: int | None = None,
        max_side: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.net = net.to(device).eval()
        self.rule = rule
        self.flip = flip
        self.click_limit = click_limit
        self.max_side = max_side
        self.device = torch.device(device)

    @property
    def settings(self) -> dict[str, str]:
        """How it predicts, for the protocol card."""
        told = {"zoom": "none" if self.rule is None else str(self.rule)}
        told["tta"] = "flip" if self.flip else "none"
        if self.click_limit is not None:
            told["click_limit"] = str(self.click_limit)
        if self.max_side is not None:
            told["max_side"] = f"{self.max_side} px"
        return told

    @torch.inference_mode()
    def predict_batch(
        self,
        encoded: Sequence[EarlyFusionEncoded],
        prompts: Sequence[Prompt],
        previous: Sequence[Prediction | None],
    ) -> list[Prediction]:
        """See ``BatchSegmenter``. Views of equal size pass through the network together."""
        users = list(zip(encoded, prompts, previous, strict=True))
        views = [self._look(*user) for user in users]
        by_size: dict[torch.Size, list[int]] = defaultdict(list)
        for i, view in enumerate(views):
            by_size[view.inputs.shape].append(i)
        answers: dict[int, Prediction] = {}
        for members in by_size.values():
            seen = torch.sigmoid(self._logits([views[i] for i in members]))
            for i, each in zip(members, seen.chunk(len(members)), strict=True):
                answers[i] = _answer(each, views[i], encoded[i].shape)
        finish(self.device)
        return [answers[i] for i in range(len(views))]

    def _look(
        self, encoded: EarlyFusionEncoded, prompt: Prompt, previous: Prediction | None
    ) -> _View:
        check_prompt(prompt, encoded.shape, boxes=False)
        before = self._memory(encoded, previous)
        clicks = prompt.clicks
        roi = None
        if self.rule is not None:
            roi = self.rule.next_roi(before.probabilities[0, 0], clicks, before.roi)
        region = Roi.whole(encoded.shape) if roi is None else roi
        crop = [region.crop(encoded.pixels).float() / 255, region.crop(before.probabilities)]
        inputs = torch.cat(crop, 1)
        sizes = [region.shape]
        if self.rule is not None and roi is not None:
            sizes.append(self.rule.resized(roi))
            clicks = tuple(roi.place(click, sizes[-1]) for click in clicks)
        if self.max_side is not None and max(sizes[-1]) > self.max_side:
            whole = Roi.whole(sizes[-1])
            sizes.append(fit(whole.shape, self.max_side))
            clicks = tuple(whole.place(click, sizes[-1]) for click in clicks)
        for size in sizes[1:]:
            inputs = _resize(inputs, size)
        return _View(inputs, clicks[: self.click_limit], tuple(reversed(sizes[:-1])), roi)

    def _memory(
        self, encoded: EarlyFusionEncoded, previous: Prediction | None
    ) -> EarlyFusionMemory:
        if previous is None:
            return EarlyFusionMemory(torch.zeros(1, 1, *encoded.shape, device=self.device), None)
        check_previous(previous, encoded.shape)
        if previous.memory is None:
            logits = torch.from_numpy(np.asarray(previous.logits, np.float32))[None, None]
            return EarlyFusionMemory(torch.sigmoid(logits.to(self.device)), None)
        memory: EarlyFusionMemory = previous.memory
        return memory

    def _logits(self, views: Sequence[_View]) -> Tensor:
        """(B, 1, h, w) for B views of one size."""
        inputs = torch.cat([view.inputs for view in views])
        points = [pack(view.clicks) for view in views]
        if not self.flip:
            logits: Tensor = self.net(inputs, pad(points).to(self.device))
            return logits
        last = inputs.shape[3] - 1
        for view in views:
            mirrored = [Click(last - click.x, click.y, click.positive) for click in view.clicks]
            points.append(pack(mirrored))
        both = torch.cat([inputs, inputs.flip(3)])
        straight, mirror = self.net(both, pad(points).to(self.device)).chunk(2)
        averaged: Tensor = 0.5 * (straight + mirror.flip(3))
        return averaged


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


def _answer(probabilities: Tensor, view: _View, shape: tuple[int, int]) -> Prediction:
    """``probabilities``: (1, 1, h, w) of the view; outside its region they are 0."""
    for size in view.sizes:
        probabilities = _resize(probabilities, size)
    if view.roi is not None:
        probabilities = view.roi.paste(probabilities, shape)
    memory = EarlyFusionMemory(probabilities.clone(), view.roi)
    return Prediction(logits_of(probabilities[0, 0]), memory)


def logits_of(probabilities: Tensor, threshold: float = THRESHOLD) -> Logits:
    """(H, W) float32, positive exactly where a probability (H, W) is above ``threshold``."""
    double = probabilities.cpu().double()  # float32 would move pixels across the threshold
    border = torch.tensor(threshold).double()  # rounded as the probabilities are
    logits: Logits = (torch.logit(double, LEAST) - torch.logit(border)).float().numpy()
    return logits
