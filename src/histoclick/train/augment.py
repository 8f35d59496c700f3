"""Augmentation of H&E crops: geometry, stain, optics. Numpy in, numpy out, seeded.

``train.batchaugment`` does as much to a batch of tensors, where these are.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from histoclick.types import RGB8, Labels

# Optical density of haematoxylin, eosin and DAB in R, G, B (Ruifrok and Johnston 2001)
HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
HED /= np.linalg.norm(HED, axis=1, keepdims=True)
RGB_TO_HED = np.linalg.inv(HED)


def stain(image: RGB8, rng: np.random.Generator) -> RGB8:
    """Scale (0.7 to 1.35) and shift (0.06 optical density) each stain."""
    scale = np.exp(rng.uniform(-0.32, 0.3, 3)).astype(np.float32)
    return restain(image, scale, rng.uniform(-0.06, 0.06, 3).astype(np.float32))


def restain(image: RGB8, scale: NDArray[np.float32], shift: NDArray[np.float32]) -> RGB8:
    """``scale`` times as much of haematoxylin, eosin and DAB, (3,), and ``shift`` (3,) more of
    their optical density."""
    density = -np.log10((image.astype(np.float32) + 1) / 256)
    # Decompose, jitter and compose again in one 3x3 matrix and one offset.
    jittered = density @ (RGB_TO_HED * scale @ HED) + shift @ HED
    light: RGB8 = np.clip(256 * 10**-jittered - 1, 0, 255).astype(np.uint8)
    return light


def tone(image: RGB8, rng: np.random.Generator) -> RGB8:
    """Brightness, contrast, gamma, and sometimes a change of hue or no colour at all."""
    levels = np.arange(256, dtype=np.float32) / 255
    levels = levels ** np.exp(rng.uniform(-0.3, 0.3))
    levels = (levels - 0.5) * rng.uniform(0.75, 1.2) + 0.5 + rng.uniform(-0.1, 0.1)
    image = cv2.LUT(image, np.clip(levels * 255, 0, 255).astype(np.uint8)).astype(np.uint8)
    if rng.random() < 0.2:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(-20, 21))) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.uint8)
    if rng.random() < 0.05:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2).astype(np.uint8)
    return image


def optics(image: RGB8, rng: np.random.Generator) -> RGB8:
    """Blur, or JPEG compression, or nothing."""
    choice = rng.random()
    if choice < 0.2:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5)).astype(np.uint8)
    if choice < 0.4:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 95))]
        compressed = cv2.imencode(".jpg", image, quality)[1]
        return np.asarray(cv2.imdecode(compressed, cv2.IMREAD_COLOR), np.uint8)
    return image


def appearance(image: RGB8, rng: np.random.Generator) -> RGB8:
    """Everything that changes pixel values and not where things are."""
    if rng.random() < 0.8:
        image = stain(image, rng)
    if rng.random() < 0.6:
        image = tone(image, rng)
    return optics(image, rng)


def view(
    image: RGB8, labels: Labels, size: int, scale: float, rng: np.random.Generator
) -> tuple[RGB8, Labels]:
    """A square crop at another scale, randomly turned and mirrored.

    ``image``: (H, W, 3) uint8, ``labels``: (H, W) uint16. ``scale``: output pixels per input pixel.
    What a too small image does not fill is its mirror image. Returns arrays of side ``size``.
    """
    height, width = image.shape[:2]
    need = max(1, round(size / scale))
    y = int(rng.integers(0, max(height - need, 0) + 1))
    x = int(rng.integers(0, max(width - need, 0) + 1))
    image, labels = image[y : y + need, x : x + need], labels[y : y + need, x : x + need]
    bottom, right = need - image.shape[0], need - image.shape[1]
    if bottom or right:
        edges = (0, bottom, 0, right)
        image = cv2.copyMakeBorder(image, *edges, cv2.BORDER_REFLECT).astype(np.uint8)
        labels = cv2.copyMakeBorder(labels, *edges, cv2.BORDER_REFLECT).astype(np.uint16)
    shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = cv2.resize(image, (size, size), interpolation=shrink).astype(np.uint8)
    labels = cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST_EXACT).astype(
        np.uint16
    )
    turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if mirror:
        image, labels = image[:, ::-1], labels[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)
