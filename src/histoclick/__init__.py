"""histoclick: interactive segmentation for histopathology.

>>> segmenter = histoclick.load("histoclick-small")
>>> encoded = segmenter.encode(image)  # (H, W, 3) uint8 RGB, once per image
>>> prediction = segmenter.predict(encoded, Prompt(clicks=[Click(x=120, y=80)]))
>>> prediction.mask  # (H, W) bool
"""

from typing import TYPE_CHECKING, Any

from histoclick.types import Box, Click, HistoclickError, Prediction, Prompt, Sample, Segmenter

if TYPE_CHECKING:
    from histoclick.models.registry import load

__version__ = "0.1.0"
__all__ = [
    "Box", "Click", "HistoclickError", "Prediction", "Prompt", "Sample", "Segmenter",
    "__version__", "load",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """``load`` on first use: the registry is not needed to talk about clicks."""
    if name == "load":
        from histoclick.models.registry import load

        return load
    raise AttributeError(f"module 'histoclick' has no attribute '{name}'")
