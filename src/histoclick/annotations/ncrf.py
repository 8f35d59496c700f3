"""NCRF's JSON of CAMELYON16 outlines (read only): positive and negative polygons."""

from __future__ import annotations

from pathlib import Path

from histoclick.annotations.document import Canvas, Document
from histoclick.annotations.format import Format, Holds
from histoclick.annotations.shapes import Gathering
from histoclick.annotations.sources import has_key, is_json, read_json
from histoclick.types import HistoclickError

CLASSES = ("positive", "negative")


def recognises(path: Path, head: bytes) -> bool:
    """By the two lists."""
    return (
        is_json(head)
        and has_key(head, CLASSES[0])
        and has_key(head, "vertices") | has_key(head, CLASSES[1])
    )


def read(path: Path, canvas: Canvas | None) -> Document:
    """Negative polygons lie inside positive ones; they stay objects of a class of their own."""
    content = read_json(path)
    gathering = Gathering(path)
    for label in CLASSES:
        items = content.get(label, []) if isinstance(content, dict) else None
        if not isinstance(items, list):
            raise HistoclickError(f"{path}: no NCRF file: '{label}' is no list of polygons")
        for index, item in enumerate(items):
            where = f"{label} polygon {index + 1}"
            if not isinstance(item, dict):
                gathering.skip("no vertices", where)
                continue
            shape = gathering.polygon(item.get("vertices"), where=where)
            gathering.add(shape, label, name=str(item.get("name") or ""))
    return gathering.document()


NCRF = Format(
    name="ncrf",
    title="NCRF JSON",
    suffixes=(".json",),
    decimals=0,
    holds=frozenset({Holds.LABELS, Holds.NAMES, Holds.OBJECTS, Holds.OVERLAPS}),
    recognises=recognises,
    read=read,
)
