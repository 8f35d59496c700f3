"""Any laboratory's own slides: annotation files of any format, named as the slides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapely.geometry import MultiPolygon, Polygon

from histoclick.annotations.document import Document
from histoclick.datasets.cases import SLIDE_SUFFIXES, Case, Layer, files, paired
from histoclick.types import HistoclickError

ANNOTATION_SUFFIXES = (".geojson", ".json", ".gz", ".xml", ".tif", ".tiff", ".png", ".dcm")


@dataclass(frozen=True)
class Folder:
    """Slides and annotations of the same name. ``labels``: classes that are the object; all
    classes if there is none here. ``holes``: classes that are cut out of it."""

    labels: tuple[str, ...] = ()
    holes: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """As the recipe holds it."""
        return {"data_set": "folder", "labels": list(self.labels), "holes": list(self.holes)}

    def cases(self, slides: Path, annotations: Path) -> tuple[list[Case], list[str]]:
        """See ``DataSet``. In one folder for both, pictures and TIFFs are slides."""
        same = slides.resolve() == annotations.resolve()
        suffixes = [s for s in ANNOTATION_SUFFIXES if not (same and s in SLIDE_SUFFIXES)]
        outlines = {
            name.removesuffix(".geojson").removesuffix(".json"): path
            for name, path in files(annotations, suffixes).items()
        }
        return paired(files(slides, SLIDE_SUFFIXES), outlines, slides)

    def layers(self, document: Document) -> tuple[list[Layer], list[str]]:
        """Everything of the wanted classes, then everything of the holes' classes cut out."""
        areas = [
            annotation
            for annotation in document.annotations
            if isinstance(annotation.shape, Polygon | MultiPolygon)
        ]
        known = {annotation.label for annotation in areas}
        wanted = set(self.labels) or known - set(self.holes)
        if self.labels and not wanted & known:
            there = ", ".join(sorted(label or "(no class)" for label in known)) or "no area"
            raise HistoclickError(
                f"no object of class {', '.join(self.labels)}: the annotations hold {there}; name "
                "one of these with --label"
            )
        layers = [Layer(a.shape) for a in areas if a.label in wanted]
        return layers + [Layer(a.shape, adds=False) for a in areas if a.label in self.holes], []
