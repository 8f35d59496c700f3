"""The wire contract: what requests say and replies answer, as JSON under ``/api``.

Coordinates are px of level 0, pixel-corner; ``mpp`` is um per px. Requests are strict: a missing,
additional or mistyped value, or one without bounds, is refused. Errors are ``Trouble``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_POINTS = 10_000  # of a stroke
MAX_CLASSES = 100

Place = Annotated[float, Field(ge=-1e7, le=1e7)]  # px of level 0
Length = Annotated[float, Field(gt=0, le=1e7)]
Mpp = Annotated[float, Field(ge=0.01, le=1000)]
ObjectId = Annotated[int, Field(ge=1, le=2**53)]
Label = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Id = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
Channel = Annotated[int, Field(ge=0, le=255)]


class Trouble(BaseModel):
    """What went wrong, one sentence."""

    detail: str


class Request(BaseModel):
    """Of all requests."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Action(Request):
    """``id``: made by the client, so that a repeated request does nothing twice."""

    id: Id


class _Work(_Action):
    """On the mask of an object; without one, of a new one that gets ``label``."""

    object: ObjectId | None
    mpp: Mpp
    label: Label = ""


class ClickAction(_Work):
    """A click inside the object, or outside it."""

    kind: Literal["click"]
    x: Place
    y: Place
    positive: bool


class BoxAction(_Work):
    """A box around the object."""

    kind: Literal["box"]
    x0: Place
    y0: Place
    x1: Place
    y1: Place


class StrokeAction(_Work):
    """A stroke of a round brush or eraser. ``radius``: px of level 0."""

    kind: Literal["stroke"]
    points: Annotated[
        list[Annotated[list[Place], Field(min_length=2, max_length=2)]],
        Field(min_length=1, max_length=MAX_POINTS),
    ]
    radius: Annotated[float, Field(ge=0.01, le=1e7)]
    erase: bool


class LabelAction(_Action):
    """Another class for an object."""

    kind: Literal["label"]
    object: ObjectId
    label: Label


class LabelsAction(_Action):
    """Other classes for all objects of some: pairs of the old and the new one."""

    kind: Literal["labels"]
    labels: Annotated[
        list[Annotated[list[Label], Field(min_length=2, max_length=2)]],
        Field(min_length=1, max_length=MAX_CLASSES),
    ]


class NameAction(_Action):
    """A name for an object."""

    kind: Literal["name"]
    object: ObjectId
    name: Label


class TidyAction(_Action):
    """Keep the parts of an object that somebody clicked in or painted."""

    kind: Literal["tidy"]
    object: ObjectId


class DeleteAction(_Action):
    """Remove an object."""

    kind: Literal["delete"]
    object: ObjectId


class ClassIn(Request):
    """A class; ``key`` chooses it on the keyboard."""

    name: Label
    colour: Annotated[list[Channel], Field(min_length=3, max_length=3)]
    key: Annotated[str, Field(max_length=1)] = ""


class ClassesAction(_Action):
    """The classes from now on."""

    kind: Literal["classes"]
    classes: Annotated[list[ClassIn], Field(max_length=MAX_CLASSES)]


class UndoAction(_Action):
    """Take back this client's last action on this slide."""

    kind: Literal["undo"]


class RedoAction(_Action):
    """Do again what this client took back last."""

    kind: Literal["redo"]


ActionIn = Annotated[
    ClickAction
    | BoxAction
    | StrokeAction
    | LabelAction
    | LabelsAction
    | NameAction
    | TidyAction
    | DeleteAction
    | ClassesAction
    | UndoAction
    | RedoAction,
    Field(discriminator="kind"),
]


class View(Request):
    """What a client shows, and at which um/px it works."""

    x: Place
    y: Place
    width: Length
    height: Length
    mpp: Mpp


class Ready(BaseModel):
    """Whether all of the view is encoded."""

    ready: bool


class ModelInfo(BaseModel):
    """The card of the model. ``measured``: one table per patch set. ``decoder``: the SHA-256
    of the model, if browsers can have its decoder, see ``/api/decoder``."""

    id: str
    summary: str
    licence: str
    measured: list[dict[str, Any]]
    untrained: bool
    window_px: int
    boxes: bool
    decoder: str | None


class DecoderInfo(BaseModel):
    """What answers a click to an embedding. ``model``: SHA-256 of the whole model, which embeddings
    name; ``name``: its id and hash, as in the log; ``sha256``: of the graph. ``maps``: its inputs
    that are the embedding; ``stride``: of its logits. The others are the rules for these, see
    ``models.compliance``; no ``sure`` is no bound."""

    model: str
    name: str
    sha256: str
    window_px: int
    stride: int
    maps: list[str]
    comply: bool
    bump_px: float
    lower: bool
    sure: float | None


class FormatInfo(BaseModel):
    """A format in which annotations can be exported."""

    name: str
    title: str
    suffix: str


class Info(BaseModel):
    """Of the server. ``user``: who works here, if it was said."""

    version: str
    model: ModelInfo
    user: str
    formats: list[FormatInfo]


class SlideInfo(BaseModel):
    """A slide. ``objects``: on it, ``null`` while not counted. ``problem``: why it cannot be
    opened, one sentence; sizes are 0 then."""

    id: str
    name: str
    folder: str
    width: int
    height: int
    mpp: float | None
    objects: int | None
    problem: str | None


class SlideDetails(SlideInfo):
    """And how it is shown. ``bounds``: where something was scanned, x, y, width, height.
    ``unit``: um per px along x and y. ``notes``: what is surprising about it, a sentence each."""

    bounds: list[float]
    unit: list[float] | None
    tile_size: int
    overlap: int
    max_level: int
    background: str
    notes: list[str]


class ClassOut(BaseModel):
    """A class."""

    name: str
    colour: list[int]
    key: str


class MarkOut(BaseModel):
    """A click."""

    x: float
    y: float
    positive: bool


class ObjectOut(BaseModel):
    """An object. ``geometry``: GeoJSON. ``window``: where the model looked last, x, y, width,
    height. ``version``: ``seq`` of its last change."""

    id: int
    label: str
    name: str
    mpp: float | None
    version: int
    clicks: list[MarkOut]
    box: list[float] | None
    geometry: dict[str, Any] | None
    area_um2: float | None
    quality: float | None
    window: list[float] | None


class Changes(BaseModel):
    """What changed on a slide up to ``seq``. ``removed``: ids of objects that are gone."""

    seq: int
    classes: list[ClassOut]
    objects: list[ObjectOut]
    removed: list[int]
    can_undo: bool
    can_redo: bool


class Done(Changes):
    """The answer to an action. ``object``: the one that it made or changed, if it was one.
    ``seconds``: of the model, 0 where it had nothing to do; ``model``: its id and hash, if it was
    asked."""

    object: int | None
    model: str | None
    seconds: dict[str, float]


class Imported(Changes):
    """The answer to a file. ``notes``: what had to be mended or left out."""

    notes: list[str]
