"""What every family checks about an image and a prompt before it looks at them."""

from __future__ import annotations

import numpy as np

from histoclick.types import RGB8, Prediction, Prompt


def check_image(image: RGB8) -> None:
    """Raise ``ValueError`` for anything but (H, W, 3) uint8: floats would give a wrong mask."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"an image of shape {image.shape} and type {image.dtype}; give (H, W, 3) uint8 RGB"
        )


def check_prompt(prompt: Prompt, shape: tuple[int, int], *, boxes: bool) -> None:
    """Raise ``ValueError`` for a prompt that says nothing or points outside an image of ``shape``.

    ``shape``: (height, width). ``boxes``: whether this family understands them.
    """
    height, width = shape
    if prompt.box is not None and not boxes:
        raise ValueError("this model takes clicks only; leave the box out")
    if not prompt.clicks and prompt.box is None:
        raise ValueError("the prompt holds no click and no box; give at least one")
    for click in prompt.clicks:
        if not (-0.5 <= click.x <= width - 0.5 and -0.5 <= click.y <= height - 0.5):
            raise ValueError(
                f"click ({click.x:g}, {click.y:g}) lies outside the image of {width}x{height} px"
            )


def check_previous(previous: Prediction, shape: tuple[int, int]) -> None:
    """Raise ``ValueError`` for an answer about an image of another ``shape`` (height, width)."""
    if previous.logits.shape != shape:
        raise ValueError(
            f"the previous mask is {previous.logits.shape} and the image {shape}; give a mask of "
            "the image's size"
        )
