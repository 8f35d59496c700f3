"""PAIP2019: liver cancer; slides in SVS, outlines in Aperio XML, masks in TIFF.

A case is ``01_01_0083.svs``, ``.xml``, ``_whole.tif`` and ``_viable.tif``. In the XML, layer 1 is
the whole tumour, layer 2 the viable tumour; regions with NegativeROA of any layer are cut out of
the viable tumour. The challenge and the paper segment that. (paip2019.grand-challenge.org.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapely.geometry import MultiPolygon, Polygon

from histoclick.annotations.document import Document
from histoclick.datasets.cases import Case, Layer, files, paired
from histoclick.types import HistoclickError

TARGETS = ("viable", "whole")
OUTLINES = ("xml", "tif")
LAYER = {"whole": "1", "viable": "2"}


@dataclass(frozen=True)
class Paip2019:
    """``target``: viable or whole tumour. ``outlines``: from the XML, or from the TIFF masks."""

    target: str = "viable"
    outlines: str = "xml"

    def __post_init__(self) -> None:
        for value, known, option in (
            (self.target, TARGETS, "--target"),
            (self.outlines, OUTLINES, "--outlines"),
        ):
            if value not in known:
                raise HistoclickError(f"{option} {value}: give one of {', '.join(known)}")

    @property
    def facts(self) -> dict[str, Any]:
        """As the recipe holds it."""
        return {"data_set": "paip2019", "target": self.target, "outlines": self.outlines}

    @property
    def named(self) -> tuple[str, ...]:
        """None: the data set's own are known."""
        return ()

    def cases(self, slides: Path, annotations: Path) -> tuple[list[Case], list[str]]:
        """See ``DataSet``."""
        if self.outlines == "xml":
            outlines = files(annotations, (".xml",))
        else:
            ending = f"_{self.target}"
            masks = files(annotations, (".tif", ".tiff"))
            outlines = {
                id_.removesuffix(ending): path
                for id_, path in masks.items()
                if id_.endswith(ending)
            }
        return paired(files(slides, (".svs",)), outlines, slides)

    def layers(self, document: Document) -> tuple[list[Layer], list[str]]:
        """The target's layer, and for viable tumour the holes of every layer cut out, as the
        organisers do."""
        areas = [
            annotation
            for annotation in document.annotations
            if isinstance(annotation.shape, Polygon | MultiPolygon)
        ]
        if self.outlines == "tif":
            return [Layer(annotation.shape) for annotation in areas], []
        target = [a for a in areas if _is_layer(a.label, self.target)]
        if not target:
            there = ", ".join(sorted({f"'{a.label}'" for a in areas})) or "no outline"
            raise HistoclickError(
                f"no layer {LAYER[self.target]} ({self.target} tumour): the file holds {there}; "
                "for other layers use: histoclick prepare folder --label LAYER"
            )
        if self.target == "whole":
            return [Layer(a.shape) for a in target], []
        parts = [p for a in areas for p in getattr(a.shape, "geoms", [a.shape])]
        holes = [Polygon(ring) for part in parts for ring in part.interiors]
        return [Layer(a.shape) for a in target] + [Layer(hole, adds=False) for hole in holes], []


def _is_layer(label: str, target: str) -> bool:
    """Layers have no name in the files of the challenge; some people gave them one."""
    return label == LAYER[target] or target in label.lower()
