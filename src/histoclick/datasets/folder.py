"""Any laboratory's own slides: annotation files of any format, named as the slides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapely.geometry import MultiPolygon, Polygon

from histoclick.annotations.document import Document
from histoclick.datasets.cases import SLIDE_SUFFIXES, Case, Layer, files, paired

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

    @property
    def named(self) -> tuple[str, ...]:
        """All that were asked for."""
        return self.labels + self.holes

    def cases(self, slides: Path, annotations: Path) -> tuple[list[Case], list[str]]:
        """See ``DataSet``. In one folder for both, pictures and TIFFs are slides. Of several
        annotation files with one name, the first kind of ``ANNOTATION_SUFFIXES`` is taken."""
        same = slides.resolve() == annotations.resolve()
        outlines: dict[str, Path] = {}
        twice = []
        for suffix in ANNOTATION_SUFFIXES:
            if same and suffix in SLIDE_SUFFIXES:
                continue
            for name, path in files(annotations, (suffix,)).items():
                stem = name.removesuffix(".geojson").removesuffix(".json")
                if stem in outlines:
                    twice.append(f"{path.name}: {outlines[stem].name} is taken instead")
                else:
                    outlines[stem] = path
        cases, notes = paired(files(slides, SLIDE_SUFFIXES), outlines, slides)
        return cases, notes + twice

    def layers(self, document: Document) -> tuple[list[Layer], list[str]]:
        """Everything of the wanted classes, then everything of the holes' classes cut out."""
        areas = [
            annotation
            for annotation in document.annotations
            if isinstance(annotation.shape, Polygon | MultiPolygon)
        ]
        known = {annotation.label for annotation in areas}
        wanted = set(self.labels) or known - set(self.holes)
        if not wanted & known:
            there = ", ".join(sorted(label or "(no class)" for label in known)) or "no outline"
            return [], [f"no object of the wanted classes (there is {there}), so no patches"]
        layers = [Layer(a.shape) for a in areas if a.label in wanted]
        return layers + [Layer(a.shape, adds=False) for a in areas if a.label in self.holes], []
