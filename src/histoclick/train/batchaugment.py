"""Augmentation of a batch of H&E crops as tensors, on the device where they are.

First it is drawn what happens to each sample, from a random generator of its own, so that a sample
does not depend on its batch; then ``move`` and ``recolour`` do it. Images are (B, 3, H, W) float32
RGB in 0..1, masks (B, C, H, W) of any type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from histoclick.train.augment import HED, RGB_TO_HED
from histoclick.train.d4 import VIEWS, d4_each

BLUR_END = 3  # standard deviations
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a sample. The defaults do about what ``train.augment`` does.

    ``turn``: any of the eight views. ``scale``: output px per input px. ``stain``: by how much each
    stain is multiplied, ``shift`` how much optical density is added or taken away at most,
    ``stained`` the chance of both. ``blur_px``: standard deviation, ``blurred`` its chance.
    ``quality``: of JPEG, 1 to 100, ``compressed`` its chance; no sample is both blurred and
    compressed. Scales and stains are drawn evenly on a logarithmic scale, all else evenly.
    """

    turn: bool = True
    scale: tuple[float, float] = (0.75, 1.4)
    stain: tuple[float, float] = (0.73, 1.35)
    shift: float = 0.06
    stained: float = 0.8
    blur_px: tuple[float, float] = (0.4, 1.5)
    blurred: float = 0.2
    quality: tuple[int, int] = (35, 94)
    compressed: float = 0.2


@dataclass(frozen=True)
class Change:
    """What happens to one sample; the defaults change nothing.

    ``view``: 0 to 7, see ``d4``. ``scale``: output px per input px. ``origin``: x and y in 0..1,
    where the crop lies between the first and the last place possible. ``stain``, ``shift``: factors
    and optical densities of haematoxylin, eosin and DAB. ``blur_px``: standard deviation, 0 for
    none. ``quality``: of JPEG, 0 for none.
    """

    view: int = 0
    scale: float = 1.0
    origin: tuple[float, float] = (0.0, 0.0)
    stain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    blur_px: float = 0.0
    quality: int = 0


def draw_change(rule: Augmentation, rng: np.random.Generator) -> Change:
    """What happens to a sample: a function of the rule and the state of its generator alone."""
    view = int(rng.integers(VIEWS)) if rule.turn else 0
    scale = float(np.exp(rng.uniform(np.log(rule.scale[0]), np.log(rule.scale[1]))))
    x, y = rng.random(2).tolist()
    stain, shift = Change.stain, Change.shift
    if rng.random() < rule.stained:
        a, b, c = np.exp(rng.uniform(np.log(rule.stain[0]), np.log(rule.stain[1]), 3)).tolist()
        d, e, f = rng.uniform(-rule.shift, rule.shift, 3).tolist()
        stain, shift = (a, b, c), (d, e, f)
    blur_px, quality, optics = 0.0, 0, rng.random()
    if optics < rule.blurred:
        blur_px = float(rng.uniform(*rule.blur_px))
    elif optics < rule.blurred + rule.compressed:
        quality = int(rng.integers(rule.quality[0], rule.quality[1] + 1))
    return Change(view, scale, (x, y), stain, shift, blur_px, quality)


@torch.no_grad()
def move(
    images: Tensor, masks: Tensor, changes: Sequence[Change], size_px: int
) -> tuple[Tensor, Tensor]:
    """Crops of side ``size_px`` at another scale, turned and mirrored: what changes where things
    are. Masks move with their images, and keep their type and values.

    What a too small image does not fill is its mirror image.
    """
    views = [change.view for change in changes]
    seen = d4_each(zoom(images, changes, size_px, "bilinear"), views)
    return seen, d4_each(zoom(masks, changes, size_px, "nearest"), views)


@torch.no_grad()
def recolour(images: Tensor, changes: Sequence[Change]) -> Tensor:
    """Stain, blur and JPEG: what changes pixel values and not where things are."""
    with torch.autocast(images.device.type, enabled=False):
        stains = np.array([change.stain for change in changes], np.float32)
        shifts = np.array([change.shift for change in changes], np.float32)
        sigmas = np.array([change.blur_px for change in changes], np.float32)
        stained = blur(restain(images.float(), stains, shifts), sigmas)
    return compress(stained, [change.quality for change in changes])


def zoom(
    maps: Tensor, changes: Sequence[Change], size_px: int, how: Literal["bilinear", "nearest"]
) -> Tensor:
    """Crops (B, C, ``size_px``, ``size_px``) at the scales and origins of ``changes``.

    Pixels are not averaged when shrinking, which is not missed down to about 0.7.
    """
    height, width = maps.shape[2:]
    scales = torch.tensor([change.scale for change in changes], device=maps.device)[:, None]
    origins = torch.tensor([change.origin for change in changes], device=maps.device)
    sides = torch.tensor([width, height], device=maps.device)
    corners = torch.round(origins * (sides - size_px / scales))  # whole px: no blur at scale 1
    steps = (torch.arange(size_px, device=maps.device) + 0.5) / scales
    x, y = (2 * (steps + corners[:, i, None]) / sides[i] - 1 for i in (0, 1))
    shape = (len(maps), size_px, size_px)
    grid = torch.stack([x[:, None].expand(shape), y[:, :, None].expand(shape)], 3)
    zoomed = F.grid_sample(maps.float(), grid, how, "reflection", align_corners=False)
    return zoomed.to(maps.dtype)


def restain(images: Tensor, stains: Floats, shifts: Floats) -> Tensor:
    """``stains`` (B, 3) times as much of haematoxylin, eosin and DAB, and ``shifts`` (B, 3) more of
    their optical density."""
    matrix = torch.from_numpy(RGB_TO_HED * stains[:, None] @ HED).to(images)
    offset = torch.from_numpy(shifts @ HED).to(images)
    density = -torch.log10((images * 255 + 1) / 256)
    jittered = torch.einsum("bchw,bcd->bdhw", density, matrix) + offset[:, :, None, None]
    light: Tensor = (256 * 10**-jittered - 1) / 255
    return light.clamp(0, 1)


def blur(images: Tensor, sigmas: Floats) -> Tensor:
    """Gaussian blur of standard deviations ``sigmas`` (B,) px, less than a sixth of the image; 0
    leaves an image as it is."""
    chosen = np.flatnonzero(sigmas).tolist()
    if not chosen:
        return images
    sigma = torch.from_numpy(sigmas[chosen]).to(images.device)[:, None]
    most = int(np.ceil(BLUR_END * sigmas.max()))
    offsets = torch.arange(-most, most + 1, device=images.device)
    inside = offsets.abs() <= torch.ceil(BLUR_END * sigma)  # the rest is for blurrier images
    taps = torch.exp(-((offsets / sigma) ** 2) / 2) * inside
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None]  # (3 b, 1, taps)
    flat = F.pad(images[chosen], (most,) * 4, mode="reflect").flatten(0, 1)[None]
    flat = F.conv2d(flat, taps[:, :, None], groups=len(taps))
    flat = F.conv2d(flat, taps[:, :, :, None], groups=len(taps))
    blurred = images.clone()
    blurred[chosen] = flat.reshape(-1, *images.shape[1:])
    return blurred


def compress(images: Tensor, qualities: Sequence[int]) -> Tensor:
    """What JPEG of ``qualities`` 1 to 100 leaves, on the CPU; 0 leaves an image as it is."""
    compressed = images
    for i, quality in enumerate(qualities):
        if quality:
            compressed = images.clone() if compressed is images else compressed
            levels = (images[i] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            jpeg = cv2.imencode(".jpg", levels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            back = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
            compressed[i] = torch.from_numpy(back.copy()).permute(2, 0, 1).to(images) / 255
    return compressed
