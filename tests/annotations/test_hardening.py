"""Files that attack, lie or are broken: refused, or mended, in bounded time and memory."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import shapely

from histoclick.annotations import FORMATS, read, recognise, shapes, sources
from histoclick.types import HistoclickError

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]


def feature(coordinates: object, kind: str = "Polygon", **properties: object) -> dict[str, object]:
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def geojson(path: Path, *features: object) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def asap(path: Path, vertices: str, start: str = '<?xml version="1.0"?>', name: str = "") -> Path:
    path.write_text(
        f"{start}<ASAP_Annotations{name}><Annotations>"
        f'<Annotation Name="a" Type="Polygon" PartOfGroup="None" Color="#F4FA58"><Coordinates>'
        f"{vertices}</Coordinates></Annotation></Annotations><AnnotationGroups />"
        "</ASAP_Annotations>",
        encoding="utf-8",
    )
    return path


def coordinates(*pairs: tuple[object, object]) -> str:
    return "".join(
        f'<Coordinate Order="{index}" X="{x}" Y="{y}" />' for index, (x, y) in enumerate(pairs)
    )


TRIANGLE = coordinates((0, 0), (10, 0), (0, 10))


def test_external_entities_are_not_fetched(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("7")
    start = f'<!DOCTYPE a [<!ENTITY x SYSTEM "{secret.as_uri()}">]>'
    path = asap(tmp_path / "a.xml", coordinates((0, 0), (10, 0), ("&x;", 10)), start)
    assert recognise(path).name == "asap"
    with pytest.raises(HistoclickError, match="entities"):
        read(path)


def test_a_billion_laughs(tmp_path: Path) -> None:
    laughs = ['<!ENTITY l0 "ha">']
    laughs += [f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10)]
    path = asap(tmp_path / "a.xml", "&l9;", f"<!DOCTYPE a [{''.join(laughs)}]>")
    with pytest.raises(HistoclickError, match="entities"):
        read(path)


def test_even_an_innocent_document_type_is_refused(tmp_path: Path) -> None:
    path = asap(tmp_path / "a.xml", TRIANGLE, '<!DOCTYPE ASAP_Annotations SYSTEM "a.dtd">')
    with pytest.raises(HistoclickError, match="document type"):
        read(path)


@pytest.mark.parametrize("name", [' xmlns="urn:x"', ' xmlns:x="urn:x" x:a="1"'])
def test_namespaces(tmp_path: Path, name: str) -> None:
    path = asap(tmp_path / "a.xml", TRIANGLE, name=name)
    if "x:a" in name:
        assert len(read(path).annotations) == 1
    else:
        with pytest.raises(HistoclickError, match="namespace 'urn:x'"):
            read(path)


def test_a_prefix_is_a_namespace_too(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text('<q:Annotations xmlns:q="urn:q"><q:Annotation/></q:Annotations>')
    with pytest.raises(HistoclickError, match="namespace 'urn:q'"):
        read(path)


def test_ten_million_vertices(tmp_path: Path) -> None:
    million = b"[1,2]," * 1_000_000
    path = tmp_path / "a.geojson"
    with path.open("wb") as file:
        file.write(b'{"type":"Polygon","coordinates":[[')
        for _ in range(10):
            file.write(million)
        file.write(b"[1,2]]]}")
    with pytest.raises(HistoclickError, match="more than 5000000 vertices"):
        read(path)
    million = b'<Vertex X="1" Y="2"/>' * 1_000_000
    path = tmp_path / "a.xml"
    with path.open("wb") as file:
        file.write(b"<Annotations><Annotation><Regions><Region><Vertices>")
        for _ in range(13):
            file.write(million)
    with pytest.raises(HistoclickError, match="more than 5000000 vertices"):
        read(path)


@pytest.mark.parametrize("format_", ["xml", "json", "numbers"])
def test_vertices_are_counted_whatever_the_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    monkeypatch.setattr(sources, "MAX_VERTICES", 1000)
    monkeypatch.setattr(shapes, "MAX_VERTICES", 1000)
    ring = [(float(np.cos(a)), float(np.sin(a))) for a in np.linspace(0, 6, 1001)]
    if format_ == "xml":
        path = asap(tmp_path / "a.xml", coordinates(*ring))
    elif format_ == "json":
        path = geojson(tmp_path / "a.json", feature([ring]))
    else:  # nothing to be counted in front: a list of numbers
        path = tmp_path / "a.json"
        item = {"image_id": 1, "segmentation": [[value for pair in ring for value in pair]]}
        path.write_text(json.dumps({"images": [{"id": 1}], "annotations": [item]}))
    with pytest.raises(HistoclickError, match=r"more than \d+ vertices"):
        read(path)


def test_numbers_that_are_none(tmp_path: Path) -> None:
    good = feature([SQUARE])
    bad = [
        feature([[[0, 0], [1, float("nan")], [1, 1]]]),
        feature([[[0, 0], [1, float("inf")], [1, 1]]]),
        feature([[[0, 0], [1, 10**400], [1, 1]]]),
        feature([[[0, 0], [1, None], [1, 1]]]),
        feature([[[0, 0], [1, {"a": 1}], [1, 1]]]),
        feature([[[0, 0], [1], [1, 1]]]),
        feature([[0, 1, 2]]),
        feature([[[0, 0], [1e30, 0], [1, 1]]]),
        feature([[[0, 0], [1, 1]]]),
        feature([[[0, 0], [1, 1], [0, 0], [0, 0]]]),
        feature([[[0, 0], [1, 1], [2, 2], [0, 0]]]),
        feature([]),
        feature(7),
        feature([7]),
        {"type": "Feature", "geometry": None},
        {"type": "Feature", "geometry": {"type": "Circle", "coordinates": [1, 2]}},
        {"type": "Feature", "geometry": {"type": "GeometryCollection"}},
        feature("x", "MultiPoint"),
        feature([[0, 0], [0, 0]], "LineString"),
        7,
    ]
    for item in bad:
        document = read(geojson(tmp_path / "a.geojson", good, item))
        assert len(document.annotations) == 1, item
        assert any("left out" in note and "feature 2" in note for note in document.notes), item
        with pytest.raises(HistoclickError, match="nothing in it can be read"):
            read(geojson(tmp_path / "a.geojson", item))
    path = asap(tmp_path / "a.xml", coordinates((0, 0), ("NaN", 0), (0, "")))
    with pytest.raises(HistoclickError, match="not finite"):
        read(path)


def test_unclosed_rings_are_closed_and_told(tmp_path: Path) -> None:
    document = read(geojson(tmp_path / "a.geojson", feature([SQUARE[:-1]])))
    assert document.annotations[0].shape.equals(shapely.box(0, 0, 10, 10))
    assert document.notes == ("closed 1 ring that was open (the first: feature 1)",)


def test_outlines_that_cross_themselves_are_mended_and_told(tmp_path: Path) -> None:
    bow = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]
    document = read(geojson(tmp_path / "a.geojson", feature([bow])))
    assert document.annotations[0].shape.area == pytest.approx(50)
    assert "mended 1 object" in document.notes[0]


def test_a_scribble_of_a_million_crossings_is_left_out(tmp_path: Path) -> None:
    scribble = np.random.default_rng(0).uniform(0, 1e4, (5000, 2)).tolist()
    path = geojson(tmp_path / "a.geojson", feature([SQUARE]), feature([scribble]))
    document = read(path)
    assert len(document.annotations) == 1
    assert "too often" in document.notes[-1]


def test_a_comb_that_takes_days_to_look_at_is_left_out(tmp_path: Path) -> None:
    """Slanted teeth: valid or not, the boxes of all pairs of edges overlap."""
    across, along = np.arange(60_000) % 2 * 1e5, np.arange(60_000.0)
    teeth = np.stack([across + along, along - across], axis=1).tolist()
    document = read(geojson(tmp_path / "a.geojson", feature([SQUARE]), feature([teeth])))
    assert len(document.annotations) == 1
    assert "too tangled" in document.notes[-1]


def test_one_edge_across_all_others_is_not_overlooked(tmp_path: Path) -> None:
    """It is none of those that chance would find."""
    across, along = np.arange(200_000) % 2 * 1e4, np.arange(200_000.0) / 10
    teeth = np.stack([across, along], axis=1).tolist()  # closed by a diagonal
    document = read(geojson(tmp_path / "a.geojson", feature([SQUARE]), feature([teeth])))
    assert "too often" in document.notes[-1]


@pytest.mark.parametrize("depth", [100, 250, 333, 500, 1000, 100_000])
def test_deep_nesting(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "a.json"
    collection = '{"type":"GeometryCollection","geometries":['
    for text in (
        "[" * depth + '{"type":"Feature"}' + "]" * depth,
        collection * depth + "]}" * depth,
        '{"type":"Feature","properties":{"childObjects":[' * depth + "]}}" * depth,
        '{"elements":[],"annotation":' * depth + "1" + "}" * depth,
    ):
        path.write_text(text)
        if depth >= 1000:
            with pytest.raises(HistoclickError):
                read(path)
        else:  # may be read, but what is raised is no RecursionError
            with contextlib.suppress(HistoclickError):
                read(path)
    path = tmp_path / "a.xml"
    path.write_text("<Annotations>" + "<a>" * depth)
    with pytest.raises(HistoclickError, match="nested too deeply"):
        read(path)


@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if f.decimals is not None])
def test_files_cut_off_anywhere_are_refused(name: str, tmp_path: Path) -> None:
    ring = "[[0,0,0],[9,0,0],[9,9,0]]"
    text = {
        "qupath": json.dumps({"type": "FeatureCollection", "features": [feature([SQUARE])]}),
        "asap": asap(tmp_path / "b.xml", TRIANGLE).read_text(),
        "aperio": '<Annotations><Annotation Id="1"><Regions><Region Id="1"><Vertices>'
        '<Vertex X="1" Y="2"/><Vertex X="1" Y="9"/><Vertex X="7" Y="2"/></Vertices></Region>'
        "</Regions></Annotation></Annotations>",
        "dsa": f'{{"name":"","elements":[{{"type":"polyline","closed":true,"points":{ring}}}]}}',
        "coco": '{"images":[{"id":1}],"annotations":[{"image_id":1,"bbox":[1,2,3,4]}]}',
        "ncrf": '{"positive":[{"name":"a","vertices":[[0,0],[9,0],[9,9]]}],"negative":[]}',
        "darwin": '{"schema_ref":"","item":{},"annotations":[{"name":"a","keypoint":'
        '{"x":1,"y":2}}]}',
    }[name]
    path = tmp_path / f"a{FORMATS[name].suffixes[-1]}"
    path.write_text(text)
    assert recognise(path).name == name
    assert len(read(path).annotations) == 1
    for end in range(0, len(text) - 1, 7):
        path.write_text(text[:end])
        with pytest.raises(HistoclickError):
            read(path)


def test_encodings(tmp_path: Path) -> None:
    text = json.dumps(feature([SQUARE], classification="Tümör"), ensure_ascii=False)
    path = tmp_path / "a.geojson"
    for data in (
        text.encode(),
        codecs.BOM_UTF8 + text.encode(),
        text.encode("utf-16"),
        codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    ):
        path.write_bytes(data)
        assert read(path).labels == ("Tümör",)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(HistoclickError, match="not UTF-8 text"):
        read(path)
    path = tmp_path / "a.xml"
    for name in ("utf-8", "utf-16", "iso-8859-1", "windows-1252"):
        whole = asap(path, TRIANGLE, f'<?xml version="1.0" encoding="{name}"?>').read_text()
        path.write_bytes(whole.replace('Name="a"', 'Name="ä"').encode(name))
        assert read(path).annotations[0].name == "ä"
    for name in ("klingon", "utf-7", "idna", "shift_jis"):
        asap(path, TRIANGLE, f'<?xml version="1.0" encoding="{name}"?>')
        with pytest.raises(HistoclickError):
            read(path)


def test_compressed_files(tmp_path: Path) -> None:
    data = json.dumps(feature([SQUARE])).encode()
    zipped, gzipped = tmp_path / "a.zip", tmp_path / "a.geojson.gz"
    gzipped.write_bytes(gzip.compress(data))
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("__MACOSX/._a.geojson", b"x")
        archive.writestr("a.geojson", data)
    assert len(read(zipped).annotations) == len(read(gzipped).annotations) == 1
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr("b.geojson", data)
    with pytest.raises(HistoclickError, match="holds 2 JSON files"):
        read(zipped)
    gzipped.write_bytes(gzip.compress(data)[:-9])
    with pytest.raises(HistoclickError, match="damaged"):
        read(gzipped)
    zipped.write_bytes(zipped.read_bytes()[:100])
    with pytest.raises(HistoclickError, match="cannot be decompressed"):
        read(zipped)


@pytest.mark.parametrize("suffix", [".gz", ".zip", ""])
def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(sources, "MAX_BYTES", 8 * 2**20)
    start = b'{"type":"FeatureCollection","features":['
    zeros = b" " * 2**20
    path = tmp_path / f"a.geojson{suffix}"
    if suffix == ".gz":
        path.write_bytes(gzip.compress(start + 64 * zeros))
    elif suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.geojson", start + 64 * zeros)
    else:
        path.write_bytes(start + 9 * zeros)
    with pytest.raises(HistoclickError, match="more than 8 MB of text"):
        read(path)


def test_what_is_no_annotation_file(tmp_path: Path) -> None:
    for name, data in (
        ("a.txt", b"hello"),
        ("a.json", b'{"a": 1}'),
        ("a.xml", b"<html></html>"),
        ("a.xml", b"<"),
        ("a.zip", b"PK\x03\x04hello"),
        ("a.gz", b"\x1f\x8bhello"),
        ("a.bin", bytes(range(256))),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(HistoclickError, match=name):
            read(path)
    (tmp_path / "empty.json").touch()
    with pytest.raises(HistoclickError, match="is empty"):
        read(tmp_path / "empty.json")
    with pytest.raises(HistoclickError, match="a folder"):
        read(tmp_path)
    with pytest.raises(HistoclickError, match="no such file"):
        read(tmp_path / "missing.xml")


def test_names_of_strangers(tmp_path: Path) -> None:
    """Control characters and halves of characters do not reach a file that is written."""
    path = tmp_path / "a.geojson"
    path.write_text(
        '{"type":"Feature","geometry":{"type":"Point","coordinates":[1,2]},"properties":'
        '{"name":" a\\u0000\\ud800b\\n","classification":{"name":["x"],"color":"red"}}}'
    )
    annotation = read(path).annotations[0]
    assert (annotation.label, annotation.colour, annotation.name) == ("", None, "a  b")


def test_comments_before_the_first_element_are_stepped_over_once() -> None:
    assert sources.root(b'<?xml?><!-- <no> <?no --><!DOCTYPE a><!--<no >--><p:yes a="">') == "yes"
    assert sources.root(b" <?xml version='1.0'?>\n<yes/>") == "yes"
    for begin in (b"<?", b"<!--"):
        assert sources.root(begin + b" <no>") == ""
        assert sources.root(begin * (sources.HEAD // len(begin))) == ""  # in no time
    assert sources.root(b"text <no>") == ""
