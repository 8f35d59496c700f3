from __future__ import annotations

import email
import io
import json
from collections.abc import Iterator
from pathlib import Path
from xml.dom import minidom

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from shapely import MultiPolygon, Polygon, box
from shapely.geometry.polygon import orient

from askers import Knowing, client_of, comb, engine_of, png
from drawings import regions
from fakes import disc
from histoclick.annotations.shapes import polygons
from histoclick.geometry import Rect
from histoclick.masks import rasterise, trace
from histoclick.pyramids import write_pyramid
from histoclick.server import monai
from histoclick.server.library import Library
from histoclick.server.regions import Region
from histoclick.server.slits import one_ring
from histoclick.slides import Slide, open_slide
from histoclick.types import HistoclickError

PINK, DARK = (230, 180, 210), (90, 40, 120)
WIDTH, HEIGHT = 1600, 1200


def painted(mask: np.ndarray) -> np.ndarray:
    return np.where(mask[..., None], DARK, PINK).astype(np.uint8)


def seen(picture: np.ndarray) -> np.ndarray:
    return picture[..., 0] < 160


def tumour() -> np.ndarray:
    """(HEIGHT, WIDTH) bool: of blocks of 4 px, so that every scale up to 4 shows it exactly."""
    mask = np.zeros((HEIGHT // 4, WIDTH // 4), np.bool_)
    mask[100:200, 10:390] = comb(100, 380)
    return np.kron(mask, np.ones((4, 4), np.bool_))


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``lymph node 1.tif`` at 0.25 um/px, and a picture without a resolution."""
    folder = tmp_path_factory.mktemp("slides")
    file = folder / "lymph node 1.tif"
    write_pyramid(file, WIDTH, HEIGHT, [painted(tumour())], mpp=0.25, compression="deflate")
    Image.fromarray(painted(disc(300, 150, 150, 50))).save(folder / "small.png")
    return folder


@pytest.fixture(scope="module")
def asked(slides: Path) -> Iterator[tuple[Knowing, TestClient]]:
    model = Knowing(seen, quality=0.9)
    engine, library = engine_of(model, 380), Library([slides])
    yield model, client_of(monai.router(engine, library))
    library.close()
    engine.close()


def wsi(location, size, foreground, background=(), **more) -> dict:
    """What the QuPath plugin sends, all of it."""
    return {
        "level": 0,
        "location": list(location),
        "size": list(size),
        "tile_size": [1024, 1024],
        "min_poly_area": 30,
        "params": {
            "foreground": [list(point) for point in foreground],
            "background": [list(point) for point in background],
            "max_workers": 1,
        },
        **more,
    }


def infer(client: TestClient, body: dict, image: str = "lymph node 1", output: str = "asap"):
    """As the plugin sends it: JSON that does not say so."""
    request = client.build_request(
        "POST",
        "/infer/wsi/fake",
        params={"output": output, "image": image},
        content=json.dumps(body).encode(),
    )
    assert "content-type" not in request.headers
    return client.send(request)


def rings(xml: str) -> list[list[tuple[float, float]]]:
    """As the plugin reads them: (class, ring) of all annotations."""
    found = []
    for annotation in minidom.parseString(xml).getElementsByTagName("Annotation"):  # noqa: S318
        assert annotation.attributes["Name"].value == "Object"
        for coordinates in annotation.childNodes:
            if coordinates.nodeType != coordinates.ELEMENT_NODE:
                continue
            points = [
                (float(each.attributes["X"].value), float(each.attributes["Y"].value))
                for each in coordinates.childNodes
                if each.nodeType == each.ELEMENT_NODE
            ]
            found.append(points)
    return found


def filled(outlines: list, height: int, width: int) -> np.ndarray:
    """By the even-odd rule."""
    mask = np.zeros((height, width), np.bool_)
    for outline in outlines:
        polygon = outline if isinstance(outline, Polygon) else Polygon(outline)
        mask |= rasterise(polygon, Rect(0, 0, width, height), width, height)
    return mask


# Slides that are served.


def test_the_outline_in_a_region_is_exact_in_every_format(asked) -> None:
    _, client = asked
    mask = tumour()
    region = np.zeros_like(mask)
    region[380:820, 20:1580] = True
    body = wsi((20, 380), (1560, 440), [(60, 460)], [(1570, 385)])

    xml = infer(client, body)
    assert xml.headers["content-type"].startswith("application/xml")
    outlines = rings(xml.text)
    assert (filled(outlines, HEIGHT, WIDTH) == (mask & region)).all()
    assert len(outlines) == 3  # parts are kept

    text = infer(client, body, output="dsa").text
    document = json.loads(text)
    elements = document["elements"]
    holed = [
        Polygon([p[:2] for p in e["points"]], [[p[:2] for p in h] for h in e["holes"]])
        for e in elements
    ]
    assert (filled(holed, HEIGHT, WIDTH) == (mask & region)).all()
    assert all(polygon.is_valid for polygon in holed)
    assert {e["type"] for e in elements} == {"polyline"}
    assert all(e["closed"] and e["label"] == {"value": "Object"} for e in elements)
    described = json.loads("{" + text[-5000:].split("\n")[-2] + "}")  # as the client reads it
    assert json.loads(described["description"])["count"] == 3

    plain = infer(client, body, output="json").json()
    [annotation] = plain["annotations"]
    [element] = annotation["annotation"]["elements"]
    assert element["label"] == "Object"
    assert (filled(element["contours"], HEIGHT, WIDTH) == (mask & region)).all()


def test_a_repeated_region_is_encoded_once_and_more_points_go_on(asked) -> None:
    model, client = asked
    encoded, prompts = len(model.encoded), len(model.prompts)
    for count in range(1, 4):
        points = [(70 + 4 * i, 470) for i in range(count)]
        infer(client, wsi((24, 380), (1500, 440), points))
    assert len(model.encoded) - encoded == 1
    assert [went_on for _, went_on in model.prompts[prompts:]] == [False, True, True]


@pytest.mark.parametrize(
    ("size", "scale"), [((300, 300), 1), ((900, 500), 2), ((1600, 1200), 3), ((10**6, 10**6), 3)]
)
def test_regions_are_read_at_x10_or_as_fine_as_the_model_sees(slides, size, scale) -> None:
    with open_slide(slides / "lymph node 1.tif") as slide:
        region = Region.of(slide, Rect(0, 0, *size), 448)
        assert region.scale == scale
        whole = Region.of(slide, None, 200)
        assert (whole.scale, whole.width, whole.height) == (4, 400, 300)
    with open_slide(slides / "small.png") as picture:
        assert Region.of(picture, None, 64).scale == 1


def test_points_and_outlines_count_from_the_bounds_for_qupath_only(
    asked, slides: Path, monkeypatch
) -> None:
    _, client = asked
    original = Slide.__init__

    def bounded(self, *arguments, **named) -> None:
        original(self, *arguments, **named)
        self.bounds = Rect(40, 80, 1000, 1000)

    monkeypatch.setattr(Slide, "__init__", bounded)
    library = Library([slides])
    engine = engine_of(Knowing(seen), 380)
    moved = client_of(monai.router(engine, library))
    here = infer(client, wsi((20, 380), (1560, 440), [(60, 460)])).text
    there = infer(moved, wsi((20 - 40, 380 - 80), (1560, 440), [(60 - 40, 460 - 80)])).text
    assert [[(x + 40, y + 80) for x, y in ring] for ring in rings(there)] == rings(here)
    body = wsi((20, 380), (1560, 440), [(60, 460)])
    archive = [infer(each, body, output="dsa").json()["elements"] for each in (client, moved)]
    assert archive[0] == archive[1]
    library.close()
    engine.close()


def test_small_outlines_are_left_out_on_request(asked) -> None:
    _, client = asked
    region = (20, 380), (1560, 440)
    assert len(rings(infer(client, wsi(*region, [(60, 460)])).text)) == 3
    less = wsi(*region, [(60, 460)]) | {"min_poly_area": 3000}
    assert len(rings(infer(client, less).text)) == 1


def test_all_of_a_slide_only_if_it_is_small(asked, monkeypatch) -> None:
    _, client = asked
    for size in ((0, 0), (-1, -1)):
        reply = infer(client, wsi((0, 0), size, [(150, 150)]), "small")
        assert (filled(rings(reply.text), 300, 300) == disc(300, 150, 150, 50)).all()
    monkeypatch.setattr("histoclick.server.regions.MAX_PIXELS", 1_000_000)
    reply = infer(client, wsi((0, 0), (0, 0), [(60, 460)]))
    assert reply.status_code == 400
    assert "select a rectangle" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (wsi((20, 380), (1560, 440), []), "at least one foreground point"),
        (wsi((20, 380), (1560, 440), [], [(60, 460)]), "at least one foreground point"),
        (wsi((20, 380), (1560, 440), [(5, 5)]), "at least one foreground point"),
        (wsi((5000, 0), (100, 100), [(5050, 50)]), "outside the slide"),
    ],
)
def test_nothing_to_go_on_is_told(asked, body: dict, sentence: str) -> None:
    _, client = asked
    reply = infer(client, body)
    assert reply.status_code == 400
    assert sentence in reply.json()["detail"]


def test_an_empty_answer_is_an_empty_document(slides: Path) -> None:
    engine = engine_of(Knowing(lambda picture: np.zeros(picture.shape[:2], np.bool_)), 448)
    library = Library([slides])
    client = client_of(monai.router(engine, library))
    body = wsi((20, 380), (1560, 440), [(60, 460)])
    assert rings(infer(client, body).text) == []
    assert infer(client, body, output="dsa").json()["elements"] == []
    assert (
        infer(client, body, output="json").json()["annotations"][0]["annotation"]["elements"] == []
    )
    library.close()
    engine.close()


# Patches that are sent.


def test_a_patch_is_answered_in_its_own_px(asked) -> None:
    _, client = asked
    mask = comb(100, 380)
    body = wsi((0, 0), (0, 0), [(15, 15)]) | {"min_poly_area": 0}
    for output in ("asap", "dsa", "json"):
        reply = client.post(
            "/infer/wsi_v2/fake",
            params={"output": output},
            files={"file": ("patch.png", png(painted(mask)))},
            data={"wsi": json.dumps(body)},
        )
        assert reply.status_code == 200
        if output == "asap":
            assert (filled(rings(reply.text), 100, 380) == mask).all()
            head = minidom.parseString(reply.text).getElementsByTagName("Annotations")[0]  # noqa: S318
            assert [head.attributes[name].value for name in "XYWH"] == ["0", "0", "380", "100"]


def test_a_slide_by_name_also_as_a_form(asked) -> None:
    _, client = asked
    body = wsi((20, 380), (1560, 440), [(60, 460)])
    reply = client.post(
        "/infer/wsi_v2/fake",
        params={"output": "asap", "image": "lymph node 1"},
        data={"wsi": json.dumps(body)},
    )
    assert rings(reply.text) == rings(infer(client, body).text)


def test_masks_as_png_json_or_both(asked) -> None:
    _, client = asked
    mask = comb(100, 380)
    files = {"file": ("patch.png", png(painted(mask)))}
    data = {"params": json.dumps({"foreground": [[15, 15, 0]], "background": []})}
    reply = client.post("/infer/fake", files=files, data=data)
    assert reply.headers["content-type"] == "image/png"
    assert (np.asarray(Image.open(io.BytesIO(reply.content))) == mask).all()
    facts = client.post("/infer/fake", params={"output": "json"}, files=files, data=data).json()
    assert facts["quality"] == 0.9
    both = client.post("/infer/fake", params={"output": "all"}, files=files, data=data)
    head = f"Content-Type: {both.headers['content-type']}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + both.content).get_payload()
    named = {part.get_param("name", header="content-disposition"): part for part in parts}
    assert json.loads(named["params"].get_payload())["label_names"] == {"Object": 1}
    picture = named["image"].get_payload(decode=True)
    assert (np.asarray(Image.open(io.BytesIO(picture))) == mask).all()
    by_name = client.post(
        "/infer/fake", params={"image": "small"}, data={"params": '{"foreground": [[150, 150]]}'}
    )
    decoded = cv2.imdecode(np.frombuffer(by_name.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert (decoded == disc(300, 150, 150, 50)).all()
    assert client.post("/infer/fake", params={"output": "dicom_seg"}).status_code == 501


# What the clients ask before.


def test_info_has_what_the_clients_read(asked) -> None:
    _, client = asked
    info = client.get("/info/").json()
    [(name, model)] = info["models"].items()
    assert name == "fake"
    assert model["labels"] == ["Object"]
    assert (model["dimension"], model["pathology"], model["nuclick"]) == (2, True, False)
    for field in ("name", "description", "version", "labels", "strategies", "trainers"):
        assert info[field] is not None
    assert client.get("/auth/").json() == {"enabled": False}


def test_the_datastore_knows_slides_by_their_stem(asked) -> None:
    _, client = asked
    assert client.head("/datastore/image", params={"image": "lymph node 1"}).status_code == 200
    assert client.head("/datastore/image", params={"image": "other"}).status_code == 404
    assert client.head("/datastore/image", params={"image": "../lymph node 1"}).status_code == 404
    assert client.head("/datastore/image", params={"image": ""}).status_code == 404
    assert set(client.get("/datastore/").json()["objects"]) == {"lymph node 1", "small"}
    info = client.get("/datastore/image/info", params={"image": "small"}).json()
    assert (info["width"], info["height"]) == (300, 300)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/datastore/image?image=a", 501),
        ("GET", "/datastore/image?image=small", 501),
        ("PUT", "/datastore/label?image=a&tag=final", 501),
        ("GET", "/datastore/label?image=a", 501),
        ("POST", "/activelearning/random", 501),
        ("POST", "/train/fake", 501),
        ("DELETE", "/train/", 501),
        ("GET", "/train/?check_if_running=true", 404),
        ("PUT", "/session/", 501),
        ("POST", "/infer/wsi/other", 404),
        ("POST", "/infer/wsi_v2/other", 404),
        ("POST", "/infer/other", 404),
        ("POST", "/infer/wsi/fake?image=nowhere", 404),
    ],
)
def test_what_is_not_here_is_told_in_a_sentence(asked, method, path, status) -> None:
    _, client = asked
    reply = client.request(method, path, content=b"{}")
    assert reply.status_code == status
    assert "histoclick" in reply.text or "there is fake" in reply.text or "no slide" in reply.text


# Anything at all.

numbers = st.one_of(
    st.integers(-2000, 2000), st.floats(-1e4, 1e4), st.sampled_from([10**400, 1e300])
)
pairs = st.lists(numbers, min_size=2, max_size=2)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "location": pairs | st.none() | st.text(max_size=3),
        "size": pairs | st.none(),
        "min_poly_area": numbers,
        "output": st.sampled_from(["asap", "dsa", "json", "other"]),
        "params": st.fixed_dictionaries(
            {},
            optional={"foreground": st.lists(pairs, max_size=4), "background": st.none() | pairs},
        ),
        "wsi_tiles": st.just([{"location": [0, 0]}]),
    },
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=bodies, output=st.sampled_from(["asap", "dsa", "json"]), form=st.booleans())
def test_no_body_breaks_it(asked, body: dict, output: str, form: bool) -> None:
    _, client = asked
    if form:
        reply = client.post(
            "/infer/wsi_v2/fake",
            params={"output": output},
            files={"file": ("p.png", png(painted(disc(60, 30, 30, 20))))},
            data={"wsi": json.dumps(body)},
        )
    else:
        reply = infer(client, body, output=output)
    assert reply.status_code in (200, 400, 422)
    if reply.status_code != 200:
        assert isinstance(reply.json()["detail"], str)
    elif output == "asap":
        rings(reply.text)
    else:
        reply.json()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(max_size=40))
def test_no_form_breaks_it(asked, text: str) -> None:
    _, client = asked
    files = {"file": ("p.png", png(painted(disc(60, 30, 30, 20))))}
    for path, field in (("/infer/wsi_v2/fake", "wsi"), ("/infer/fake", "params")):
        assert client.post(path, files=files, data={field: text}).status_code in (400, 422)


# Slits.


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.1, 0.9), size=st.integers(1, 24))
def test_one_ring_has_the_pixels_and_the_area_of_a_polygon_with_holes(seed, share, size) -> None:
    mask = np.random.default_rng(seed).random((size, size + 3)) < share
    for polygon in trace([mask]).get(1, []):
        check_ring(polygon, size, size + 3)


@settings(max_examples=100, deadline=None)
@given(region=regions())
def test_one_ring_of_any_polygon(region: Polygon | MultiPolygon) -> None:
    assume(region.is_valid)
    for polygon in polygons(region):
        ring = one_ring(polygon)
        assert Polygon(ring).buffer(0).symmetric_difference(polygon).area < 1e-6 * polygon.area


def test_one_ring_of_holes_behind_each_other() -> None:
    holes = [box(10 * i + 2, 2, 10 * i + 8, 8).exterior for i in range(9)]
    check_ring(Polygon(box(0, 0, 95, 10).exterior, holes), 10, 95)


def check_ring(polygon: Polygon, height: int, width: int) -> None:
    ring = one_ring(polygon)
    rect0 = Rect(0, 0, width, height)
    assert (
        rasterise(Polygon(ring), rect0, width, height) == rasterise(polygon, rect0, width, height)
    ).all()
    x, y = ring.T
    shoelace = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2
    assert abs(shoelace) == pytest.approx(polygon.area)
    assert len(ring) == len(orient(polygon).exterior.coords) - 1 + sum(
        len(hole.coords) + 2 for hole in polygon.interiors
    )


def test_regions_outside_are_refused(slides: Path) -> None:
    with (
        open_slide(slides / "small.png") as slide,
        pytest.raises(HistoclickError, match="outside the slide"),
    ):
        Region.of(slide, Rect(300, 0, 10, 10), 448)
