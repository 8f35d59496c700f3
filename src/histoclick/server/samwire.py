"""What QuPath's SAM extension says to a server, as it says it (samapi 0.7).

Coordinates are px of the picture that is sent. Fields that QuPath leaves empty are not in its
requests, and what it says besides is ignored.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

# The extension has a fixed list of names, and cannot do without weights for the one that is chosen.
TYPES = (
    "vit_h", "vit_l", "vit_b", "vit_t", "sam2_l", "sam2_bp", "sam2_s", "sam2_t", "sam3",
)  # fmt: skip

MAX_POINTS = 10_000  # of which most lie outside, as all background points of a slide are sent
MAX_BASE64 = 67_000_000

Number = Annotated[float, Field(ge=-1e9, le=1e9)]
Name = Annotated[str, Field(max_length=64)]
Text = Annotated[str, Field(max_length=2000)]
Four = Annotated[list[Number], Field(min_length=4, max_length=4)]
Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Base64 = Annotated[str, Field(max_length=MAX_BASE64)]


class Body(BaseModel):
    """Of all requests. ``b64img``: a PNG. ``checkpoint_url``: of the weights that were chosen."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    type: Name
    b64img: Base64
    checkpoint_url: Text | None = None


class PromptBody(Body):
    """One object. ``bbox``: x1, y1, x2, y2. ``point_labels``: 1 for points of the object, 0 for
    points of the background. ``multimask_output``: whether to reply several masks."""

    bbox: Four | None = None
    point_coords: Annotated[list[Pair], Field(max_length=MAX_POINTS)] | None = None
    point_labels: Annotated[list[int], Field(max_length=MAX_POINTS)] | None = None
    multimask_output: bool = False


class AutomaskBody(Body):
    """All objects of a picture, see ``automask``."""

    points_per_side: Annotated[int, Field(ge=1, le=128)] = 16
    points_per_batch: int = 64
    pred_iou_thresh: Share = 0.88
    stability_score_thresh: Share = 0.95
    stability_score_offset: Annotated[float, Field(ge=0, le=100)] = 1.0
    box_nms_thresh: Share = 0.2
    crop_n_layers: Annotated[int, Field(ge=0, le=4)] = 0
    crop_nms_thresh: Share = 0.7
    crop_overlap_ratio: Share = 512 / 1500
    crop_n_points_downscale_factor: Annotated[int, Field(ge=1, le=16)] = 1
    min_mask_region_area: Annotated[int, Field(ge=0, le=10**9)] = 0
    output_type: Name = "Single mask"
    include_image_edge: bool = False


class ConceptBody(Body):
    """What SAM 3 is asked. Boxes are x, y, width, height."""

    text_prompt: Text | None = None
    positive_bboxes: Annotated[list[Four], Field(max_length=100)] | None = None
    negative_bboxes: Annotated[list[Four], Field(max_length=100)] | None = None
    confidence_threshold: Share = 0.0


class Weights(BaseModel):
    """Weights of a model; ``url`` comes back as ``checkpoint_url``."""

    type: Name
    name: Text
    url: Text


class Progress(BaseModel):
    """Of a download. ``percent``: -1 if not known."""

    message: str | None
    percent: int


class Feature(BaseModel):
    """GeoJSON."""

    type: str
    geometry: dict[str, Any]
    properties: dict[str, Any]
