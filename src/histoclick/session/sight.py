"""What an annotation session needs of a model and a slide."""

from __future__ import annotations

from typing import Any, Protocol

from histoclick.geometry import Rect
from histoclick.types import Prediction, Prompt


class Sight(Protocol):
    """A model that looks at one slide.

    ``window_px``: side of what it looks at, at working resolution. ``model``: id and hash, for the
    log. ``boxes``: whether it understands boxes.
    """

    @property
    def window_px(self) -> int: ...  # noqa: D102

    @property
    def model(self) -> str: ...  # noqa: D102

    @property
    def boxes(self) -> bool: ...  # noqa: D102

    def encode(self, rect0: Rect, width: int, height: int) -> Any:
        """The embedding of ``rect0`` (px of level 0) at ``width`` x ``height`` px."""
        ...

    def predict(self, encoded: Any, prompt: Prompt, previous: Prediction | None) -> Prediction:
        """See ``Segmenter.predict``."""
        ...
