"""DICOM segmentations of slides: a mask per class, in tiles (extra `histoclick[dicom]`)."""

from __future__ import annotations

from pathlib import Path

from histoclick.annotations.document import Canvas, Document
from histoclick.annotations.format import Format, Holds
from histoclick.types import HistoclickError


def recognises(path: Path, head: bytes) -> bool:
    """Any DICOM file: slides are DICOM too, and told apart when they are read."""
    return head[128:132] == b"DICM"


def read(path: Path, canvas: Canvas | None) -> Document:
    """To be written."""
    raise HistoclickError(f"{path}: DICOM segmentations cannot be read yet")


def write(document: Document, path: Path, canvas: Canvas | None) -> list[str]:
    """To be written."""
    raise HistoclickError(f"{path}: DICOM segmentations cannot be written yet")


DICOM_SEG = Format(
    name="dicom-seg",
    title="DICOM SEG",
    suffixes=(".dcm",),
    decimals=None,
    holds=frozenset({Holds.LABELS, Holds.COLOURS, Holds.HOLES}),
    recognises=recognises,
    read=read,
    write=write,
    needs_canvas=True,
)
