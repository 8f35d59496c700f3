"""A data set of slides on disk: which slide has which annotation, and which part is the object."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from histoclick.annotations.document import Document, Shape
from histoclick.types import HistoclickError

SLIDE_SUFFIXES = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".dcm", ".czi",
    ".btf", ".png", ".jpg", ".jpeg",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A slide and the file that outlines the object on it. ``id``: the slide's name."""

    id: str
    slide: Path
    annotation: Path


@dataclass(frozen=True)
class Layer:
    """A shape that adds to the object, or takes away from what earlier layers added."""

    shape: Shape
    adds: bool = True


class DataSet(Protocol):
    """How one data set is laid out. Instances travel to worker processes."""

    @property
    def facts(self) -> dict[str, Any]:
        """What the recipe on disk says of it: ``data_set``, and its choices."""
        ...

    @property
    def named(self) -> tuple[str, ...]:
        """Classes that the user named, which may be misspelt."""
        ...

    def cases(self, slides: Path, annotations: Path) -> tuple[list[Case], list[str]]:
        """All cases below two folders, sorted by id, and what else was seen, a sentence each.

        Raises ``HistoclickError`` when there is none.
        """
        ...

    def layers(self, document: Document) -> tuple[list[Layer], list[str]]:
        """The object of a slide, painted in this order, and notes of what was left out.

        Raises ``HistoclickError`` for annotations that are not this data set's.
        """
        ...


def files(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Files below a folder by stem, hidden ones left out.

    Raises ``HistoclickError`` for a missing folder and for two files that are the same slide.
    """
    if not folder.is_dir():
        raise HistoclickError(f"{folder}: no such folder; give the one with the files")
    wanted = tuple(suffixes)
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in wanted or path.name.startswith(".") or not path.is_file():
            continue
        stem = unicodedata.normalize("NFC", path.stem)
        if stem in found:
            raise HistoclickError(
                f"{path} and {found[stem]} have the same name, so their patches would too; rename "
                "one"
            )
        found[stem] = path
    return found


def paired(
    slides: dict[str, Path], annotations: dict[str, Path], where: Path
) -> tuple[list[Case], list[str]]:
    """The slides with an annotation of the same name; notes about the others.

    Raises ``HistoclickError`` if no name is the same. ``where``: of the slides, for that sentence.
    """
    cases = [Case(id_, slides[id_], annotations[id_]) for id_ in slides if id_ in annotations]
    if not slides:
        raise HistoclickError(f"{where}: holds no slide; give the folder with the slides")
    if not cases:
        raise HistoclickError(
            f"{where}: none of {len(slides)} slides has an annotation file of its name (of "
            f"{len(annotations)}); name them alike, as in a.svs and a.geojson"
        )
    notes = []
    if without := [id_ for id_ in slides if id_ not in annotations]:
        notes.append(f"{_some(without)}: no annotation, left out")
    if alone := [id_ for id_ in annotations if id_ not in slides]:
        notes.append(f"{_some(alone)}: annotation without slide, left out")
    return cases, notes


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
