"""CAMELYON16: lymph nodes with metastases of breast cancer; slides in TIFF, outlines in ASAP XML.

Groups ``_0``, ``_1`` and ``Tumor`` are tumour, ``_2`` is normal tissue inside it. Re-publishers
renamed ``_0`` and ``_1`` to ``metastasis`` or ``tumor``. Slides without XML are normal.
(camelyon16.grand-challenge.org; Ehteshami Bejnordi et al. 2017.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapely.geometry import MultiPolygon, Polygon

from histoclick.annotations.document import Document
from histoclick.datasets.camelyon16_folder import PARTLY_ANNOTATED
from histoclick.datasets.cases import Case, Layer, files, paired
from histoclick.types import HistoclickError

TUMOUR = ("_0", "_1", "tumor", "tumour", "metastasis", "metastases")  # lower case
NORMAL = ("_2", "exclusion", "normal")


@dataclass(frozen=True)
class Camelyon16:
    """The data set as its bucket has it: ``images/*.tif`` and ``annotations/*.xml``."""

    @property
    def facts(self) -> dict[str, Any]:
        """As the recipe holds it."""
        return {"data_set": "camelyon16"}

    @property
    def named(self) -> tuple[str, ...]:
        """None: the data set's own are known."""
        return ()

    def cases(self, slides: Path, annotations: Path) -> tuple[list[Case], list[str]]:
        """See ``DataSet``; mask files beside the slides are no slides."""
        pictures = files(slides, (".tif", ".tiff"))
        slides_only = {id_: path for id_, path in pictures.items() if not id_.endswith("_mask")}
        cases, notes = paired(slides_only, files(annotations, (".xml",)), slides)
        if partly := [case.id for case in cases if case.id in PARTLY_ANNOTATED]:
            notes.append(
                f"{', '.join(partly)}: not fully annotated, as the data set's README says; patches "
                "beside their outlines may hold tumour that nobody outlined"
            )
        return cases, notes

    def layers(self, document: Document) -> tuple[list[Layer], list[str]]:
        """All tumour first, then all normal tissue inside it, whatever the order of the file."""
        tumour, normal, other = [], [], []
        for annotation in document.annotations:
            group = annotation.label.lower()
            if not isinstance(annotation.shape, Polygon | MultiPolygon):
                other.append("a point or a line")
            elif group in TUMOUR:
                tumour.append(Layer(annotation.shape))
            elif group in NORMAL:
                normal.append(Layer(annotation.shape, adds=False))
            else:
                other.append(f"group '{annotation.label}'" if group else "no group")
        if not tumour:
            there = ", ".join(dict.fromkeys(other)) or "no outline"
            raise HistoclickError(
                f"no tumour in groups _0, _1 or Tumor (it holds {there}); for other classes use: "
                "histoclick prepare folder --label CLASS"
            )
        notes = [f"left out: {what}, {other.count(what)} times" for what in dict.fromkeys(other)]
        return tumour + normal, notes
