"""Small slides with annotations in the manner of the public data sets, made when a test runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray

from histoclick.pyramids import write_pyramid

Ring = Sequence[tuple[float, float]]

# Px of level 0, 0.25 um each, on a slide of 3200x2400: two lesions, one with a hole.
LARGE = [(310.5, 220), (1900, 180.25), (2210, 1000), (1500, 1790), (420, 1610)]
HOLE = [(900, 700), (1300, 720), (1250, 1100), (880, 1050)]
SMALL = [(2300, 1500), (2900, 1450), (2950, 2100), (2400, 2180)]


@lru_cache(maxsize=8)
def tissue(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """(height, width, 3) uint8: pink, with details of 4 and of 40 px, the last tenth glass."""
    rng = np.random.default_rng(seed)
    fine, coarse = (
        cv2.resize(
            rng.random((-(-height // cell), -(-width // cell), 3)).astype(np.float32),
            (width, height),
        )
        for cell in (4, 40)
    )
    picture = np.array([200, 120, 170]) + 60 * (fine - 0.5) + 60 * (coarse - 0.5)
    picture[:, width * 9 // 10 :] = 243
    return np.clip(picture, 0, 255).astype(np.uint8)


def make_slide(
    path: Path, seed: int = 0, mpp: float | None = 0.25, width: int = 3200, height: int = 2400
) -> NDArray[np.uint8]:
    """Write a pyramid without losses; returns level 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_pyramid(seed, mpp, width, height))
    return tissue(width, height, seed)


@lru_cache(maxsize=8)
def _pyramid(seed: int, mpp: float | None, width: int, height: int) -> bytes:
    """Made once: most tests look at the same slides."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        pixels = tissue(width, height, seed)
        write_pyramid(path, width, height, [pixels], mpp=mpp, compression="deflate")
        return path.read_bytes()


def asap(path: Path, *outlines: tuple[str, Ring]) -> None:
    """Write ASAP XML: (group, corners) of each outline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = "".join(
        f'<Annotation Name="{i}" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>'
        + "".join(f'<Coordinate Order="{k}" X="{x}" Y="{y}"/>' for k, (x, y) in enumerate(ring))
        + "</Coordinates></Annotation>"
        for i, (group, ring) in enumerate(outlines)
    )
    groups = "".join(
        f'<Group Name="{group}" PartOfGroup="None" Color="#64FE2E"><Attributes/></Group>'
        for group in dict.fromkeys(group for group, _ in outlines)
    )
    path.write_text(
        f"<ASAP_Annotations><Annotations>{shapes}</Annotations>"
        f"<AnnotationGroups>{groups}</AnnotationGroups></ASAP_Annotations>"
    )


def aperio(path: Path, *layers: Sequence[tuple[bool, Ring]]) -> None:
    """Write Aperio XML with nameless layers 1, 2, ...: (negative, corners) of each region."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(
        f'<Annotation Id="{id_}" Name="" LineColor="65535"><Attributes/><Regions>'
        + "".join(
            f'<Region Id="{k}" Type="0" NegativeROA="{int(negative)}"><Vertices>'
            + "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in ring)
            + "</Vertices></Region>"
            for k, (negative, ring) in enumerate(regions, start=1)
        )
        + "</Regions></Annotation>"
        for id_, regions in enumerate(layers, start=1)
    )
    path.write_text(f'<Annotations MicronsPerPixel="0.5">{text}</Annotations>')


def camelyon(folder: Path, slides: int = 1) -> tuple[Path, Path]:
    """``folder/images/tumor_001.tif`` ... and ``folder/annotations/tumor_001.xml`` ..."""
    images, annotations = folder / "images", folder / "annotations"
    for number in range(1, slides + 1):
        make_slide(images / f"tumor_{number:03d}.tif", seed=number)
        asap(
            annotations / f"tumor_{number:03d}.xml",
            ("_0", LARGE), ("_1", SMALL), ("_2", HOLE),
        )  # fmt: skip
    return images, annotations
