"""Clicks that are answered in the browser first: what it shows is what the server says then."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
import shapely
import skimage
from playwright.sync_api import Route

from browsing import Point, Viewer
from gates import random_gated
from histoclick.models import registry
from live import Annotator, annotating

MIDDLE = (1600.0, 1600.0)  # inside the phantom's tumour
SHARE = 0.001  # of a window's pixels that may differ
WINDOW_PX0 = 448 * 4  # of level 0, at the 1 um/px of these tests


def export(model: str | Path, folder: Path) -> Path:
    for name in ("onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=f"an exported model takes the package {name}")
    return registry.export_model(model, folder)


@pytest.fixture(scope="session")
def exported(built: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model as graphs."""
    return export("histoclick-tiny", tmp_path_factory.mktemp("exported") / "light")


@pytest.fixture(scope="session")
def gated(built: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gated model of random weights as graphs; clicked pixels obey, logits have a bound."""
    folder = tmp_path_factory.mktemp("gated")
    return export(random_gated(folder / "gated", input_size=448), folder / "light")


@pytest.fixture(scope="session")
def served(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a slide, and a picture that is smaller than a window."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(phantom, folder / "phantom.tif")
    small = skimage.data.immunohistochemistry()[:300, :400]
    cv2.imwrite(str(folder / "small.png"), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    return folder


@pytest.fixture(scope="session")
def light(
    exported: Path, served: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Annotator]:
    """The command with the exported model."""
    store = tmp_path_factory.mktemp("light") / "store.sqlite"
    with annotating([served], store, "--model", str(exported)) as server:
        yield server


class Held:
    """Actions, which reach the server when they are let go."""

    def __init__(self, viewer: Viewer) -> None:
        self.holds = True
        self.routes: list[Route] = []
        viewer.page.route("**/events*", self.hold)

    def hold(self, route: Route) -> None:
        if self.holds:
            self.routes.append(route)
        else:
            route.continue_()

    def go(self, *, all_: bool = False) -> None:
        """``all_``: also what comes from now on."""
        self.holds = not all_
        routes, self.routes = self.routes, []
        for route in routes:
            route.continue_()


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


def press(viewer: Viewer, x: float, y: float, *, negative: bool = False) -> None:
    """A click so far from the middle of the slide, and nothing more."""
    place = viewer.on_page(MIDDLE[0] + x, MIDDLE[1] + y)
    viewer.page.mouse.click(*place, button="right" if negative else "left")


def differing(viewer: Viewer, held: Held, pixels: float = WINDOW_PX0**2) -> float:
    """The share of the window's pixels in which a preview is not the answer, which is let go."""
    viewer.until("now.previews.length > 0")
    preview = viewer.now("previews.at(-1)")
    held.go()
    viewer.rest()
    assert viewer.now("previews") == []
    (item,) = (each for each in viewer.objects() if each["id"] == viewer.now("current"))
    ours, theirs = area_of(preview["item"]["geometry"]), area_of(item["geometry"])
    assert theirs.area > 0
    return float(ours.symmetric_difference(theirs).area) / pixels


def unseen(viewer: Viewer, held: Held) -> None:
    """The click that waits is answered by the server, and was by nobody else."""
    assert viewer.now("previews") == []
    held.go()
    viewer.rest()
    assert viewer.now("previews") == []
    assert len(viewer.objects()) > 0


def test_previews_are_what_the_server_says(tab: Callable[..., Viewer], light: Annotator) -> None:
    viewer = opened(tab, light)
    held = Held(viewer)
    clicks: list[tuple[Point, bool]] = [
        ((0, 0), False), ((150, 40), False), ((-260, 200), True), ((60, -220), True),
        ((90, 90), False),
    ]  # fmt: skip
    shares = []
    for (x, y), negative in clicks:
        press(viewer, x, y, negative=negative)
        shares.append(differing(viewer, held))
    assert max(shares) < SHARE

    before = viewer.drawn()  # and so it is on the screen
    press(viewer, -40, -40)
    viewer.until("now.previews.length > 0")
    drawn = viewer.drawn()
    held.go()
    viewer.rest()
    after = viewer.drawn()
    assert (after != before).any(2).sum() > 50
    wrong = ((drawn[..., 3] > 0) != (after[..., 3] > 0)).mean()
    assert wrong < 0.002  # the sign of a click that waits is larger than that of one which does not


def test_a_picture_that_is_smaller_than_a_window(
    tab: Callable[..., Viewer], light: Annotator
) -> None:
    viewer = tab()
    viewer.open(light.url, "small.png")
    viewer.look_at(200, 150, 2)
    viewer.it("here").check()
    held = Held(viewer)
    for x, y, negative in ((120, 80, False), (300, 200, False), (210, 20, True)):
        place = viewer.on_page(x + 0.5, y + 0.5)
        viewer.page.mouse.click(*place, button="right" if negative else "left")
        assert differing(viewer, held, 300 * 400) < SHARE


def test_clicks_that_wait_go_on_from_each_other(
    tab: Callable[..., Viewer], light: Annotator
) -> None:
    viewer = opened(tab, light)
    held = Held(viewer)
    press(viewer, 0, 0)
    viewer.until("now.previews.length > 0")
    first = viewer.now("previews.at(-1).entry")
    press(viewer, 180, 30)
    press(viewer, -250, 150, negative=True)
    viewer.until(f"now.previews.at(-1).entry !== '{first}'")
    second = viewer.now("previews.at(-1).entry")
    viewer.until(f"!['{first}', '{second}'].includes(now.previews.at(-1).entry)")
    preview = viewer.now("previews.at(-1)")
    held.go(all_=True)
    viewer.rest()
    (item,) = (each for each in viewer.objects() if each["id"] == viewer.now("current"))
    assert len(item["clicks"]) == 3
    ours, theirs = area_of(preview["item"]["geometry"]), area_of(item["geometry"])
    assert ours.symmetric_difference(theirs).area / WINDOW_PX0**2 < SHARE


def test_objects_that_wait_are_all_shown(tab: Callable[..., Viewer], light: Annotator) -> None:
    viewer = opened(tab, light)
    held = Held(viewer)
    press(viewer, 0, 0)
    viewer.page.keyboard.press("Enter")
    press(viewer, 300, 300)
    viewer.until("now.previews.length === 2")
    previews = viewer.now("previews")
    assert len({each["item"]["id"] for each in previews}) == 2
    held.go(all_=True)
    viewer.rest()
    assert viewer.now("previews") == []
    for preview, item in zip(previews, viewer.objects()[-2:], strict=True):
        ours, theirs = area_of(preview["item"]["geometry"]), area_of(item["geometry"])
        assert ours.symmetric_difference(theirs).area / WINDOW_PX0**2 < SHARE


def test_what_was_done_between_ends_the_previews_of_an_object(
    tab: Callable[..., Viewer], light: Annotator
) -> None:
    viewer = opened(tab, light)
    held = Held(viewer)
    press(viewer, 0, 0)
    assert differing(viewer, held) < SHARE
    viewer.page.keyboard.press("2")  # another class: the server goes on from the mask then
    viewer.page.wait_for_timeout(300)
    held.go()
    viewer.rest()
    press(viewer, 60, 60)
    viewer.page.wait_for_timeout(3000)
    unseen(viewer, held)
    viewer.page.keyboard.press("Enter")
    press(viewer, 10, 20)  # a new one is previewed again
    assert differing(viewer, held) < SHARE


def test_nothing_is_loaded_until_it_is_wanted(tab: Callable[..., Viewer], light: Annotator) -> None:
    viewer = tab()
    asked: list[str] = []
    viewer.page.context.on("request", lambda request: asked.append(request.url))
    viewer.open(light.url, "phantom.tif")
    viewer.look_at(*MIDDLE, 0.25)
    viewer.click(*MIDDLE)
    assert not [url for url in asked if "decod" in url or ".wasm" in url or "embedding" in url]
    assert viewer.now("previewed") is None
    viewer.it("here").check()
    viewer.press("Enter")
    viewer.click(*MIDDLE)
    viewer.until("now.previewed !== null")
    viewer.page.reload()
    viewer.seen("phantom.tif")
    assert viewer.it("here").is_checked()  # it is kept


def test_other_bytes_than_those_of_the_hash_are_refused(
    tab: Callable[..., Viewer], light: Annotator, exported: Path
) -> None:
    viewer = tab()
    graph = (exported / "decoder.onnx").read_bytes()
    viewer.page.route("**/api/decoder/*", lambda route: route.fulfill(body=graph[:-1] + b"x"))
    held = Held(viewer)
    viewer.open(light.url, "phantom.tif")
    viewer.look_at(*MIDDLE, 0.25)
    viewer.it("here").check()
    before = len(viewer.objects())  # of other tests
    for i in range(3):
        press(viewer, 10 * i, 0)
        viewer.page.keyboard.press("Enter")
    hint = viewer.it("toast-hint").filter(has_text="not the one that was asked for")
    hint.wait_for()
    assert viewer.now("previews") == []
    held.go(all_=True)
    viewer.rest()
    assert len(viewer.objects()) == before + 3
    assert viewer.now("previewed") is None


def test_an_embedding_of_another_model_is_refused(
    tab: Callable[..., Viewer], light: Annotator
) -> None:
    viewer = tab()

    def renamed(route: Route) -> None:
        reply = route.fetch()
        content, size = reply.body(), int.from_bytes(reply.body()[:8], "little")
        header = json.loads(content[8 : 8 + size])
        header["__metadata__"]["model"] = "cd" * 32
        said = json.dumps(header).encode()
        body = len(said).to_bytes(8, "little") + said + content[8 + size :]
        route.fulfill(body=body)

    viewer.page.route("**/embeddings/**", renamed)
    held = Held(viewer)
    viewer.open(light.url, "phantom.tif")
    viewer.look_at(*MIDDLE, 0.25)
    viewer.it("here").check()
    with viewer.page.expect_response("**/embeddings/**"):
        press(viewer, 0, 0)
    viewer.page.wait_for_timeout(2000)
    unseen(viewer, held)
    assert viewer.now("previewed") is None


def test_another_model_is_noticed(
    tab: Callable[..., Viewer], exported: Path, gated: Path, served: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store.sqlite"
    with annotating([served], store, "--model", str(exported)) as server:
        viewer = opened(tab, server)
        held = Held(viewer)
        press(viewer, 0, 0)
        assert differing(viewer, held) < SHARE
        first = viewer.now("info")
        viewer.press("Enter")
    # as if the page did not notice: the old decoder asks for embeddings, and gets none
    told = json.dumps(first)
    viewer.page.route("**/api/info", lambda route: route.fulfill(body=told))
    with annotating([served], store, "--model", str(gated), port=server.port) as server:
        viewer.rest()
        with viewer.page.expect_response(lambda reply: reply.status == 409):
            press(viewer, -900, -900)
        viewer.page.wait_for_timeout(1000)
        unseen(viewer, held)
        viewer.press("Enter")
        viewer.page.unroute("**/api/info")
        viewer.until(f"now.info.model.decoder !== '{first['model']['decoder']}'")
        # and this one's clicks are previewed with its own, by its own rules
        for x, y, negative in ((0, 0, False), (200, -100, True), (60, 260, False)):
            press(viewer, x, y, negative=negative)
            assert differing(viewer, held) < SHARE
