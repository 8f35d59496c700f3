"""Make the docs' picture of a phantom slide: all of it with its truth, and two places magnified."""

from pathlib import Path

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from histoclick.datasets.slidephantom import PhantomSlide

SEED, WIDTH, HEIGHT, MPP = 1, 14_000, 11_200, 0.25
SIDE = 436  # px, of the magnified places
GAP = 8
TRUTH, FRAME = (255, 210, 0), (20, 20, 20)

slide = PhantomSlide(SEED, WIDTH, HEIGHT, MPP)
picture = np.concatenate(list(slide.bands()))
lesion = slide.truth.annotations[0].shape
hole = shapely.Polygon(max(lesion.interiors, key=lambda ring: shapely.Polygon(ring).area))
edge = hole.exterior.coords[0]


def magnified(x: float, y: float, downsample: int) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """A view around (x, y) with its truth, and its box, px of level 0."""
    reach = SIDE * downsample // 2
    x0 = int(np.clip(x - reach, 0, WIDTH - 2 * reach))
    y0 = int(np.clip(y - reach, 0, HEIGHT - 2 * reach))
    view = picture[y0 : y0 + 2 * reach, x0 : x0 + 2 * reach]
    view = cv2.resize(view, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return outlined(view, x0, y0, downsample), (x0, y0, x0 + 2 * reach, y0 + 2 * reach)


def outlined(view: NDArray[np.uint8], x0: int, y0: int, downsample: float) -> NDArray[np.uint8]:
    """With the tumour's outlines."""
    rings = [
        np.rint((shapely.get_coordinates(ring) - (x0, y0)) / downsample * 16).astype(np.int32)
        for annotation in slide.truth.annotations
        for ring in (annotation.shape.exterior, *annotation.shape.interiors)
    ]
    cv2.polylines(
        view, rings, isClosed=True, color=TRUTH, thickness=2, lineType=cv2.LINE_AA, shift=4
    )
    return view


far, far_box = magnified(*hole.centroid.coords[0], 4)
near, near_box = magnified(*edge, 1)
height = 2 * SIDE + GAP
downsample = HEIGHT / height
whole = cv2.resize(picture, (round(WIDTH / downsample), height), interpolation=cv2.INTER_AREA)
whole = outlined(whole, 0, 0, downsample)
for box in (far_box, near_box):
    corners = [round(side / downsample) for side in box]
    cv2.rectangle(whole, corners[:2], corners[2:], FRAME, 2)
white = np.full((GAP, SIDE, 3), 255, np.uint8)
places = np.concatenate([far, white, near])
page = np.concatenate([whole, np.full((height, GAP, 3), 255, np.uint8), places], axis=1)
file = Path(__file__).with_name("slide.jpg")
cv2.imwrite(str(file), page[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
