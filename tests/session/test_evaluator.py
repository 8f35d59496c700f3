"""A simulated user who clicks in a session is the one of the evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import immunohistochemistry

from histoclick.geometry import Rect
from histoclick.masks import rasterise
from histoclick.models import registry
from histoclick.session import Book, ClickOn
from histoclick.slides import open_slide
from histoclick.trajectory import trajectory
from histoclick.types import Sample
from session.sights import Reading


@pytest.mark.parametrize("model", ["histoclick-tiny", "grabcut"])
def test_the_same_clicks_give_the_same_masks(tmp_path: Path, model: str) -> None:
    image = np.ascontiguousarray(immunohistochemistry()[:400, :400])
    Image.fromarray(image).save(tmp_path / "patch.png")
    brown = image[..., 2].astype(int) < image[..., 0].astype(int) - 30
    segmenter = registry.load(model)
    sample = Sample("patch", image, brown, "patch")
    with open_slide(tmp_path / "patch.png") as slide:
        book, sight = Book(slide), Reading(slide, segmenter)
        for number, step in enumerate(trajectory(segmenter, sample, 8)):
            click = step.click
            action = ClickOn(
                1 if number else None, click.x + 0.5, click.y + 0.5, click.positive, 1.0, "Tumor"
            )
            event = book.propose(action, id_=str(number), client="", user="", time=0, sight=sight)
            book.apply(event)
            shape = book.objects[1].shape
            mask = (
                rasterise(shape, Rect(0, 0, 400, 400), 400, 400) if shape else np.zeros_like(brown)
            )
            assert (mask == step.prediction.mask).all()
