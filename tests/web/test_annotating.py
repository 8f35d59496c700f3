"""The work of a pathologist in the browser: what is done is seen on the screen, and kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from playwright.sync_api import Page, Route

from browsing import Point, Viewer
from histoclick.annotations import read
from live import Annotator, annotating

MIDDLE = (1600.0, 1600.0)  # inside the phantom's tumour
STROMA = (2300.0, 2150.0)  # outside of it, tissue
GLASS = (300.0, 300.0)

Drawn = NDArray[np.bool_]  # (H, W): where something is drawn over the slide


def seen(viewer: Viewer) -> Drawn:
    """Where the fill of objects is on the screen, without what is drawn for the current one."""
    viewer.page.keyboard.press("n")
    viewer.page.mouse.move(1, 1)  # the brush is drawn too
    return viewer.drawn()[..., 3] > 0


def told(viewer: Viewer) -> Drawn:
    """Where it should be, from the outlines that the page knows."""
    at = viewer.page.evaluate("histoclick.stage.placement")
    expected = np.zeros((round(at["height"]), round(at["width"])), np.uint8)
    for each in viewer.objects():
        geometry = each["geometry"]
        parts = geometry["coordinates"]
        rings = (
            parts if geometry["type"] == "Polygon" else [ring for part in parts for ring in part]
        )
        one = np.zeros_like(expected)
        corners = [
            np.rint((np.array(ring) * at["scale"] + [at["x"], at["y"]] - 0.5) * 256).astype(
                np.int32
            )
            for ring in rings
        ]
        cv2.fillPoly(one, corners, 1, shift=8)  # even-odd, so holes are holes
        expected |= one
    return expected > 0


def check_screen(viewer: Viewer) -> Drawn:
    """What is on the screen is what the page was told, but for the width of lines."""
    drawn, expected = seen(viewer), told(viewer)
    near = np.ones((9, 9), np.uint8)
    inside = cv2.erode(expected.view(np.uint8), near) > 0
    around = cv2.dilate(expected.view(np.uint8), near) > 0
    assert inside.any()
    assert drawn[inside].all()
    assert not drawn[~around].any()
    return drawn


def at(viewer: Viewer, drawn: NDArray[Any], point: Point) -> Any:
    """The value of an array of the stage's pixels at a point of level 0."""
    x, y = viewer.page.evaluate("point => histoclick.stage.toScreen(...point)", list(point))
    return drawn[int(y), int(x)]


def known(server: Annotator, viewer: Viewer) -> list[dict[str, Any]]:
    """The objects that the server has."""
    slide = viewer.page.evaluate("histoclick.state.now.slide.id")
    reply = httpx2.get(f"{server.url}api/slides/{slide}/annotations").json()
    objects: list[dict[str, Any]] = reply["objects"]
    return objects


def test_clicks_and_corrections_are_seen(viewer: Viewer, server: Annotator) -> None:
    assert not viewer.drawn()[..., 3].any()
    viewer.click(*MIDDLE)
    viewer.screenshot("one-click")
    before = viewer.drawn()
    (first,) = viewer.objects()
    one = check_screen(viewer)
    assert at(viewer, one, MIDDLE)
    assert not at(viewer, one, GLASS)

    viewer.it("object-1").click()  # worked on again
    wrong = next(
        point for point in grid_of(first) if shapely.dwithin(shape(first), shapely.Point(point), 0)
    )
    viewer.click(*wrong, negative=True)
    viewer.screenshot("corrected")
    corrected = viewer.drawn()
    (second,) = viewer.objects()
    assert [click["positive"] for click in second["clicks"]] == [True, False]
    assert not shape(second).contains(shapely.Point(wrong))
    two = check_screen(viewer)
    assert (one != two).sum() > 50

    viewer.it("object-1").click()
    viewer.it("undo").click()
    viewer.rest()
    assert (viewer.drawn() == before).all()
    assert shape(viewer.objects()[0]).equals(shape(first))
    viewer.press("Control+Shift+Z")
    assert (viewer.drawn() == corrected).all()
    viewer.press("Control+Z", "Control+Z")
    assert viewer.objects() == known(server, viewer) == []
    assert not viewer.drawn()[..., 3].any()
    assert viewer.it("undo").is_disabled()
    viewer.press("Control+Y", "Control+Y")
    assert shape(viewer.objects()[0]).equals(shape(second))
    assert viewer.objects() == known(server, viewer)


def test_classes_objects_and_names(viewer: Viewer, server: Annotator) -> None:
    viewer.click(*MIDDLE)
    tumour = viewer.now("classes")[0]
    viewer.press("2")
    stroma = viewer.now("classes")[1]
    assert viewer.objects()[0]["label"] == stroma["name"]
    check_screen(viewer)
    assert np.abs(at(viewer, viewer.drawn(), MIDDLE)[:3] - np.array(stroma["colour"])).max() < 4
    viewer.press("1")  # nothing is selected: the class of the next ones
    viewer.click(*STROMA)
    assert [each["label"] for each in viewer.objects()] == [stroma["name"], tumour["name"]]
    assert viewer.it("object-count").inner_text() == "2"

    viewer.press("v")
    viewer.page.mouse.click(*viewer.on_page(*MIDDLE))
    assert viewer.now("current") == 1  # selected on the slide
    assert viewer.now("label") == stroma["name"]
    viewer.press("c")
    viewer.click(MIDDLE[0] + 300, MIDDLE[1])
    assert [len(each["clicks"]) for each in viewer.objects()] == [2, 1]

    row = viewer.it("object-1")
    row.get_by_test_id("object-rename").click()
    field = viewer.it("object-name-input")
    field.fill("Große Drüse 1")
    field.press("Enter")
    viewer.rest()
    assert row.get_by_test_id("object-name").inner_text() == "Große Drüse 1"
    viewer.screenshot("two-objects")
    viewer.it("object-2").click()
    viewer.press("Delete")
    assert [each["id"] for each in known(server, viewer)] == [1]
    viewer.press("Control+Z")
    assert [each["name"] for each in known(server, viewer)] == ["Große Drüse 1", ""]
    assert viewer.objects() == known(server, viewer)
    check_screen(viewer)

    viewer.it("classes-edit").click()
    viewer.it("class-name").first.fill("Carcinoma")
    viewer.it("class-add").click()
    viewer.it("class-name").last.fill("Gland")
    viewer.screenshot("classes")
    viewer.it("classes-save").click()
    viewer.rest()
    assert viewer.objects()[1]["label"] == "Carcinoma"
    viewer.press("6")
    assert viewer.now("label") == "Gland"


def test_brush_eraser_and_box(viewer: Viewer, server: Annotator) -> None:
    viewer.press("p")
    viewer.drag([(500, 500), (900, 500), (900, 700)])
    viewer.screenshot("brush")
    (painted,) = viewer.objects()
    assert painted["clicks"] == []
    radius = viewer.now("radius") / viewer.page.evaluate("histoclick.stage.placement.scale")
    drawn = shapely.LineString([(500, 500), (900, 500), (900, 700)]).buffer(radius)
    overlap = shape(painted).intersection(drawn).area / shape(painted).union(drawn).area
    assert overlap > 0.95
    before = check_screen(viewer)
    assert at(viewer, before, (700, 500))

    viewer.it("object-1").click()
    viewer.press("e")
    viewer.drag([(700, 300), (700, 700)])
    assert viewer.objects()[0]["geometry"]["type"] == "MultiPolygon"
    after = check_screen(viewer)
    assert not at(viewer, after, (700, 500))
    assert not (after & ~before).any()
    viewer.screenshot("erased")

    viewer.press("b")
    viewer.drag([(1150, 1150), (2050, 2100)])
    box = viewer.objects()[1]["box"]
    assert np.allclose(box, [1150, 1150, 2050, 2100], atol=6)
    viewer.screenshot("box")
    assert at(viewer, check_screen(viewer), MIDDLE)
    assert viewer.objects() == known(server, viewer)


def test_a_name_is_written_while_a_click_is_answered(viewer: Viewer) -> None:
    viewer.click(*MIDDLE)
    held: list[Route] = []
    viewer.page.route(
        "**/events?*", lambda route: route.continue_() if held else held.append(route)
    )
    viewer.page.mouse.click(*viewer.on_page(*STROMA), button="right")
    viewer.it("object-rename").click()
    viewer.page.keyboard.type("Drüsen")
    held[0].continue_()
    viewer.until("now.objects.get(1).clicks.length === 2")
    viewer.press("Backspace", *" 1h", "Enter")
    (item,) = viewer.objects()
    assert item["name"] == "Drüse 1h"
    assert viewer.it("object-name").inner_text() == "Drüse 1h"
    assert "2 clicks" in viewer.it("object-clicks").inner_text()
    assert not viewer.now("hidden")


def test_boxes_begin_objects_and_clicks_go_on(viewer: Viewer) -> None:
    viewer.press("b")
    viewer.drag([(1150, 1150), (2050, 2100)])
    viewer.drag([(2200, 2050), (2400, 2250)])
    assert [each["box"] is None for each in viewer.objects()] == [False, False]
    assert viewer.now("current") == 2
    viewer.click(*MIDDLE, negative=True)
    viewer.click(2300, 2100)
    x, y = viewer.on_page(2350, 2150)
    viewer.page.mouse.move(x, y)
    viewer.page.mouse.down()
    viewer.page.mouse.move(x + 6, y + 5)
    viewer.page.mouse.up()
    viewer.it("toasts").get_by_text("too small for a box").wait_for()  # it goes soon
    viewer.rest()
    assert [len(each["clicks"]) for each in viewer.objects()] == [0, 3]
    assert [each["positive"] for each in viewer.objects()[1]["clicks"]] == [False, True, True]


def test_all_is_there_after_a_reload(viewer: Viewer, server: Annotator, slide: str) -> None:
    viewer.click(*MIDDLE)
    viewer.press("n", "2")
    viewer.click(*STROMA)
    viewer.click(*MIDDLE, negative=True)
    viewer.press("p")
    viewer.drag([(700, 700), (900, 900)])
    viewer.look_at(1700, 1500, 0.4)
    viewer.page.wait_for_timeout(300)  # until the view is remembered
    before, objects = check_screen(viewer), viewer.objects()
    view = viewer.page.evaluate("histoclick.stage.placement")
    viewer.page.reload()
    viewer.seen(slide)
    viewer.screenshot("reloaded")
    assert viewer.page.evaluate("histoclick.stage.placement") == pytest.approx(view)
    assert viewer.objects() == objects == known(server, viewer)
    assert (check_screen(viewer) == before).all()
    viewer.press("Control+Z", "Control+Z")  # this tab's own history is still known
    assert [len(each["clicks"]) for each in viewer.objects()] == [1, 1]


def test_export_and_import(
    viewer: Viewer, server: Annotator, tmp_path: Path, phantom: Path
) -> None:
    viewer.click(*MIDDLE)
    viewer.press("n", "2")
    viewer.click(*STROMA)
    viewer.press("n", "p")
    viewer.drag([(700, 700), (900, 900)])
    viewer.it("export").click()
    viewer.screenshot("formats")
    with viewer.page.expect_download() as download:
        viewer.it("export-qupath").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.suffix == ".geojson"
    objects = known(server, viewer)
    exported = read(file).annotations
    assert [each.label for each in exported] == [each["label"] for each in objects]
    for annotation, each in zip(exported, objects, strict=True):
        assert annotation.shape.equals(shape(each))

    truth = read(phantom.with_suffix(".geojson")).annotations
    viewer.it("import-file").set_input_files(phantom.with_suffix(".geojson"))
    viewer.until(f"now.objects.size === {3 + len(truth)}")
    viewer.screenshot("imported")
    imported = viewer.objects()[3:]
    for annotation, each in zip(truth, imported, strict=True):
        assert shape(each).equals(annotation.shape)
        assert each["label"] == annotation.label
    check_screen(viewer)

    number, outline = max(enumerate(truth, 4), key=lambda pair: pair[1].shape.area)
    inside = outline.shape.representative_point()
    viewer.it(f"object-{number}").click()
    viewer.press("c")
    viewer.click(inside.x, inside.y, negative=True)  # the polygon is corrected, not begun anew
    (corrected,) = [each for each in viewer.objects() if each["id"] == number]
    assert len(corrected["clicks"]) == 1
    assert not shape(corrected).contains(inside)
    viewer.press("Control+Z")
    assert viewer.objects()[3:] == [
        each | {"version": viewer.now("seq")} if each["id"] == number else each for each in imported
    ]


def test_two_people_on_one_slide(
    viewer: Viewer, tab: Callable[..., Viewer], server: Annotator, slide: str
) -> None:
    viewer.click(*MIDDLE)
    other = tab()
    other.open(server.url, slide)
    assert other.objects() == viewer.objects()
    other.press("3")
    other.click(*STROMA)
    viewer.until("now.objects.size === 2")
    check_screen(viewer)
    other.it("object-1").click()
    other.click(MIDDLE[0] + 200, MIDDLE[1])
    viewer.until("now.objects.get(1).clicks.length === 2")
    assert (check_screen(viewer) == check_screen(other)).all()
    other.it("object-2").click()
    other.press("Delete")
    viewer.until("now.objects.size === 1")
    assert viewer.objects() == other.objects() == known(server, viewer)


def test_clicks_without_a_server_are_kept_and_sent_later(
    viewer: Viewer, server: Annotator, slide: str
) -> None:
    viewer.click(*MIDDLE)
    viewer.page.context.set_offline(True)
    viewer.page.mouse.click(*viewer.on_page(*STROMA), button="right")
    viewer.page.keyboard.press("n")
    viewer.page.mouse.click(*viewer.on_page(900, 2000))
    status = viewer.it("status")
    viewer.until("now.sending.phase === 'waiting' && now.sending.unsent > 1")
    assert "2 actions unsent" in status.inner_text()
    viewer.still()
    viewer.screenshot("offline")
    assert at(viewer, viewer.drawn()[..., 3], (900, 2000))  # it is seen where it waits
    assert [len(each["clicks"]) for each in known(server, viewer)] == [1]
    viewer.page.context.set_offline(False)
    viewer.until("now.objects.size === 2")
    viewer.rest()
    assert [len(each["clicks"]) for each in known(server, viewer)] == [2, 1]
    assert "Saved" in status.inner_text()
    check_screen(viewer)


def test_help_and_colours(viewer: Viewer) -> None:
    viewer.press("?")
    assert viewer.page.locator("dialog[data-testid=help]").is_visible()
    assert "Undo" in viewer.page.locator("dialog[data-testid=help]").inner_text()
    viewer.screenshot("help")
    viewer.press("Escape")
    assert not viewer.page.locator("dialog[data-testid=help]").is_visible()
    viewer.click(*MIDDLE)
    light = viewer.screenshot("light")
    viewer.page.emulate_media(color_scheme="dark")
    dark = viewer.screenshot("dark")
    panel = np.s_[600:700, 1010:1270]  # below the list of objects
    assert light[panel].mean() > 200
    assert dark[panel].mean() < 70
    stage = viewer.page.evaluate("histoclick.stage.element.getBoundingClientRect().toJSON()")
    slide = np.s_[250:600, round(stage["left"]) + 80 : round(stage["right"]) - 20]
    assert (light[slide] == dark[slide]).mean() > 0.99  # tissue keeps its colours

    viewer.it("theme").click()
    viewer.it("theme").click()
    assert viewer.now("theme") == "dark"
    viewer.page.emulate_media(color_scheme="light")
    assert viewer.screenshot("chosen")[panel].mean() < 70
    viewer.it("draw-outline").click()
    assert not at(viewer, seen(viewer), (MIDDLE[0], MIDDLE[1] - 60))
    viewer.it("draw-fill").click()
    assert at(viewer, seen(viewer), (MIDDLE[0], MIDDLE[1] - 60))
    viewer.press("h")
    assert not seen(viewer).any()


@pytest.mark.parametrize("size", [(820, 1180), (1180, 820)], ids=["upright", "across"])
def test_on_a_tablet(
    tab: Callable[..., Viewer], server: Annotator, slide: str, size: tuple[int, int]
) -> None:
    width, height = size
    viewer = tab(viewport={"width": width, "height": height}, has_touch=True, device_scale_factor=2)
    viewer.open(server.url, slide)
    viewer.page.touchscreen.tap(*viewer.on_page(*MIDDLE))
    viewer.until("now.objects.size === 1")
    viewer.rest()
    viewer.screenshot("tapped")
    viewer.it("tool-sign").tap()
    viewer.page.touchscreen.tap(*viewer.on_page(*STROMA))
    viewer.rest()
    assert [each["positive"] for each in viewer.objects()[0]["clicks"]] == [True, False]
    viewer.it("undo").tap()
    viewer.rest()
    assert [len(each["clicks"]) for each in known(server, viewer)] == [1]
    viewer.it("side-toggle").tap()
    viewer.page.wait_for_timeout(400)
    viewer.screenshot("panel")


def test_a_real_slide(tab: Callable[..., Viewer], server: Annotator, scan: str) -> None:
    viewer = tab()
    viewer.open(server.url, scan)
    viewer.screenshot("whole")
    viewer.look_at(1000, 1400, 0.5)
    before = viewer.screenshot("before")
    viewer.click(1000, 1400)
    viewer.screenshot("one-click")
    check_screen(viewer)
    assert (viewer.screenshot("seen") != before).any(2).sum() > 200
    (first,) = known(server, viewer)
    viewer.it(f"object-{first['id']}").click()
    viewer.click(1150, 1400, negative=True)
    viewer.click(900, 1300)
    viewer.screenshot("three-clicks")
    viewer.press("2", "Control+Z", "Control+Z")
    (second,) = viewer.objects()
    assert [click["positive"] for click in second["clicks"]] == [True, False]
    objects, drawn = viewer.objects(), check_screen(viewer)
    viewer.page.reload()
    viewer.seen(scan)
    assert viewer.objects() == objects == known(server, viewer)
    assert (check_screen(viewer) == drawn).all()


def test_a_page_that_was_closed_sends_what_it_kept(
    viewer: Viewer, server: Annotator, slide: str
) -> None:
    viewer.page.context.set_offline(True)
    viewer.page.mouse.click(*viewer.on_page(*MIDDLE))
    viewer.until("now.sending.phase === 'waiting' && now.sending.unsent === 1")
    viewer.page.mouse.click(*viewer.on_page(*STROMA), button="right")
    viewer.until("now.sending.unsent === 2")
    context = viewer.page.context
    viewer.page.close()
    context.set_offline(False)
    viewer.page = context.new_page()
    viewer.open(server.url, slide)
    viewer.until("now.objects.get(1)?.clicks.length === 2")
    assert viewer.objects() == known(server, viewer)
    check_screen(viewer)


def test_tabs_have_names_of_their_own_which_outlive_them(
    viewer: Viewer, server: Annotator, slide: str
) -> None:
    def named(page: Page) -> str:
        Viewer(page, viewer.name).open(server.url, slide)
        return str(page.evaluate("sessionStorage.getItem('histoclick.client')"))

    context = viewer.page.context
    first, second = named(viewer.page), named(context.new_page())
    assert first != second
    viewer.page.close()
    viewer.page = context.new_page()
    assert named(viewer.page) == first
    viewer.page.reload()
    assert named(viewer.page) == first
    assert named(context.new_page()) not in (first, second)


def test_hints_say_what_is_surprising(viewer: Viewer) -> None:
    sent: list[str] = []
    viewer.page.on("request", lambda request: sent.append(request.url))
    viewer.press("Control+Z", "Control+Y")
    toasts = viewer.it("toasts")
    assert "nothing to take back" in toasts.inner_text()
    assert "nothing to do again" in toasts.inner_text()
    assert not any("/events" in url for url in sent)
    viewer.press("h")
    viewer.click(*MIDDLE)
    assert viewer.now("objects.size") == 1
    assert not viewer.now("hidden")
    assert "Outlines are shown again." in toasts.inner_text()
    own = viewer.objects()[0]["mpp"]
    viewer.it("working").click()
    viewer.it(f"working-{2 if own != 2 else 1}").click()
    assert f"This object stays at {own:g} µm/px" in toasts.inner_text()
    assert shape(viewer.objects()[0]).geom_type == "MultiPolygon"
    viewer.press("t")
    tidied = shape(viewer.objects()[0])
    assert tidied.geom_type == "Polygon"
    assert tidied.contains(shapely.Point(MIDDLE))
    viewer.press("t")
    assert "has one part" in toasts.inner_text()
    viewer.press("x", "n")
    assert viewer.now("positive")  # an object begins with what is inside


def test_undo_out_of_view_is_looked_at(viewer: Viewer) -> None:
    viewer.click(*MIDDLE)
    viewer.look_at(300, 300, 4)
    viewer.press("Control+Z", "Control+Y")
    viewer.page.wait_for_function(
        "() => { const { view } = histoclick.state.now; return view.x0 < 1600 && view.x1 > 1600 }"
    )
    viewer.still()


def test_a_slide_that_cannot_be_opened(
    viewer: Viewer, server: Annotator, slides: Path, phantom: Path, slide: str
) -> None:
    (slides / ".another").write_bytes(phantom.read_bytes())
    (slides / ".another").rename(slides / "another.tif")
    viewer.page = viewer.page.context.new_page()  # where it is no fault that a slide is missing
    viewer.open(server.url, slide)
    before = viewer.page.evaluate("location.hash")
    viewer.page.evaluate("location.hash = 'slide=nothing'")
    viewer.page.get_by_text("This slide is not served (any more). Choose one.").wait_for()
    assert viewer.page.evaluate("location.hash") == before
    other = viewer.page.locator("[data-name='another.tif']")
    other.wait_for()
    viewer.page.context.set_offline(True)
    other.click()
    viewer.page.get_by_text("The server cannot be reached.").first.wait_for()
    assert viewer.page.evaluate("location.hash") == before
    viewer.page.context.set_offline(False)
    other.click()
    viewer.seen("another.tif")
    viewer.until("location.hash === '#slide=' + now.slide.id")


def test_what_waits_is_given_up_only_after_a_question(viewer: Viewer, server: Annotator) -> None:
    viewer.page.context.set_offline(True)
    viewer.page.mouse.click(*viewer.on_page(*MIDDLE))
    viewer.until("now.sending.phase === 'waiting' && now.sending.unsent === 1")
    for answer, left in (("ask-no", 1), ("ask-yes", 0)):
        viewer.it("status").click()
        viewer.it("discard").click()
        assert "1 action in this browser will be lost" in viewer.it("ask").inner_text()
        viewer.screenshot("question")
        viewer.it(answer).click()
        assert viewer.now("sending.unsent") == left
    viewer.page.context.set_offline(False)
    viewer.rest()
    assert known(server, viewer) == []


def test_a_class_in_use_is_removed(viewer: Viewer) -> None:
    viewer.click(*MIDDLE)
    first, second = (each["name"] for each in viewer.now("classes")[:2])
    viewer.it("classes-edit").click()
    viewer.it("class-key").first.fill("h")
    viewer.it("classes-save").click()
    assert "The key H has a meaning already" in viewer.it("class-editor").inner_text()
    viewer.it("class-remove").first.click()
    assert "1 object has this class" in viewer.it("ask").inner_text()
    viewer.screenshot("question")
    viewer.it("ask-yes").click()
    viewer.it("classes-save").click()
    viewer.rest()
    assert [each["label"] for each in viewer.objects()] == [first]
    assert viewer.it(f"class-{first}").is_visible()  # not in the list, but here
    viewer.press("2")
    assert viewer.objects()[0]["label"] == second
    viewer.it("classes-edit").click()
    viewer.it("class-remove").first.click()
    viewer.it("class-heir").select_option(index=1)
    viewer.it("ask-yes").click()
    viewer.it("classes-save").click()
    viewer.rest()
    assert viewer.objects()[0]["label"] == viewer.now("classes")[0]["name"] != second


@pytest.mark.slow
def test_a_server_that_is_killed(
    tab: Callable[..., Viewer], server: Annotator, phantom: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store.sqlite"
    viewer = tab()
    with annotating([phantom], store) as first:
        viewer.open(first.url, phantom.name)
        viewer.click(*MIDDLE)
        objects = viewer.objects()
        first.kill()
    viewer.page.mouse.click(*viewer.on_page(*STROMA), button="right")
    viewer.until("now.sending.phase === 'waiting'")
    with annotating([phantom], store, port=first.port) as second:
        viewer.until("now.objects.get(1).clicks.length === 2")
        assert viewer.objects()[0]["clicks"][:1] == objects[0]["clicks"]
        assert viewer.objects() == known(second, viewer)


def shape(item: dict[str, Any]) -> shapely.Geometry:
    """The outline of an object of the page."""
    return shapely.from_geojson(json.dumps(item["geometry"]))


def grid_of(item: dict[str, Any]) -> list[Point]:
    """Points all over an object, from its borders inwards."""
    x0, y0, x1, y1 = shape(item).bounds
    xs, ys = np.meshgrid(np.linspace(x0, x1, 40), np.linspace(y0, y1, 40))
    points = np.stack([xs.ravel(), ys.ravel()], 1)
    inside = shapely.contains_xy(shape(item).buffer(-6), points)
    order = np.argsort(-np.hypot(*(points[inside] - MIDDLE).T))
    return [(float(x), float(y)) for x, y in points[inside][order]]
