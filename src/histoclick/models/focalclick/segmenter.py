"""FocalClick behind the ``Segmenter`` interface: the published predictor without its state.

Every click runs two networks on squares of ``input_px``: the coarse one on the target crop (the
object so far, with a margin), the refiner on the focus crop (where the click changed something).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit
from torch import Tensor

from histoclick.models.clickmaps import pack, pad
from histoclick.models.device import finish
from histoclick.models.earlyfusion import THRESHOLD, EarlyFusion, EarlyFusionEncoded, logits_of
from histoclick.models.focalclick.crops import focus_crop, progressive_merge
from histoclick.models.focalclick.network import Coarse, FocalClickNet
from histoclick.models.focalclick.refiner import Refined, resize
from histoclick.models.prompts import check_previous, check_prompt
from histoclick.models.zoom import Roi, ZoomRule
from histoclick.types import Click, Logits, Mask, Prediction, Prompt

INPUT_PX = 256  # of the paper; the published evaluation script says 384 unless told
CROP_RATIO = 1.4
LEAST_TARGET_PX = 10  # side
LATE = 10  # clicks; after more of them, nothing but the focus crop changes
FAINTEST = np.float32(1e-6)  # logit of a pixel that is exactly on the threshold

Map = NDArray[np.float32]  # (H, W)


@dataclass(frozen=True, slots=True, eq=False)
class FocalClickMemory:
    """What the next click needs, and where this one looked.

    ``probabilities``: (H, W) float32 before any merge: the network is shown its own answer.
    ``initial``: whether the user began with a mask from elsewhere. ``target``, ``focus``: the crops
    that the two networks saw.
    """

    probabilities: Map
    initial: bool
    target: Roi
    focus: Roi


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """One user's click. ``before``: (H, W), what the networks last said; ``mask``: (H, W), what
    became of it; ``target``: where to look now."""

    pixels: Tensor  # (1, 3, H, W) uint8
    clicks: tuple[Click, ...]
    before: Map
    mask: Mask
    initial: bool
    target: Roi


class FocalClickSegmenter(EarlyFusion):
    """Clicks to masks with a FocalClick network. ``Prediction.memory``: a ``FocalClickMemory``.

    ``net`` is moved to ``device`` and kept, in evaluation mode. ``input_px``: side of the squares
    that it sees. ``target_ratio``, ``focus_ratio``: how much larger the crops are than what they
    show. ``merge``: whether a click changes the mask only where it is connected with it
    (``progressive_merge``): for users who began with a mask from elsewhere (``initial``, as
    published), ``always``, or ``never``.
    """

    def __init__(
        self,
        net: FocalClickNet,
        *,
        input_px: int = INPUT_PX,
        target_ratio: float = CROP_RATIO,
        focus_ratio: float = CROP_RATIO,
        merge: Literal["initial", "always", "never"] = "initial",
        device: str | torch.device = "cpu",
    ) -> None:
        self.net = net.to(device).eval()
        self.square = (input_px, input_px)
        self.rule = ZoomRule(self.square, expansion=target_ratio, min_side=LEAST_TARGET_PX)
        self.focus_ratio = focus_ratio
        self.merge = merge
        self.device = torch.device(device)

    @property
    def settings(self) -> dict[str, str]:
        """How it predicts, for the protocol card."""
        return {
            "zoom": f"{self.rule}; focus crop {self.focus_ratio:g}",
            "tta": "none",
            "merge": self.merge,
        }

    @torch.inference_mode()
    def predict_batch(
        self,
        encoded: Sequence[EarlyFusionEncoded],
        prompts: Sequence[Prompt],
        previous: Sequence[Prediction | None],
    ) -> list[Prediction]:
        """See ``BatchSegmenter``. All users pass through each of the two networks together."""
        turns = [self._turn(*user) for user in zip(encoded, prompts, previous, strict=True)]
        if not turns:
            return []
        targets = [turn.target for turn in turns]
        before = [torch.from_numpy(turn.before).to(self.device)[None, None] for turn in turns]
        coarse: Coarse = self.net(
            self._image(turns, targets),
            self._squares(before, targets),
            self._points(turns, targets),
        )
        probabilities = torch.sigmoid(coarse.logits).chunk(len(turns))
        found = [_on_image(*each) for each in zip(probabilities, turns, strict=True)]
        focuses = [self._focus(*each) for each in zip(found, turns, strict=True)]
        boxes = [self._box(*each) for each in zip(focuses, targets, strict=True)]
        refined: Refined = self.net.refine(
            self._image(turns, focuses),
            self._points(turns, focuses),
            coarse,
            torch.tensor(boxes, device=self.device),
        )
        answers = zip(turns, found, focuses, refined.logits.chunk(len(turns)), strict=True)
        predictions = [self._answer(*each) for each in answers]
        finish(self.device)
        return predictions

    def _turn(
        self, encoded: EarlyFusionEncoded, prompt: Prompt, previous: Prediction | None
    ) -> _Turn:
        check_prompt(prompt, encoded.shape, boxes=False)
        memory: FocalClickMemory | None = None
        before, mask = np.zeros(encoded.shape, np.float32), np.zeros(encoded.shape, np.bool_)
        if previous is not None:
            check_previous(previous, encoded.shape)
            memory, mask = previous.memory, previous.mask
            before = expit(previous.logits) if memory is None else memory.probabilities
        # the published predictor takes a new target at every click; it never keeps one
        target = self.rule.next_roi(torch.from_numpy(mask).float(), prompt.clicks, None)
        return _Turn(
            encoded.pixels,
            prompt.clicks,
            before,
            mask,
            previous is not None and (memory is None or memory.initial),
            Roi.whole(encoded.shape) if target is None else target,
        )

    def _squares(self, maps: Sequence[Tensor], rois: Sequence[Roi]) -> Tensor:
        """(B, C, input_px, input_px): the crops of B maps (1, C, H, W)."""
        crops = [roi.crop(each).float() for each, roi in zip(maps, rois, strict=True)]
        return torch.cat([resize(crop, self.square) for crop in crops])

    def _image(self, turns: Sequence[_Turn], rois: Sequence[Roi]) -> Tensor:
        return self._squares([turn.pixels for turn in turns], rois) / 255

    def _points(self, turns: Sequence[_Turn], rois: Sequence[Roi]) -> Tensor:
        """(B, 2n, 3), see ``clickmaps``: the clicks on the squares."""
        placed = [
            pack([roi.place(click, self.square) for click in turn.clicks])
            for turn, roi in zip(turns, rois, strict=True)
        ]
        return pad(placed).to(self.device)

    def _focus(self, found: Map, turn: _Turn) -> Roi:
        # As published, the threshold of probabilities is also that of these logits.
        mask, before = found > THRESHOLD, turn.before > THRESHOLD
        return focus_crop(mask, before, turn.target, turn.clicks[-1], self.focus_ratio)

    def _box(self, focus: Roi, target: Roi) -> tuple[float, float, float, float]:
        """The focus crop as a box (x0, y0, x1, y1) on the square of the target, ends excluded."""
        high, wide = (side / of for side, of in zip(self.square, target.shape, strict=True))
        return (
            (focus.x0 - target.x0) * wide,
            (focus.y0 - target.y0) * high,
            (focus.x1 + 1 - target.x0) * wide,
            (focus.y1 + 1 - target.y0) * high,
        )

    def _answer(self, turn: _Turn, found: Map, focus: Roi, refined: Tensor) -> Prediction:
        """``found``: (H, W) coarse logits; ``refined``: (1, 1, input_px, input_px) of ``focus``."""
        logits = logit(turn.before) if len(turn.clicks) > LATE else found.copy()
        inside = (slice(focus.y0, focus.y1 + 1), slice(focus.x0, focus.x1 + 1))
        logits[inside] = resize(refined, focus.shape)[0, 0].cpu().numpy()
        probabilities = expit(logits)
        shown = logits_of(torch.from_numpy(probabilities))
        if self.merge == "always" or (self.merge == "initial" and turn.initial):
            merged = progressive_merge(shown > 0, turn.mask, turn.clicks[-1])
            shown = _turned(shown, merged)
        memory = FocalClickMemory(probabilities, turn.initial, turn.target, focus)
        return Prediction(shown, memory)


def _on_image(probabilities: Tensor, turn: _Turn) -> Map:
    """(1, 1, h, w) on the target crop to logits (H, W) of the image, minus infinity around it."""
    crop = resize(probabilities, turn.target.shape)
    on_image: Map = turn.target.paste(crop, turn.mask.shape)[0, 0].cpu().numpy()
    logits: Map = logit(on_image)
    return logits


def _turned(logits: Logits, mask: Mask) -> Logits:
    """``logits`` with the signs of ``mask``, (H, W) both: as sure as before, maybe of the other."""
    sure = np.maximum(np.abs(logits), FAINTEST)
    return np.where(mask, sure, -sure)
