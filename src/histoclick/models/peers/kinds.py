"""The architectures of the family, and what tells one from another. Pure, no torch.

SAM-HQ (Ke et al. 2023), SAM 2 and 2.1 (Ravi et al. 2024), SAM 3 (Carion et al. 2025), of which the
tracker takes the clicks, and EdgeTAM (Zhou et al. 2025).
"""

from __future__ import annotations

import math
from typing import NamedTuple

Colour = tuple[float, ...]  # red, green, blue in 0..1

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
HALF: Colour = (0.5, 0.5, 0.5)


class Kind(NamedTuple):
    """One architecture.

    ``classes``: how the names of its classes in transformers begin. ``mean`` and ``std``: of the
    training images, where the folder does not say. ``stretched``: the image fills the network's
    square input; else its proportions are kept and zeros are appended right and below. ``limit``:
    logits that are fed back stay within plus and minus this.
    """

    title: str
    classes: str
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD
    stretched: bool = True
    limit: float = 32.0
    licence: str = "Apache-2.0"


KINDS = {
    "sam_hq": Kind("SAM-HQ", "SamHQ", stretched=False, limit=math.inf),
    "sam2": Kind("SAM 2", "Sam2"),
    "sam3_tracker": Kind("SAM 3", "Sam3Tracker", HALF, HALF, licence="SAM License"),
    "edgetam": Kind("EdgeTAM", "EdgeTam"),
}
# The published folders hold the models for videos; the model for images is part of each.
VIDEO = {
    "sam2_video": "sam2",
    "sam3_video": "sam3_tracker",
    "sam3_tracker_video": "sam3_tracker",
    "edgetam_video": "edgetam",
}
