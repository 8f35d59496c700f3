"""Clicks in the browser do what the evaluation says they do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage

from browsing import Viewer
from histoclick.metrics import iou
from histoclick.models import registry
from histoclick.trajectory import trajectory
from histoclick.types import Sample
from live import Annotator

CLICKS = 8
SCALE = 8.0  # screen px per px of the patch: centres of pixels lie on whole screen px


@pytest.fixture
def patch() -> Sample:
    """Brown stain in a colon, 400 px; the truth is where it is brown."""
    image = np.ascontiguousarray(skimage.data.immunohistochemistry()[:400, :400])
    red, blue = (cv2.GaussianBlur(image[..., c].astype(np.float32), (0, 0), 4) for c in (0, 2))
    brown = (red - blue > 18).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(brown)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return Sample("colon", image, parts == largest, "colon")


def test_iou_through_the_browser_is_that_of_the_evaluation(
    tab: Callable[..., Viewer], server: Annotator, slides: Path, patch: Sample, tmp_path: Path
) -> None:
    part = slides / ".patch.png"
    cv2.imwrite(str(part), cv2.cvtColor(patch.image, cv2.COLOR_RGB2BGR))
    part.rename(slides / "patch.png")
    viewer = tab()
    viewer.open(server.url, "patch.png")
    qualities = []
    for number, step in enumerate(trajectory(registry.load(), patch, CLICKS), 1):
        x, y = step.click.x + 0.5, step.click.y + 0.5  # pages count from the corner of pixels
        viewer.look_at(x, y, SCALE)
        place = viewer.on_page(x, y)
        assert np.allclose(place, np.rint(place), atol=1e-6)
        viewer.click(x, y, negative=not step.click.positive)
        mask = exported(viewer, tmp_path / f"{number}.png")
        assert iou(patch.mask, mask) == step.iou
        assert (mask == step.prediction.mask).all()
        qualities.append(step.iou)
    assert len(set(qualities)) > CLICKS / 2
    viewer.press("Home")
    viewer.screenshot("all-clicks")


def exported(viewer: Viewer, file: Path) -> np.ndarray:
    """The mask as the page exports it, (H, W) bool."""
    viewer.it("export").click()
    with viewer.page.expect_download() as download:
        viewer.it("export-mask").click()
    download.value.save_as(file)
    labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert labels is not None
    assert labels.shape == (400, 400)
    return labels > 0
