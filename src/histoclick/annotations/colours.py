"""Colours of classes, in the many ways files write them."""

from __future__ import annotations

import re
import zlib
from typing import Any

from histoclick.annotations.document import Colour, Document

# What QuPath gives to classes of these names, so that a class has one colour everywhere.
KNOWN: dict[str, Colour] = {
    "tumor": (200, 0, 0),
    "tumour": (200, 0, 0),
    "stroma": (150, 200, 150),
    "immune cells": (160, 90, 160),
    "necrosis": (50, 50, 50),
    "other": (255, 200, 0),
    "region*": (0, 0, 180),
    "ignore*": (180, 180, 180),
}
# Far apart from each other and from haematoxylin and eosin.
PALETTE: tuple[Colour, ...] = (
    (0, 130, 60), (0, 120, 200), (255, 140, 0), (0, 170, 170), (240, 220, 0), (130, 60, 0),
    (0, 60, 120), (120, 200, 0), (230, 60, 60), (90, 90, 90),
)  # fmt: skip


def default(label: str) -> Colour:
    """The colour of a class whose file gives it none; the same on every machine."""
    name = label.lower()
    return KNOWN.get(name, PALETTE[zlib.crc32(name.encode()) % len(PALETTE)])


def of_classes(document: Document) -> tuple[dict[str, Colour], list[str]]:
    """(class to colour, losses), for formats with one colour a class: that of its first object."""
    found: dict[str, Colour] = {}
    others = 0
    for annotation in document.annotations:
        if annotation.colour is not None:
            first = found.setdefault(annotation.label, annotation.colour)
            others += first != annotation.colour
    losses = [f"objects with another colour than their class, written in its colour: {others}"]
    by_label = {label: found.get(label, default(label)) for label in document.labels}
    return by_label, losses if others else []


def parsed(value: Any) -> Colour | None:
    """From ``[r, g, b]``, ``#rrggbb``, ``rgb(r, g, b)`` or Java's packed ARGB; else ``None``."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return _checked([value >> shift & 255 for shift in (16, 8, 0)])
    if isinstance(value, list):
        return _checked(value[:3])
    if not isinstance(value, str):
        return None
    if hexes := re.fullmatch(r"\s*#([0-9a-fA-F]{6})(?:[0-9a-fA-F]{2})?\s*", value):
        return parsed(int(hexes[1], 16))
    if short := re.fullmatch(r"\s*#([0-9a-fA-F]{3})\s*", value):
        return _checked([17 * int(digit, 16) for digit in short[1]])
    if numbers := re.fullmatch(r"\s*rgba?\(\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+).*\)\s*", value):
        return _checked([int(number[:4]) for number in numbers.groups()])
    return None


def from_bgr(value: int) -> Colour:
    """From blue * 65536 + green * 256 + red, as ImageScope has it."""
    return value & 255, value >> 8 & 255, value >> 16 & 255


def to_bgr(colour: Colour) -> int:
    """The inverse of ``from_bgr``."""
    red, green, blue = colour
    return blue << 16 | green << 8 | red


def to_hex(colour: Colour) -> str:
    """As ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _checked(values: list[Any]) -> Colour | None:
    if len(values) != 3 or not all(type(v) is int and 0 <= v <= 255 for v in values):
        return None
    red, green, blue = values
    return red, green, blue
