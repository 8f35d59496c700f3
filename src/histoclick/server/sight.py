"""The model's view of one slide: pictures from the library, answers from the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from histoclick.geometry import Rect
from histoclick.server.engine import Engine
from histoclick.server.library import Entry, Library
from histoclick.types import RGB8, HistoclickError, Prediction, Prompt


@dataclass(frozen=True)
class Sight:
    """The model's view of one slide: see ``histoclick.session.Sight``."""

    engine: Engine
    library: Library
    entry: Entry

    @property
    def window_px(self) -> int:
        """Side of the model's window, working px."""
        return self.engine.window_px

    @property
    def model(self) -> str:
        """Id and hash."""
        return self.engine.model

    @property
    def boxes(self) -> bool:
        """Whether the model understands boxes."""
        return self.engine.boxes

    def encode(self, rect0: Rect, width: int, height: int) -> Any:
        """The embedding of ``rect0`` (px of level 0) at ``width`` x ``height`` px."""
        return self.engine.embedding(
            self.key(rect0, width, height), lambda: self.picture(rect0, width, height)
        )

    def predict(self, encoded: Any, prompt: Prompt, previous: Prediction | None) -> Prediction:
        """See ``Segmenter.predict``; raises ``HistoclickError`` for what this model cannot do."""
        try:
            return self.engine.predict(encoded, prompt, previous)
        except ValueError as error:
            raise HistoclickError(str(error)) from None

    def key(self, rect0: Rect, width: int, height: int) -> str:
        """The name of an embedding."""
        place = f"{rect0.x0!r},{rect0.y0!r},{rect0.width!r},{rect0.height!r}"
        return f"{self.entry.key}/{place}/{width}x{height}"

    def picture(self, rect0: Rect, width: int, height: int) -> RGB8:
        """(``height``, ``width``, 3) uint8 RGB of ``rect0``."""
        with self.library.open(self.entry.id) as slide:
            return slide.read(rect0, width, height)
