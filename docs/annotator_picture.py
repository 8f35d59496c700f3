"""Take the picture of the annotator in the README: ``docs/annotator.jpg``.

    python docs/annotator_picture.py

Needs Chromium. The slide is generated; a simulated user clicks on the tumour of one view.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from playwright.sync_api import Page, sync_playwright
from shapely.geometry import shape
from shapely.ops import unary_union

from histoclick.annotations import read
from histoclick.clicks import SimulatedUser
from histoclick.datasets.phantomslides import write_phantom_slides
from histoclick.geometry import Rect
from histoclick.masks import rasterise

PORT = 8765
SIDE, MPP = 6000, 0.5  # px of the slide, um per px
WIDE, HIGH = 1680, 1640  # px of level 0 in the view
CLICKS = 12


def main() -> None:
    """Draw, serve, click, take the picture."""
    with tempfile.TemporaryDirectory() as place:
        slides = Path(place) / "slides"
        slide = write_phantom_slides(slides, 1, seed=3, width=SIDE, height=SIDE, mpp=MPP)[0]
        tumour = unary_union([e.shape for e in read(slide.with_suffix(".geojson")).annotations])
        slide.with_name(f"{slide.stem}_mask.tif").unlink()
        store = Path(place) / "a.sqlite"
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "histoclick", "annotate", slides, "--no-browser"),
                *("--port", str(PORT), "--store", store),
            ]
        )
        try:
            with sync_playwright() as tools:
                browser = tools.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                _open(page)
                middle = max(shapely.get_parts(tumour), key=lambda part: part.area).centroid
                view = Rect(middle.x - WIDE / 2, middle.y - HIGH / 2, WIDE, HIGH)
                page.evaluate(
                    "([x0, y0, x1, y1]) => window.histoclick.stage.show({x0, y0, x1, y1}, 0, true)",
                    [view.x0, view.y0, view.x1, view.y1],
                )
                time.sleep(8)
                wanted, user = rasterise(tumour, view, WIDE // 2, HIGH // 2), SimulatedUser()
                found, clicks = np.zeros_like(wanted), ()
                for _ in range(CLICKS):
                    click = user.click("view", wanted, found, clicks)
                    clicks = (*clicks, click)
                    x, y = view.x0 + 2 * click.x + 1, view.y0 + 2 * click.y + 1
                    found = rasterise(_click(page, x, y, click.positive), view, *found.shape[::-1])
                page.mouse.move(5, 890)
                time.sleep(2)
                page.screenshot(path="docs/annotator.jpg", type="jpeg", quality=82)
                browser.close()
        finally:
            server.terminate()
            server.wait()


def _open(page: Page) -> None:
    for _ in range(60):
        try:
            page.goto(f"http://127.0.0.1:{PORT}/")
            break
        except Exception:  # noqa: BLE001 - not there yet
            time.sleep(1)
    page.locator("[data-testid=slide-list] .slide button", has_text="phantom").first.click()
    time.sleep(6)


def _click(page: Page, x: float, y: float, positive: bool) -> Any:
    """The object's outline after a click at (x, y) px of level 0."""
    at = page.evaluate("([x, y]) => window.histoclick.stage.toScreen(x, y)", [x, y])
    stage = page.locator("[data-testid=stage]").bounding_box()
    assert stage is not None
    button = "left" if positive else "right"
    page.mouse.click(stage["x"] + at[0], stage["y"] + at[1], button=button)
    for _ in range(100):
        time.sleep(0.1)
        if page.evaluate("window.histoclick.state.now.sending.phase") == "idle":
            break
    outline = page.evaluate("[...window.histoclick.state.now.objects.values()][0].geometry")
    return shape(outline)


if __name__ == "__main__":
    main()
