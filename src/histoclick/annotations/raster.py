"""Masks: PNG or TIFF images whose pixel values name classes."""

from __future__ import annotations

from pathlib import Path

from histoclick.annotations.document import Canvas, Document
from histoclick.annotations.format import Format, Holds
from histoclick.types import HistoclickError

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def recognises(path: Path, head: bytes) -> bool:
    """Any PNG or TIFF: whether its pixels name classes is seen when they are read."""
    return head.startswith((PNG_MAGIC, *TIFF_MAGIC))


def read(path: Path, canvas: Canvas | None) -> Document:
    """To be written."""
    raise HistoclickError(f"{path}: masks cannot be read yet")


def write(document: Document, path: Path, canvas: Canvas | None) -> list[str]:
    """To be written."""
    raise HistoclickError(f"{path}: masks cannot be written yet")


MASK = Format(
    name="mask",
    title="Mask PNG/TIFF",
    suffixes=(".png", ".tif", ".tiff"),
    decimals=None,
    holds=frozenset({Holds.LABELS, Holds.COLOURS, Holds.HOLES}),
    recognises=recognises,
    read=read,
    write=write,
    needs_canvas=True,
)
