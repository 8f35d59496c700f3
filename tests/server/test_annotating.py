from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import numpy as np
import pytest
from shapely.geometry import Polygon, box, mapping, shape

from fakes import FakeSegmenter
from histoclick import annotations
from histoclick.annotations import Annotation, Canvas, Document
from histoclick.geometry import Rect
from histoclick.masks import rasterise
from histoclick.server.engine import Engine
from histoclick.server.library import Library
from histoclick.server.sessions import Author, Sessions
from histoclick.server.threads import OF_SLIDE
from histoclick.session import Book, ClickOn, Rename, SetClasses
from histoclick.slides import open_slide
from histoclick.store import Conflict, Store, Unavailable
from histoclick.types import HistoclickError
from served import HOME, Server, card, made_slide, open_model, serving

LESION = Polygon(
    [(100, 100), (400, 120), (380, 300), (90, 320)], [[(200, 200), (260, 200), (230, 250)]]
)
SOMEWHERE = {"object": None, "x": 5, "y": 1, "positive": True, "mpp": 1}


@pytest.fixture
def slide(server: Server) -> str:
    return server.id_of("a.tif")


def only(answer: dict[str, Any]) -> dict[str, Any]:
    (found,) = answer["objects"]
    found_: dict[str, Any] = found
    return found_


def geojson(*annotations_: Annotation, tmp_path: Path) -> bytes:
    path = tmp_path / "made.geojson"
    annotations.write(Document(annotations_), path, "qupath")
    return path.read_bytes()


def test_a_click_makes_an_object_and_another_changes_it(server: Server, slide: str) -> None:
    first = server.click(slide, 300, 300)
    made = only(first)
    assert (first["seq"], first["object"], made["id"], made["label"]) == (1, 1, 1, "Tumor")
    assert made["clicks"] == [{"x": 300, "y": 300, "positive": True}]
    assert made["mpp"] == 1.0
    outline = shape(made["geometry"])
    assert outline.contains(shape({"type": "Point", "coordinates": (300, 300)}))
    assert made["area_um2"] == pytest.approx(outline.area * 0.25)
    assert first["seconds"]["predict"] > 0
    assert (first["can_undo"], first["can_redo"]) == (True, False)

    second = server.click(slide, 420, 300, object=1)
    assert shape(only(second)["geometry"]).area > outline.area
    undone = server.act(slide, kind="undo")
    assert shape(only(undone)["geometry"]).equals(outline)
    assert undone["can_redo"]
    redone = server.act(slide, kind="redo")
    assert only(redone)["geometry"] == only(second)["geometry"]
    gone = server.act(slide, kind="delete", object=1)
    assert (gone["objects"], gone["removed"]) == ([], [1])
    assert server.annotations(slide)["objects"] == []


def test_labels_names_classes_boxes_and_strokes(server: Server, slide: str) -> None:
    server.act(
        slide, kind="stroke", object=None, points=[[300, 300], [500, 350]], radius=20, erase=False,
        mpp=1.0, label="Stroma",
    )  # fmt: skip
    server.act(slide, kind="label", object=1, label="Necrosis")
    server.act(slide, kind="name", object=1, name="lesion 3")
    server.act(slide, kind="box", object=None, x0=600, y0=400, x1=700, y1=500, mpp=1.0, label="T")
    classes = [{"name": "Only", "colour": [1, 2, 3], "key": "q"}]
    server.act(slide, kind="classes", classes=classes)
    seen = server.annotations(slide)
    assert seen["classes"] == classes
    first, second = seen["objects"]
    assert (first["label"], first["name"], first["version"]) == ("Necrosis", "lesion 3", 3)
    assert shape(first["geometry"]).contains(Polygon([(300, 300), (500, 350), (400, 325)]))
    assert second["box"] == [600, 400, 700, 500]


def test_only_what_changed_is_sent(server: Server, slide: str) -> None:
    for x in (200, 500, 800):
        server.click(slide, x, 300)
    assert len(server.annotations(slide)["objects"]) == 3
    assert server.annotations(slide, after=3)["objects"] == []
    server.act(slide, kind="name", object=2, name="two")
    server.act(slide, kind="delete", object=1)
    seen = server.annotations(slide, after=3)
    assert [each["id"] for each in seen["objects"]] == [2]
    assert seen["removed"] == [1]
    reply = server.client.post(
        f"/api/slides/{slide}/events?after=3",
        json={"id": "one", "kind": "name", "object": 3, "name": "three"},
    ).json()
    assert {each["id"] for each in reply["objects"]} == {2, 3}  # also what others did meanwhile
    assert reply["removed"] == [1]


def test_asked_twice_it_is_done_once(server: Server, slide: str) -> None:
    body = {"id": "the-same", "kind": "click", "object": None, "x": 200, "y": 200,
            "positive": True, "mpp": 1.0, "label": ""}  # fmt: skip
    path = f"/api/slides/{slide}/events"
    first = server.client.post(path, json=body).json()
    second = server.client.post(path, json=body).json()
    assert second["objects"] == first["objects"]
    assert server.annotations(slide)["seq"] == 1
    together = {**body, "id": "another"}
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: server.client.post(path, json=together), range(8)))
    assert {reply.status_code for reply in replies} == {200}
    assert server.annotations(slide)["seq"] == 2


def test_undo_takes_back_ones_own_last_action(server: Server, slide: str) -> None:
    server.act(slide, tab="left", kind="click", object=None, x=200, y=200, positive=True, mpp=1.0)
    server.act(slide, tab="right", kind="click", object=None, x=700, y=300, positive=True, mpp=1.0)
    gone = server.act(slide, tab="left", kind="undo")
    assert gone["removed"] == [1]
    assert [each["id"] for each in server.annotations(slide)["objects"]] == [2]


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        ({"kind": "undo"}, "nothing to take back"),
        ({"kind": "redo"}, "nothing to do again"),
        ({"kind": "delete", "object": 7}, "no object 7"),
        ({"kind": "click", **SOMEWHERE, "x": 5000}, "outside"),
        ({"kind": "click", **SOMEWHERE, "object": 3}, "no object 3"),
        (
            {"kind": "stroke", "object": None, "points": [[0, 0]], "radius": 1e7, "erase": False,
             "mpp": 0.01},
            "",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_and_changes_nothing(
    server: Server, slide: str, action: dict[str, Any], sentence: str
) -> None:
    reply = server.client.post(f"/api/slides/{slide}/events", json={"id": "x", **action})
    if sentence:
        assert reply.status_code == 400
        assert sentence in reply.json()["detail"]
        assert server.annotations(slide)["seq"] == 0
    else:  # as large as the slide, but not larger
        assert reply.status_code == 200


def test_a_stroke_over_too_many_pixels_is_refused(
    server: Server, slide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histoclick.server.extents.MAX_STROKE_PX", 100_000)
    action = {"id": "x", "kind": "stroke", "object": None, "points": [[0, 0], [600, 600]],
              "radius": 10, "erase": False, "mpp": 0.1}  # fmt: skip
    path = f"/api/slides/{slide}/events"
    reply = server.client.post(path, json=action)
    assert (reply.status_code, "zoom out" in reply.json()["detail"]) == (400, True)
    assert server.client.post(path, json={**action, "mpp": 2}).status_code == 200
    again = server.client.post(path, json={**action, "id": "y", "object": 1})  # at 2 um/px as well
    assert again.status_code == 200


@pytest.mark.parametrize(
    "stroke",
    [
        {"points": [[500, 500]], "radius": 1e-300},
        {"points": [[j * 7919 % 800, j * 104729 % 600] for j in range(10_000)], "radius": 40},
    ],
    ids=["too thin", "too much"],
)
def test_a_stroke_that_cannot_be_painted_is_not_stored(
    server: Server, slide: str, stroke: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histoclick.server.extents.MAX_STROKE_ROWS", 100_000)
    action = {"id": "x", "kind": "stroke", "object": None, "erase": False, "mpp": 0.5, **stroke}
    reply = server.client.post(f"/api/slides/{slide}/events", json=action)
    assert reply.status_code in (400, 422)
    assert server.annotations(slide)["seq"] == 0


def test_new_slides_begin_with_the_classes_that_were_set_last(slides: Path, tmp_path: Path) -> None:
    classes = [{"name": "Gland", "colour": [1, 2, 3], "key": "g"}]
    with serving([slides], tmp_path / "store") as server:
        one, two = server.id_of("a.tif"), server.id_of("b.tif")
        server.act(one, kind="classes", classes=classes)
        assert server.annotations(two)["classes"] == classes
    with serving([slides], tmp_path / "store") as server:
        two = server.id_of("b.tif")
        assert server.annotations(two)["classes"] == classes
        server.click(two, 300, 300)
    with Store.open(str(tmp_path / "store")) as store:  # the log says it, for those who fold it
        kinds = [
            [event["action"]["kind"] for event in store.events(known["key"])]
            for known in store.slides()
        ]
    assert kinds == [["classes"], ["classes", "click"]]


def test_an_outline_too_large_for_a_resolution_is_worked_on_at_a_coarser_one(
    server: Server, slide: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("histoclick.server.extents.MAX_OBJECT_PX", 50_000)
    content = geojson(Annotation(box(100, 100, 700, 700)), tmp_path=tmp_path)
    server.client.post(f"/api/slides/{slide}/import", files={"file": ("x.geojson", content)})
    click = {"id": "x", "kind": "click", **SOMEWHERE, "object": 1}
    path = f"/api/slides/{slide}/events"
    reply = server.client.post(path, json={**click, "mpp": 0.5})
    assert (reply.status_code, "zoom out" in reply.json()["detail"]) == (400, True)
    assert server.client.post(path, json={**click, "mpp": 2.0}).status_code == 200
    assert server.client.post(path, json={**click, "id": "y", "mpp": 0.5}).status_code == 200


BAD: list[dict[str, Any]] = [
    {"kind": "nonsense"},
    {"kind": "click"},
    {"kind": "click", "object": None, "x": "1", "y": 1, "positive": True, "mpp": 1},
    {"kind": "click", "object": None, "x": 1, "y": 1, "positive": 1, "mpp": 1},
    {"kind": "click", "object": None, "x": 1, "y": 1, "positive": True, "mpp": 0},
    {"kind": "click", "object": None, "x": 1e9, "y": 1, "positive": True, "mpp": 1},
    {"kind": "click", "object": 1.5, "x": 1, "y": 1, "positive": True, "mpp": 1},
    {"kind": "click", "object": 2**63, "x": 1, "y": 1, "positive": True, "mpp": 1},
    {"kind": "click", "object": None, "x": 1, "y": 1, "positive": True, "mpp": 1, "more": 1},
    {"kind": "label", "object": 1, "label": "x" * 201},
    {"kind": "label", "object": 1, "label": "\0"},
    {"kind": "label", "object": 1, "label": None},
    {"kind": "classes", "classes": [{"name": "a", "colour": [1, 2, 3]}] * 101},
    {"kind": "classes", "classes": [{"name": "a", "colour": [1, 2, 256]}]},
    {"kind": "import", "outlines": []},
    {"kind": "stroke", "object": None, "points": [[0, 0]] * 10_001, "radius": 1, "erase": False,
     "mpp": 1},
    {"kind": "stroke", "object": 1, "points": [[0, 0, 0]], "radius": 1, "erase": False, "mpp": 1},
    {"kind": "stroke", "object": None, "points": [], "radius": 1, "erase": False, "mpp": 1},
    {"kind": "undo", "id": "x" * 65},
    {"kind": "undo", "id": ""},
]  # fmt: skip


@pytest.mark.parametrize("action", BAD, ids=range(len(BAD)))
def test_malformed_actions_are_refused(standing: Server, action: dict[str, Any]) -> None:
    reply = standing.client.post(
        f"/api/slides/{standing.id_of('a.tif')}/events", json={"id": "x", **action}
    )
    assert reply.status_code == 422
    assert isinstance(reply.json()["detail"], str)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 100_000,
        b'{"id":"x","kind":"click","object":null,"x":NaN,"y":1,"positive":true,"mpp":1}',
        b'{"id":"x","kind":"click","object":null,"x":1e999,"y":1,"positive":true,"mpp":1}',
        b'{"id":"x","kind":"label","object":1,"label":"\\ud800"}',
        b'{"id":"x","kind":"label","object":' + b"9" * 5000 + b',"label":""}',
    ],
    ids=range(10),
)  # fmt: skip
def test_malformed_json_is_refused(standing: Server, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    reply = standing.client.post(
        f"/api/slides/{standing.id_of('a.tif')}/events", content=body, headers=headers
    )
    assert reply.status_code in (400, 422), reply.text
    assert isinstance(reply.json()["detail"], str)
    assert standing.annotations(standing.id_of("a.tif"))["seq"] == 0


def test_a_slide_that_does_not_open_says_why(server: Server) -> None:
    broken = server.id_of("broken.svs")
    for path in ("", "/annotations", "/slide.dzi", "/thumbnail.jpeg", "/export"):
        reply = server.client.get(f"/api/slides/{broken}{path}")
        assert reply.status_code == 400
        assert "broken.svs" in reply.json()["detail"]


# Durable


def test_everything_is_there_after_a_restart(slides: Path, tmp_path: Path) -> None:
    with serving([slides], tmp_path / "store.sqlite") as server:
        slide = server.id_of("a.tif")
        server.click(slide, 300, 300)
        server.click(slide, 380, 320, object=1)
        server.act(slide, kind="name", object=1, name="kept")
        before = server.annotations(slide)
    with serving([slides], tmp_path / "store.sqlite") as server:
        listed = server.client.get("/api/slides").json()
        objects = {each["name"]: each["objects"] for each in listed}
        assert objects == {"a.tif": None, "b.tif": 0, "broken.svs": 0}  # to be counted
        listed = server.client.get("/api/slides").json()
        assert {each["name"]: each["objects"] for each in listed}["a.tif"] == 1
        after = server.annotations(slide)
        assert after["objects"] == before["objects"]
        assert after["can_undo"]
        more = server.click(slide, 300, 420, object=1)
        assert only(more)["clicks"] == [*before["objects"][0]["clicks"],
                                        {"x": 300, "y": 420, "positive": True}]  # fmt: skip


def test_two_servers_on_one_store_see_each_other(slides: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    with serving([slides], store) as one, serving([slides], store) as two:
        slide = one.id_of("a.tif")
        one.click(slide, 200, 200)
        assert [each["id"] for each in two.annotations(slide)["objects"]] == [1]

        def work(server: Server) -> None:
            for x in range(8):
                server.click(slide, 100 + 100 * x, 500)

        threads = [threading.Thread(target=work, args=(server,)) for server in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        first, second = one.annotations(slide), two.annotations(slide)
        assert first["seq"] == second["seq"] == 17
        assert len(first["objects"]) == 17
        assert first["objects"] == second["objects"]


def test_a_number_taken_meanwhile_is_tried_again(slides: Path, tmp_path: Path) -> None:
    class Contested(Store):
        conflicts = 0

        def append(self, slide_key: str, row: Any) -> None:
            if self.conflicts < 3:
                self.conflicts += 1
                other = dict(row) | {"id": f"other {self.conflicts}", "result": None}
                other["action"] = {"kind": "classes", "classes": []}
                super().append(slide_key, other)
            super().append(slide_key, row)

    library, engine = Library([slides]), Engine(open_model(), card())
    with Contested.open(str(tmp_path / "store.sqlite")) as store:
        sessions = Sessions(library, store, engine)
        slide = library.find("a").id  # type: ignore[union-attr]
        click = ClickOn(None, 100, 100, True, 1.0)
        event = sessions.act(slide, click, "mine", Author("c", ""), lambda _, event: event)
        assert event is not None
        assert event.seq == 4

        def always(*_: Any) -> None:
            raise Conflict

        store.append = always  # type: ignore[method-assign]
        with pytest.raises(HistoclickError, match="too many others"):
            sessions.act(slide, click, "next", Author("c", ""), lambda _, event: event)
    engine.close()


def test_what_is_not_stored_is_not_shown(server: Server, slide: str, monkeypatch: Any) -> None:
    def full(*_: Any) -> None:
        raise HistoclickError("store: the last action was not stored, the disk is full")

    monkeypatch.setattr(server.sessions._store, "append", full)
    body = {"id": "x", "kind": "click", "object": None, "x": 9, "y": 9, "positive": True, "mpp": 1}
    reply = server.client.post(f"/api/slides/{slide}/events", json=body)
    assert (reply.status_code, "disk is full" in reply.text) == (400, True)
    assert server.annotations(slide)["objects"] == []
    monkeypatch.undo()
    assert server.client.post(f"/api/slides/{slide}/events", json=body).status_code == 200


def test_a_book_that_broke_is_made_again(
    server: Server, slide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.click(slide, 200, 200)

    def broken(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Book, "apply", broken)
    body = {"id": "x", "kind": "name", "object": 1, "name": "stored"}
    assert server.client.post(f"/api/slides/{slide}/events", json=body).status_code == 500
    monkeypatch.undo()
    assert only(server.annotations(slide))["name"] == "stored"
    assert server.client.post(f"/api/slides/{slide}/events", json=body).status_code == 200
    assert server.annotations(slide)["seq"] == 2


def test_books_are_dropped_and_made_again(tmp_path: Path) -> None:
    for number in range(6):
        made_slide(tmp_path / "slides" / f"{number}.tif", 64, 64, seed=number)
    library, engine = Library([tmp_path / "slides"]), Engine(open_model(), card())
    with Store.open(str(tmp_path / "store.sqlite")) as store:
        sessions = Sessions(library, store, engine, max_books=2)
        ids = [entry.id for entry in library.entries()]
        for round_ in range(3):
            for id_ in ids:
                name = f"{round_} {id_}"
                action = ClickOn(None, 9, 9, True, 1.0) if round_ == 0 else Rename(1, name)
                sessions.act(id_, action, name, Author("c", ""), lambda *_: None)
                assert len(sessions._desks) <= 2
        for id_ in ids:
            assert sessions.read(id_, lambda book: book.objects[1].name) == f"2 {id_}"
    engine.close()
    library.close()


def test_clicks_on_one_slide_wait_for_each_other_and_not_for_those_on_others(
    slides: Path, tmp_path: Path
) -> None:
    library, engine = Library([slides]), Engine(open_model(), card())
    a, b = (library.find(name).id for name in ("a", "b"))  # type: ignore[union-attr]
    with Store.open(str(tmp_path / "store.sqlite")) as store:
        sessions = Sessions(library, store, engine)
        inside, outside = threading.Event(), threading.Event()

        def hold(_: Any) -> None:
            inside.set()
            assert outside.wait(20)

        holder = threading.Thread(target=lambda: sessions.read(a, hold))
        holder.start()
        assert inside.wait(20)
        done: list[str] = []
        waiter = threading.Thread(
            target=lambda: sessions.act(
                a, SetClasses(()), "x", Author("c", ""), lambda *_: done.append("a")
            )
        )
        waiter.start()
        sessions.act(b, SetClasses(()), "y", Author("c", ""), lambda *_: done.append("b"))
        time.sleep(0.05)
        assert done == ["b"]
        outside.set()
        holder.join()
        waiter.join()
        assert done == ["b", "a"]
    engine.close()


# Ahead


def test_a_view_is_encoded_before_somebody_clicks(server: Server, slide: str) -> None:
    view = {"x": 300, "y": 200, "width": 500, "height": 400, "mpp": 0.5}
    path = f"/api/slides/{slide}/ahead"
    reply = server.client.post(path, json=view, headers={"X-Client": "tab"})
    assert (reply.status_code, reply.json()) == (202, {"ready": False})
    end = time.monotonic() + 20
    while not server.client.post(path, json=view, headers={"X-Client": "tab"}).json()["ready"]:
        assert time.monotonic() < end
    asked: list[Any] = []
    encode = server.engine._segmenter.encode
    server.engine._segmenter.encode = lambda image: (asked.append(1), encode(image))[1]  # type: ignore[method-assign]
    for x, y in ((310, 210), (550, 400), (790, 590)):
        server.click(slide, x, y, mpp=0.5)
    assert not asked
    server.click(slide, 1250, 850, mpp=0.5)
    assert asked


@pytest.mark.parametrize(
    "view",
    [
        {"x": -1e7, "y": 0, "width": 1, "height": 1, "mpp": 1},
        {"x": -1e7, "y": -1e7, "width": 1e7, "height": 1e7, "mpp": 0.01},
        {"x": 0, "y": 0, "width": 1300, "height": 900, "mpp": 1000},
    ],
)
def test_views_may_lie_anywhere(server: Server, slide: str, view: dict[str, float]) -> None:
    assert server.client.post(f"/api/slides/{slide}/ahead", json=view).status_code == 202


def test_the_pictures_that_the_model_sees_are_the_slides(slides: Path, tmp_path: Path) -> None:
    library = Library([slides])
    model = open_model()
    seen: list[np.ndarray] = []
    encode = model.encode
    model.encode = lambda image: (seen.append(image), encode(image))[1]  # type: ignore[method-assign]
    engine = Engine(model, card())
    with Store.open(str(tmp_path / "store.sqlite")) as store:
        sessions = Sessions(library, store, engine)
        slide_id = library.find("a").id  # type: ignore[union-attr]
        look = sessions.act(
            slide_id, ClickOn(None, 700, 500, True, 0.5), "x", Author("c", ""), lambda _, e: e
        )
        assert look is not None
        x, y, width, height = look.facts["window"]
        with open_slide(slides / "a.tif") as slide:
            assert np.array_equal(seen[0], slide.read(Rect(x, y, width, height), 448, 448))
    engine.close()


# Files


@pytest.mark.parametrize("name", ["qupath", "asap", "aperio", "dsa", "coco", "mask"])
def test_what_is_exported_is_what_is_there(
    server: Server, slide: str, name: str, tmp_path: Path
) -> None:
    content = geojson(
        Annotation(LESION, "Tumor", (200, 0, 0)), Annotation(box(600, 400, 800, 700), "Stroma"),
        tmp_path=tmp_path,
    )  # fmt: skip
    path = f"/api/slides/{slide}"
    reply = server.client.post(f"{path}/import", files={"file": ("x.geojson", content)})
    assert reply.status_code == 200, reply.text
    assert len(reply.json()["objects"]) == 2
    exported = server.client.get(f"{path}/export", params={"format": name})
    assert exported.status_code == 200, exported.text
    assert isinstance(json.loads(unquote(exported.headers["X-Notes"])), list)
    suffix = annotations.FORMATS[name].suffixes[0]
    assert exported.headers["Content-Disposition"].endswith(f"a{suffix}")
    back = tmp_path / f"a{suffix}"
    back.write_bytes(exported.content)
    with open_slide(server.library.entry(slide).path) as opened:
        document = annotations.read(back, Canvas.of(opened))
    window = Rect(0, 0, 1300, 900)
    found = np.any([rasterise(each.shape, window, 1300, 900) for each in document.annotations], 0)
    expected = rasterise(LESION, window, 1300, 900) | rasterise(
        box(600, 400, 800, 700), window, 1300, 900
    )
    assert np.array_equal(found, expected)


@pytest.fixture
def faithful(slides: Path, tmp_path: Path) -> Iterator[Server]:
    """Its model goes on from the mask that it is given."""
    with serving([slides], tmp_path / "faithful.sqlite", FakeSegmenter()) as made:
        yield made


def test_an_imported_outline_is_corrected_with_clicks(faithful: Server, tmp_path: Path) -> None:
    server, slide = faithful, faithful.id_of("a.tif")
    content = geojson(Annotation(LESION, "Ödem", (9, 8, 7), "näme"), tmp_path=tmp_path)
    path = f"/api/slides/{slide}"
    file, tab = {"file": ("x.geojson", content)}, {"X-Client": "tab"}
    reply = server.client.post(f"{path}/import", files=file, headers=tab).json()
    made = only(reply)
    assert (made["label"], made["name"], made["mpp"]) == ("Ödem", "näme", None)
    assert shape(made["geometry"]).equals(LESION)
    assert {"name": "Ödem", "colour": [9, 8, 7], "key": ""} in reply["classes"]
    after = only(server.click(slide, 500, 200, object=made["id"], mpp=0.5))
    window = Rect(0, 0, 1300, 900)
    before = rasterise(LESION, window, 1300, 900)
    now = rasterise(shape(after["geometry"]), window, 1300, 900)
    assert now[200, 500]
    assert (now & before).sum() > 0.99 * before.sum()
    assert 0 < (now & ~before).sum() < 400  # about a disc of 8 px
    undone = server.act(slide, kind="undo")
    assert shape(only(undone)["geometry"]).equals(LESION)
    server.act(slide, kind="undo")
    assert server.annotations(slide)["objects"] == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.geojson", b""),
        ("a.geojson", b"{}"),
        ("../../../etc/passwd", b"root"),
        ("a.xml", b'<!DOCTYPE a [<!ENTITY b "cc">]><a>&b;</a>'),
        ("a.json.gz", b"\x1f\x8b\x08" + bytes(100)),
        ("a" * 300 + ".geojson", b"["),
        ("", b"x"),
        ("a.geojson", mapping(LESION).__repr__().encode()),
    ],
    ids=range(8),
)
def test_files_that_are_none_are_told(standing: Server, name: str, content: bytes) -> None:
    reply = standing.client.post(
        f"/api/slides/{standing.id_of('a.tif')}/import", files={"file": (name, content)}
    )
    assert reply.status_code in (400, 422)
    sentence = reply.json()["detail"]
    assert "histoclick-" not in sentence  # the folder in which it was looked at
    assert standing.annotations(standing.id_of("a.tif"))["seq"] == 0


def test_formats_that_are_none_are_told(server: Server, slide: str) -> None:
    for name in ("nothing", "darwin", "../../x", "x" * 5000):
        reply = server.client.get(f"/api/slides/{slide}/export", params={"format": name})
        assert reply.status_code == 400
        assert "can be written" in reply.json()["detail"]
    reply = server.client.get(f"/api/slides/{slide}/export", params={"format": "dicom-seg"})
    assert reply.status_code == 400


def test_every_format_that_is_offered_can_be_asked_for(server: Server, slide: str) -> None:
    info = server.client.get("/api/info").json()
    assert info["model"]["id"] == "discs"
    assert info["model"]["window_px"] == 448
    assert info["version"]
    server.click(slide, 300, 300)
    for each in info["formats"]:
        reply = server.client.get(f"/api/slides/{slide}/export", params={"format": each["name"]})
        assert reply.status_code == (400 if each["name"] == "dicom-seg" else 200)


def test_who_works_is_kept(slides: Path, tmp_path: Path) -> None:
    with serving([slides], tmp_path / "store.sqlite", user="Ada") as server:
        slide = server.id_of("a.tif")
        path = f"/api/slides/{slide}/events"
        body = {"kind": "classes", "classes": []}
        server.client.post(path, json={"id": str(uuid.uuid4()), **body})
        headers = {"X-User": "J%C3%BCrgen", "X-Client": "t1"}
        server.client.post(path, json={"id": str(uuid.uuid4()), **body}, headers=headers)
        bad = server.client.post(path, json={"id": "z", **body}, headers={"X-User": "a%0Ab"})
        assert bad.status_code == 422
        key = server.library.entry(slide).key
        rows = list(server.sessions._store.events(key))
    assert [(row["user"], row["client"]) for row in rows] == [("Ada", "-"), ("Jürgen", "t1")]


def test_large_answers_are_not_written_in_the_event_loop(
    server: Server, slide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def here(**_: Any) -> None:
        raise AssertionError("in the event loop")

    monkeypatch.setattr("fastapi.routing.serialize_response", here)
    made = server.act(slide, kind="click", label="", **SOMEWHERE | {"x": 300, "y": 300})
    assert server.annotations(slide)["objects"] == made["objects"]
    file = {"file": ("a.geojson", json.dumps(mapping(LESION)))}
    assert server.client.post(f"/api/slides/{slide}/import", files=file).status_code == 200


def test_a_crowd_on_one_slide_keeps_nobody_else_from_looking(slides: Path, tmp_path: Path) -> None:
    gate = threading.Event()
    with serving([slides], tmp_path / "store.sqlite") as server:
        slide = server.id_of("a.tif")
        read = server.sessions.read

        def slow(*asked: Any) -> Any:
            assert gate.wait(20)
            return read(*asked)

        async def crowd() -> list[int]:
            transport = httpx2.ASGITransport(server.app)
            async with httpx2.AsyncClient(transport=transport, base_url=HOME) as client:
                path = f"/api/slides/{slide}/annotations"
                asking = [asyncio.create_task(client.get(path)) for _ in range(OF_SLIDE + 1)]
                done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
                looked = [await client.get("/api/slides"), await client.get(f"/api/slides/{slide}")]
                gate.set()
                await asyncio.wait(asking)
                (refused,) = done
                assert refused.result().headers["Retry-After"] == "1"
                return [*(each.status_code for each in looked),
                        *sorted(each.result().status_code for each in asking)]  # fmt: skip

        server.sessions.read = slow  # type: ignore[method-assign]
        try:
            assert asyncio.run(crowd()) == [200, 200] + [200] * OF_SLIDE + [503]
        finally:
            gate.set()


def test_a_store_that_takes_nothing_now_is_no_refusal(
    server: Server, slide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: Any) -> None:
        raise Unavailable("/home/me/store.sqlite", "the last action was not stored")

    monkeypatch.setattr(server.sessions._store, "append", locked)
    path = f"/api/slides/{slide}/events"
    reply = server.client.post(path, json={"id": "x", "kind": "click", **SOMEWHERE})
    assert reply.status_code == 503  # which the page's outbox repeats
    assert reply.json() == {"detail": "the last action was not stored"}
