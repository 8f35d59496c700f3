"""FocalClick's network: a coarse one on the target crop, a refiner on the focus crop.

Names of modules are those of the official files. S1 and S2 have the same weights by name and shape;
S1 sees the target crop at half its size, with smaller clicks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histoclick.models.clickmaps import disks
from histoclick.models.focalclick.refiner import Refined, Refiner, resize
from histoclick.models.focalclick.roialign import roi_align
from histoclick.models.focalclick.segformer import WIDTHS as SEGFORMERS
from histoclick.models.focalclick.segformer import SegFormer
from histoclick.models.nets.hrnet import WIDTHS as HRNETS
from histoclick.models.nets.hrnet import HRNet, maps_transform
from histoclick.models.nets.normalise import Normalise

FOCUS_RADIUS = 5  # px on the focus crop


class Variant(NamedTuple):
    """What tells one published network from another. ``radius``: of clicks, px on the crop."""

    backbone: str
    halved: bool
    radius: int


VARIANTS = {
    "segformerB0_S1": Variant("B0", True, 3),
    "segformerB0_S2": Variant("B0", False, 5),
    "segformerB3_S2": Variant("B3", False, 5),
    "hrnet18s_S1": Variant("hrnet18s", True, 2),
    "hrnet18s_S2": Variant("hrnet18s", False, 5),
    "hrnet32_S2": Variant("hrnet32", False, 5),
}


MARKS = {  # a weight of each kind of backbone, and which backbone it is by its length
    "feature_extractor.backbone.norm1.weight": {32: "segformerB0", 64: "segformerB3"},
    "feature_extractor.transition1.0.1.weight": {18: "hrnet18s", 32: "hrnet32"},
}


class Coarse(NamedTuple):
    """``logits``: (B, 1, H, W), at the size of the input. ``feature``: (B, C, h, w), what they were
    made from. ``auxiliary``: (B, 1, H, W), logits for the training loss only, if there are any."""

    logits: Tensor
    feature: Tensor
    auxiliary: Tensor | None


class FocalClickNet(nn.Module):
    """Both networks. The segmenter and the training ask them one after the other."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.halved, self.radius = variant.halved, variant.radius
        self.normalise = Normalise()
        self.feature_extractor: HRNet | SegFormer
        if variant.backbone in HRNETS:
            hrnet = HRNETS[variant.backbone]
            self.feature_extractor = HRNet(hrnet)
            self.maps_transform = maps_transform()
            self.refiner = Refiner(2 * hrnet.ocr, gate=False)
        else:
            segformer = SEGFORMERS[variant.backbone]
            self.feature_extractor = SegFormer(segformer)
            # official files of the SegFormers hold it, but nothing asks it
            self.maps_transform = maps_transform(3, 2, 32).requires_grad_(False)
            self.refiner = Refiner(segformer.head, gate=True)

    def forward(self, image: Tensor, before: Tensor, points: Tensor) -> Coarse:
        """Of the target crop: ``image`` (B, 3, H, W) RGB in 0..1, the probabilities ``before`` this
        click (B, 1, H, W), and ``points`` (B, 2n, 3) on it as in ``clickmaps``."""
        size = (image.shape[2], image.shape[3])
        image = self.normalise(image)
        maps = torch.cat([before, disks(points, *size, self.radius)], 1)
        if self.halved:
            image, maps = (
                F.interpolate(each, scale_factor=0.5, mode="bilinear", align_corners=True)
                for each in (image, maps)
            )
        if isinstance(self.feature_extractor, SegFormer):
            logits, feature = self.feature_extractor(image, maps)
            return Coarse(resize(logits, size), feature, None)
        seen = self.feature_extractor(image, self.maps_transform(maps))
        return Coarse(resize(seen.logits, size), seen.feature, resize(seen.auxiliary, size))

    def refine(self, image: Tensor, points: Tensor, coarse: Coarse, boxes: Tensor) -> Refined:
        """Of the focus crop: ``image`` (B, 3, h, w) RGB in 0..1 and ``points`` on it; ``boxes``
        (B, 4) of x0, y0, x1, y1 say where it lies on what ``coarse`` was made from."""
        height, width = image.shape[2:]
        rows, columns = coarse.feature.shape[2:]
        feature = roi_align(coarse.feature, boxes, (rows, columns), columns / width)
        logits = roi_align(coarse.logits, boxes, (height, width))
        maps = disks(points, height, width, FOCUS_RADIUS)
        refined: Refined = self.refiner(image, maps, feature, logits)
        return refined


def build(architecture: str, state: Mapping[str, Tensor] | None = None) -> FocalClickNet:
    """The network called ``architecture``, float32 on the CPU; random weights without a ``state``
    (official names)."""
    net = FocalClickNet(VARIANTS[architecture])
    if state is not None:
        net.load_state_dict(state)
    return net


def expected_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Official names and shapes of every weight."""
    with torch.device("meta"):
        net = FocalClickNet(VARIANTS[architecture])
    return {name: tuple(weight.shape) for name, weight in net.state_dict().items()}


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """The backbone whose official weights ``state`` are, told by a width that differs.

    The refiner tells the files from those of other click models on the same backbones.
    """
    if "refiner.refine_trimap.weight" not in state:
        return None
    for name, widths in MARKS.items():
        if name in state:
            return widths.get(len(state[name]))
    return None
