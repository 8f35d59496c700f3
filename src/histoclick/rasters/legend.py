"""What the values of a label image mean, as a text that travels inside the file.

JSON in ASCII: ``{"classes": {"1": {"name": "tumour", "colour": [200, 0, 0]}}, "mpp": 0.25}``. It is
the ImageDescription of a TIFF, and a tEXt chunk with the keyword "histoclick" of a PNG.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TEXT_BYTES = 2**22  # room for 65535 classes

Colour = tuple[int, int, int]  # RGB, 0..255


@dataclass(frozen=True)
class LabelClass:
    """A class. ``name``: ``None`` if the file does not say it."""

    name: str | None = None
    colour: Colour | None = None


@dataclass(frozen=True)
class Legend:
    """The meaning of values, by value, and um per px, as far as the file says it."""

    classes: Mapping[int, LabelClass] = field(default_factory=dict)
    mpp: float | None = None

    def text(self) -> str:
        """As it lies in a file."""
        classes = {}
        for value, one in self.classes.items():
            classes[str(value)] = {"name": one.name, "colour": one.colour}
        return json.dumps({"classes": classes, "mpp": self.mpp})

    @classmethod
    def of(cls, text: object) -> Legend:
        """The legend in a text; an empty one for all other texts that files carry."""
        if not isinstance(text, str) or len(text) > TEXT_BYTES or '"classes"' not in text[:20]:
            return cls()
        try:
            found = json.loads(text)
            classes = {int(v): _label_class(one) for v, one in found["classes"].items()}
            mpp = float(found.get("mpp") or 0)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError):
            return cls()
        return cls(classes, mpp if 0 < mpp < math.inf else None)

    @classmethod
    def of_palette(cls, colours: list[list[int]]) -> Legend:
        """Colours without names, the first one that of value 0."""
        return cls({value: LabelClass(None, _colour(c)) for value, c in enumerate(colours)})


def _label_class(said: dict[str, Any]) -> LabelClass:
    name, colour = said.get("name"), said.get("colour")
    return LabelClass(
        None if name is None else str(name), None if colour is None else _colour(colour)
    )


def _colour(said: list[Any]) -> Colour:
    red, green, blue = (min(max(int(part), 0), 255) for part in said)
    return red, green, blue
