"""Clicks that are answered in the browser first: what it shows is what the server says then."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import shapely
from playwright.sync_api import Route

from browsing import Point, Viewer
from histoclick.models import registry
from live import Annotator, annotating

MIDDLE = (1600.0, 1600.0)  # inside the phantom's tumour
SHARE = 0.001  # of a window's pixels that may differ
WINDOW_PX0 = 448 * 4  # of level 0, at the 1 um/px of these tests


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model as graphs."""
    for name in ("onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=f"an exported model takes the package {name}")
    folder = tmp_path_factory.mktemp("exported") / "light"
    return registry.export_model("histoclick-tiny", folder)


@pytest.fixture(scope="session")
def light(
    built: None, phantom: Path, exported: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Annotator]:
    """The command with the exported model."""
    folder = tmp_path_factory.mktemp("light")
    (folder / "slides").mkdir()
    shutil.copy(phantom, folder / "slides" / "phantom.tif")
    store = folder / "store.sqlite"
    with annotating([folder / "slides"], store, "--model", str(exported)) as server:
        yield server


class Held:
    """Answers to actions, which come when they are let go."""

    def __init__(self, viewer: Viewer) -> None:
        self.routes: list[Route] = []
        viewer.page.route("**/events*", self.hold)

    def hold(self, route: Route) -> None:
        self.routes.append(route)

    def go(self) -> None:
        for route in self.routes:
            route.continue_()
        self.routes.clear()


def opened(tab: Callable[..., Viewer], server: Annotator) -> Viewer:
    """A page that answers clicks itself, near the middle of the slide at 1 um/px."""
    viewer = tab()
    viewer.open(server.url, "phantom.tif")
    viewer.look_at(*MIDDLE, 0.25)
    viewer.it("here").check()
    return viewer


def area_of(geometry: dict[str, Any]) -> Any:
    """What its rings enclose, by the even-odd rule."""
    parts = geometry["coordinates"]
    rings = parts if geometry["type"] == "Polygon" else [ring for part in parts for ring in part]
    areas = [shapely.make_valid(shapely.Polygon(ring)) for ring in rings]
    return functools.reduce(lambda a, b: a.symmetric_difference(b), areas)


def previewed(viewer: Viewer, held: Held, point: Point, *, negative: bool = False) -> float:
    """The share of the window's pixels in which the preview of a click is not its answer."""
    button = "right" if negative else "left"
    viewer.page.mouse.click(*viewer.on_page(*point), button=button)
    viewer.until("now.preview !== null")
    preview = viewer.now("preview")
    held.go()
    viewer.rest()
    assert viewer.now("preview") is None
    (item,) = (each for each in viewer.objects() if each["id"] == viewer.now("current"))
    ours, theirs = area_of(preview["item"]["geometry"]), area_of(item["geometry"])
    assert theirs.area > 0
    return float(ours.symmetric_difference(theirs).area) / WINDOW_PX0**2


def test_previews_are_what_the_server_says(tab: Callable[..., Viewer], light: Annotator) -> None:
    viewer = opened(tab, light)
    held = Held(viewer)
    clicks = [(0, 0, False), (150, 40, False), (-260, 200, True), (60, -220, True), (90, 90, False)]
    shares = [
        previewed(viewer, held, (MIDDLE[0] + x, MIDDLE[1] + y), negative=negative)
        for x, y, negative in clicks
    ]
    print(shares)
    assert max(shares) < SHARE
