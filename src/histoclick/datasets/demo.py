"""The samples of the offline tour: crypts of one real picture, and phantom histology.

The picture is ``skimage.data.immunohistochemistry()``: colonic glands, FHL2 in brown (DAB),
haematoxylin counterstain; by the Center for Microscopy and Molecular Imaging (CMMI), no known
copyright restrictions. It lies inside the scikit-image package, so nothing is downloaded. Its
pixel size is not known.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from histoclick.datasets.phantom import phantom_patch
from histoclick.types import RGB8, HistoclickError, Mask, Sample

# Corners "x,y" in pixel indices, as in an SVG polygon: drawn by hand on the enlarged picture along
# the outer border of the epithelium, so the lumen is inside.
CRYPT = """
    238,0 237,10 241,25 247,40 254,55 259,70 263,85 267,100 270,115 273,130 277,140 280,148 283,157
    286,165 289,174 291,182 294,191 297,200 303,211 309,220 315,230 320,239 327,250 334,258 343,264
    350,270 357,275 366,278 375,278 382,281 390,284 397,288 403,294 410,297 416,294 421,297 426,292
    429,285 432,279 434,270 436,260 440,250 443,240 443,230 443,221 446,212 450,203 456,195 457,185
    460,176 462,168 462,157 459,145 457,130 456,120 454,110 453,100 450,90 447,80 443,70 441,60
    436,50 433,40 431,30 429,20 427,10 423,0
"""  # the upper border of the picture cuts it off
SMALL_CRYPT = """
    284,301 278,306 273,313 269,321 269,331 262,336 255,341 250,351 249,362 250,372 251,382 252,390
    253,400 254,411 259,420 262,429 267,438 272,447 279,457 285,465 292,473 297,480 298,489 301,499
    310,503 318,501 322,499 328,505 336,509 345,510 354,507 363,503 368,494 372,485 376,476 376,466
    377,456 378,450 382,441 383,430 384,420 383,409 379,401 378,394 380,388 377,377 374,369 374,360
    371,351 363,344 355,340 349,334 341,330 335,329 330,326 329,320 321,319 314,315 306,312 301,310
    299,304 292,301
"""  # whole, with a closed lumen


def demo_samples(seed: int = 0, phantoms: int = 6) -> list[Sample]:
    """Two crypts of the real picture, then the phantom patches of seeds ``seed, seed + 1, ...``.

    The first is the picture, 512x512, with the large crypt; the second a 256x256 part of it with
    the small one. Both are of slide ``immunohistochemistry``. ``phantoms``: how many, 400x400 each.
    Raises ``HistoclickError`` for a negative number and where scikit-image is missing.
    """
    if phantoms < 0:
        raise HistoclickError(f"demo_samples got phantoms {phantoms}; give 0 or more")
    image = _immunohistochemistry()
    part = slice(256, 512), slice(188, 444)
    slide = "immunohistochemistry"
    real = [
        Sample("crypt", image, _filled(CRYPT, image), slide),
        Sample("small-crypt", image[part].copy(), _filled(SMALL_CRYPT, image)[part].copy(), slide),
    ]
    return real + [phantom_patch(seed + index) for index in range(phantoms)]


def _immunohistochemistry() -> RGB8:
    """(512, 512, 3) uint8 RGB."""
    try:
        from skimage.data import immunohistochemistry
    except ImportError as error:
        raise HistoclickError(
            "the demo's real picture comes with scikit-image, which is not installed; "
            "pip install scikit-image"
        ) from error
    return np.array(immunohistochemistry(), dtype=np.uint8)


def corners(outline: str) -> NDArray[np.int32]:
    """(N, 2) x, y of the pixels at the corners of ``outline``; the last one joins the first."""
    return np.array([pair.split(",") for pair in outline.split()], np.int32)


def _filled(outline: str, image: RGB8) -> Mask:
    """(H, W) bool of ``image``'s size, the pixels on the outline included."""
    canvas = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(canvas, [corners(outline)], 1)
    return canvas.astype(np.bool_)
