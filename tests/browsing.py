"""The annotator's page in a real browser, in the words of who uses it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Locator, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
PAGE = Path(__file__).parents[1] / "src/histoclick/server/static/index.html"
WINDOW = {"width": 1280, "height": 800}

Point = tuple[float, float]  # px of level 0


@dataclass
class Viewer:
    """``page``: the annotator in one tab. ``name``: how the files of screenshots begin."""

    page: Page
    name: Path

    def open(self, url: str, slide: str) -> None:
        """Open a slide by its name, and wait until it can be seen."""
        self.page.goto(url)
        self.page.locator("[data-testid^=slide-]", has_text=slide).first.wait_for()
        chosen = f"[...histoclick.state.now.slides].find(each => each.name === {slide!r}).id"
        self.page.evaluate(f"location.hash = 'slide=' + {chosen}")
        self.seen(slide)

    def seen(self, slide: str) -> None:
        """Wait until a slide is drawn, all its tiles loaded."""
        self.page.wait_for_function(
            "name => histoclick.state.now.slide?.name === name && histoclick.stage.placement"
            " && histoclick.viewer.world.getItemAt(0)?.getFullyLoaded()",
            arg=slide,
        )
        self.rest()

    def until(self, condition: str) -> None:
        """Wait until something is true of ``now``, the page's state."""
        # a function: the page's own rules forbid what evaluates strings
        self.page.wait_for_function(
            f"() => {{ const {{ now }} = histoclick.state; return {condition} }}"
        )

    def rest(self) -> None:
        """Wait until the view does not move and nothing is on its way to the server."""
        self.until("now.sending.phase === 'idle' && now.sending.unsent === 0")
        self.still()

    def still(self) -> None:
        """Wait until the view does not move, and all is drawn."""
        self.page.evaluate(
            """async () => {
                const frame = () => new Promise(requestAnimationFrame)
                const now = () => JSON.stringify(histoclick.stage.placement)
                for (let same = 0, before = now(); same < 6; before = now()) {
                    await frame()
                    same = now() === before ? same + 1 : 0
                }
            }"""
        )

    def it(self, name: str) -> Locator:
        """The element with this name for tests."""
        return self.page.get_by_test_id(name)

    def press(self, *keys: str) -> None:
        """Keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)
        self.rest()

    def look_at(self, x: float, y: float, scale: float) -> None:
        """Bring a point of level 0 into the middle; ``scale``: screen px per px of level 0."""
        self.page.evaluate(
            """([x, y, scale]) => {
                const { viewport, world } = histoclick.viewer
                const width = world.getItemAt(0).getContentSize().x
                viewport.zoomTo(scale * width / viewport.getContainerSize().x, undefined, true)
                const centre = viewport.getCenter()
                centre.x = x / width
                centre.y = y / width
                viewport.panTo(centre, true)
            }""",
            [x, y, scale],
        )
        self.still()

    def on_page(self, x: float, y: float) -> Point:
        """Where a point of level 0 lies on the page, CSS px."""
        at = self.page.evaluate(
            """([x, y]) => {
                const frame = histoclick.stage.element.getBoundingClientRect()
                const at = histoclick.stage.toScreen(x, y)
                return [at[0] + frame.left, at[1] + frame.top]
            }""",
            [x, y],
        )
        return at[0], at[1]

    def click(self, x: float, y: float, *, negative: bool = False) -> None:
        """A click at a point of level 0, and its answer."""
        self.page.mouse.click(*self.on_page(x, y), button="right" if negative else "left")
        self.rest()

    def drag(self, points: Sequence[Point]) -> None:
        """Draw with the left button through points of level 0."""
        places = [self.on_page(*point) for point in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=8)
        self.page.mouse.up()
        self.rest()

    def objects(self) -> list[dict[str, Any]]:
        """What the page knows."""
        objects: list[dict[str, Any]] = self.page.evaluate(
            "[...histoclick.state.now.objects.values()]"
        )
        return objects

    def now(self, name: str) -> Any:
        """A value of the page's state."""
        return self.page.evaluate(f"histoclick.state.now.{name}")

    def drawn(self) -> NDArray[np.uint8]:
        """(H, W, 4) uint8 RGBA: what is drawn over the slide now."""
        self.still()
        url = self.page.evaluate(
            "document.querySelector('[data-testid=overlay]').toDataURL('image/png')"
        )
        data = np.frombuffer(self._decoded(url), np.uint8)
        bgra = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        assert bgra is not None
        return np.asarray(cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA), np.uint8)

    def screenshot(self, name: str) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB of the whole page, kept as a file."""
        path = self.name.with_name(f"{self.name.name}-{name}.png")
        self.page.screenshot(path=path)
        bgr = cv2.imread(str(path))
        assert bgr is not None
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)

    @staticmethod
    def _decoded(url: str) -> bytes:
        import base64

        return base64.b64decode(url.partition(",")[2])
