"""Where the tissue is on a slide.

Tissue takes light away, and differently by colour; glass does not. The optical density of a small
picture of the slide is cut at Otsu's threshold (1979), as most pipelines for whole slides do, but
never below what empty glass shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from histoclick.geometry import Rect
from histoclick.types import RGB8, Mask

MPP = 16.0  # um per px of the picture that is looked at: a few cells
LEAST_DENSITY = 0.05  # natural units; glass with dust and uneven light stays below


def tissue_mask(picture: RGB8) -> Mask:
    """(H, W) bool of a picture of a slide, (H, W, 3) uint8 RGB at about ``MPP``.

    Small gaps are closed, specks of one pixel removed. A picture without contrast has no tissue.
    """
    light = cv2.GaussianBlur(picture, (0, 0), 1.0).astype(np.float32)
    density = -np.log((np.maximum(light, 1.0)) / 255.0)
    # Grey shadows, pen and dust are equally dense in all colours: colour counts as well.
    signal = density.mean(axis=2) / 2 + (density.max(axis=2) - density.min(axis=2)) / 2
    scaled = np.clip(signal * 128, 0, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    found = (scaled > max(otsu * 0.6, LEAST_DENSITY * 128)).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    found = cv2.morphologyEx(found, cv2.MORPH_CLOSE, kernel, iterations=2)
    found = cv2.morphologyEx(found, cv2.MORPH_OPEN, kernel)
    return found.astype(np.bool_)


@dataclass(frozen=True)
class TissueMap:
    """Tissue of a whole slide: ``mask`` (H, W) bool covers ``rect0``, in px of level 0."""

    mask: Mask
    rect0: Rect

    def fraction(self, rect0: Rect) -> float:
        """Share of a rectangle of level 0 that is tissue, to the map's pixels."""
        height, width = self.mask.shape
        x0, x1 = (np.array([rect0.x0, rect0.x1]) - self.rect0.x0) * width / self.rect0.width
        y0, y1 = (np.array([rect0.y0, rect0.y1]) - self.rect0.y0) * height / self.rect0.height
        part = self.mask[
            max(0, int(y0)) : max(int(y0) + 1, int(np.ceil(y1))),
            max(0, int(x0)) : max(int(x0) + 1, int(np.ceil(x1))),
        ]
        return float(part.mean()) if part.size else 0.0
