"""What a user can do to the annotations of a slide, one frozen class each, and as plain values.

Coordinates are px of level 0, pixel-corner. ``mpp``: um per px at which the action works. An
``object`` of ``None`` is a new one, which gets ``label``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import shapely

from histoclick.annotations import Colour, Shape
from histoclick.types import HistoclickError

Point = tuple[float, float]  # x, y


@dataclass(frozen=True)
class ClickOn:
    """A click: ``positive`` inside the object, else outside it."""

    object: int | None
    x: float
    y: float
    positive: bool
    mpp: float
    label: str = ""


@dataclass(frozen=True)
class BoxAround:
    """A box around the object."""

    object: int | None
    x0: float
    y0: float
    x1: float
    y1: float
    mpp: float
    label: str = ""


@dataclass(frozen=True)
class Stroke:
    """A stroke of a round brush, or of the eraser. ``radius``: px of level 0."""

    object: int | None
    points: tuple[Point, ...]
    radius: float
    erase: bool
    mpp: float
    label: str = ""


@dataclass(frozen=True)
class Relabel:
    """Give an object another class."""

    object: int
    label: str


@dataclass(frozen=True)
class RelabelAll:
    """Give all objects of some classes other ones. ``labels``: pairs of the old and the new one,
    which are exchanged at once."""

    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Rename:
    """Give an object a name of its own."""

    object: int
    name: str


@dataclass(frozen=True)
class Tidy:
    """Of an object in several parts, keep those that somebody clicked in or painted; if there is
    none, the largest."""

    object: int


@dataclass(frozen=True)
class Delete:
    """Remove an object."""

    object: int


@dataclass(frozen=True)
class Outline:
    """An object from a file. ``shape``: of positive area, or a point or line that is only kept."""

    shape: Shape
    label: str = ""
    name: str = ""


@dataclass(frozen=True)
class Import:
    """Objects from a file."""

    outlines: tuple[Outline, ...]


@dataclass(frozen=True)
class Class:
    """A class of objects. ``key``: the key that chooses it, or ""."""

    name: str
    colour: Colour
    key: str = ""


@dataclass(frozen=True)
class SetClasses:
    """The classes from now on."""

    classes: tuple[Class, ...]


@dataclass(frozen=True)
class Undo:
    """Take back the last action of who says it."""


@dataclass(frozen=True)
class Redo:
    """Do again what was taken back last."""


Action: TypeAlias = (
    ClickOn
    | BoxAround
    | Stroke
    | Relabel
    | RelabelAll
    | Rename
    | Tidy
    | Delete
    | Import
    | SetClasses
    | Undo
    | Redo
)
Work: TypeAlias = ClickOn | BoxAround | Stroke  # on the mask of one object

KINDS: dict[str, type[Action]] = {
    "click": ClickOn,
    "box": BoxAround,
    "stroke": Stroke,
    "label": Relabel,
    "labels": RelabelAll,
    "name": Rename,
    "tidy": Tidy,
    "delete": Delete,
    "import": Import,
    "classes": SetClasses,
    "undo": Undo,
    "redo": Redo,
}
_NAMES = {kind: name for name, kind in KINDS.items()}


def to_plain(action: Action) -> dict[str, Any]:
    """An action as values that JSON knows, with its ``kind``."""
    values: dict[str, Any] = {"kind": _NAMES[type(action)]}
    if isinstance(action, Import):
        values["outlines"] = [
            {"wkb": outline.shape.wkb.hex(), "label": outline.label, "name": outline.name}
            for outline in action.outlines
        ]
        return values
    return values | dataclasses.asdict(action)


def from_plain(values: Mapping[str, Any]) -> Action:
    """The action of such values. Raises ``HistoclickError`` for anything else."""
    given = dict(values)
    kind = given.pop("kind", None)
    if kind not in KINDS:
        raise HistoclickError(f"'{kind}' is no action; there are {', '.join(KINDS)}")
    try:
        action = _made(KINDS[kind], given)
    except (TypeError, ValueError, KeyError, shapely.errors.ShapelyError) as error:
        raise HistoclickError(f"a wrong action of kind '{kind}' ({error})") from None
    if not all(math.isfinite(number) for number in _numbers(given)):
        raise HistoclickError(f"an action of kind '{kind}' with a number that is not finite")
    return action


def _made(kind: type[Action], given: dict[str, Any]) -> Action:
    if kind is Import:
        return Import(
            tuple(
                Outline(shapely.from_wkb(bytes.fromhex(each["wkb"])), each["label"], each["name"])
                for each in given["outlines"]
            )
        )
    if kind is SetClasses:
        return SetClasses(
            tuple(
                Class(each["name"], (red, green, blue), each.get("key", ""))
                for each in given["classes"]
                for red, green, blue in [each["colour"]]
            )
        )
    if kind is RelabelAll:
        return RelabelAll(tuple((str(old), str(new)) for old, new in given["labels"]))
    if kind is Stroke:
        given["points"] = tuple((float(x), float(y)) for x, y in given["points"])
    return kind(**given)


def _numbers(values: Mapping[str, Any]) -> list[float]:
    return [each for each in values.values() if isinstance(each, float)] + [
        number for point in values.get("points", ()) for number in point
    ]
