"""What differs between phantom slides: the disease, the laboratory and the scanner."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from histoclick.datasets.lattice import Line


@dataclass(frozen=True)
class Style:
    """What differs from block to block and from laboratory to laboratory. Lengths are um."""

    fraction: float  # of the patch that is tumour
    glandular: float  # 0 solid nests, 0.5 cribriform, 1 glands
    scale: float  # size of the nests
    nucleus: float  # half width of a tumour nucleus
    crowding: float  # distance between tumour nuclei
    basophilia: float  # haematoxylin of the tumour's cytoplasm
    lymphocytes: float  # -2 few ... 1 half of the stroma
    looseness: float  # -1.4 dense stroma ... 0.6 oedema
    fat: float  # -2.6 none ... -0.4 plenty
    retraction: float  # -3 tumour adheres to the stroma ... 0 torn off by shrinkage
    angle: float  # rad, of the fibres
    haematoxylin: Line  # (3,) RGB optical density (base e) of one unit
    eosin: Line
    lamp: Line  # (3,) RGB of empty glass
    blur: float  # px, standard deviation
    sharpening: float  # by the scanner
    grain: float  # grey levels, standard deviation

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Style:
        """A random one; ``purple`` is a laboratory's eosin, 0 orange ... 1 violet."""
        nucleus, purple = rng.uniform(3.1, 4.6), rng.uniform(0, 1)
        haematoxylin = rng.uniform(0.9, 1.2) * np.array([0.70, 0.96, 0.43 - 0.06 * purple])
        eosin = rng.uniform(0.75, 1.1) * np.array([0.13 + 0.16 * purple, 0.8, 0.4 - 0.15 * purple])
        return cls(
            fraction=rng.uniform(0.28, 0.68),
            glandular=float(rng.choice([0.0, 0.5, 1.0])),
            scale=rng.uniform(110, 190),
            nucleus=nucleus,
            crowding=nucleus * rng.uniform(2.3, 3.0),
            basophilia=rng.uniform(0.12, 0.36),
            lymphocytes=rng.uniform(-2, 1),
            looseness=rng.uniform(-1.4, 0.6),
            fat=rng.uniform(-2.6, -0.4),
            retraction=rng.uniform(-3, -0.3),
            angle=rng.uniform(0, math.pi),
            haematoxylin=haematoxylin.astype(np.float32),
            eosin=eosin.astype(np.float32),
            lamp=(rng.uniform(234, 246) + rng.uniform(-2.5, 2.5, 3)).astype(np.float32),
            blur=rng.uniform(0.45, 0.75),
            sharpening=rng.uniform(0.2, 0.8),
            grain=rng.uniform(1.5, 3.5),
        )
