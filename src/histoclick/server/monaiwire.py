"""What MONAI Label's clients say to a server, and the sentences that they get for what is not here.

Fields that mean nothing here (tile sizes, workers, tokens of an archive) are ignored.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from histoclick.geometry import Rect
from histoclick.types import HistoclickError

T = TypeVar("T", bound=BaseModel)
Output = Literal["asap", "dsa", "json"]
Number = Annotated[float, Field(ge=-1e9, le=1e9)]
Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]
Point = Annotated[list[Number], Field(min_length=2, max_length=4)]  # x, y; others are of volumes
Points = Annotated[list[Point], Field(max_length=10_000)]
ImageName = Annotated[str, Query(max_length=300)]

NO_POINTS = (
    "give at least one foreground point inside of the rectangle (in QuPath points of the class "
    'Positive; in the Digital Slide Archive extra parameters such as {"foreground": [[x, y]]})'
)
NOT_HERE = {
    "train": "histoclick trains with the command histoclick train, not through this interface",
    "learn": "histoclick does not choose slides for you; open one and click",
    "store": "histoclick takes in no files here; put slides into the folder that it serves, and "
    "export annotations from QuPath as GeoJSON, which histoclick convert and its page can read",
    "session": "histoclick keeps no sessions for MONAI Label's clients; send the picture or name "
    "a slide that is served",
    "volume": "histoclick segments pictures and slides, not volumes; ask for image, json or all",
}


class Clicks(BaseModel):
    """What was clicked on, px: of level 0, or of the picture that is sent."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    foreground: Points = []
    background: Points = []


class Wsi(BaseModel):
    """A region, px of level 0. ``size``: of 0 means all. ``min_poly_area``: px of level 0; smaller
    outlines are left out."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    level: int | None = 0
    location: Pair | None = None
    size: Pair | None = None
    min_poly_area: Annotated[float, Field(ge=0, le=1e12)] | None = 30
    output: Output | None = None
    params: Clicks | None = None

    def rect0(self, left: int, top: int) -> Rect | None:
        """The region in px of level 0, if the client counts from (``left``, ``top``); ``None`` for
        all of the slide, for which the archive says -1."""
        if self.size is None or not all(side >= 1 for side in self.size):
            return None
        x, y = self.location or (0.0, 0.0)
        return Rect(x + left, y + top, self.size[0], self.size[1])

    def wants(self, area: float) -> bool:
        """Whether an outline of this area (px of level 0) is large enough."""
        return area >= (self.min_poly_area or 0)


def parsed(kind: type[T], text: str, field: str) -> T:
    """A form field that holds JSON. Raises ``HistoclickError`` for other text."""
    try:
        return kind.model_validate_json(text or "{}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (field, *first["loc"])))
        raise HistoclickError(f"{where}: {first['msg']}") from None
