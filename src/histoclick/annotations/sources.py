"""Reading files of strangers: bounded in time and memory, nothing executed, nothing fetched."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn
from xml.parsers.expat import ExpatError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from histoclick.annotations.shapes import MAX_VERTICES, too_many
from histoclick.types import HistoclickError

MAX_BYTES = 512 * 2**20  # of text, after decompression
MAX_DEPTH = 64  # of elements in XML
HEAD = 2**18  # bytes that are looked at to recognise a format
CHUNK = 2**20
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"

ELEMENT = re.compile(r"<(?:[A-Za-z_][\w.-]*:)?([A-Za-z_][\w.-]*)[\s/>]")
ASIDES = {"<!--": "-->", "<?": "?>"}  # comments and instructions, which may hold anything

Element = tuple[int, str, dict[str, str]]  # how deep (0 is the root), the name, the attributes


def head(path: Path) -> bytes:
    """The first ``HEAD`` bytes, of what is inside if it is compressed.

    Raises ``HistoclickError`` for what is no file, or empty.
    """
    if not path.is_file():
        raise HistoclickError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}")
    try:
        with path.open("rb") as file:
            first = file.read(HEAD)
        if not first:
            raise HistoclickError(f"{path}: the file is empty; export it again")
        if first.startswith(GZIP):
            return zlib.decompressobj(31).decompress(first, HEAD)
        if first.startswith(ZIP):
            with zipfile.ZipFile(path) as archive, archive.open(_member(archive, path)) as inside:
                return inside.read(HEAD)
    except OSError as error:
        raise HistoclickError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise HistoclickError(f"{path}: cannot be decompressed ({error})") from None
    return first


def number(text: str) -> float:
    """A coordinate in XML; NaN, which shapes refuse, for what is none.

    Some programs write the comma of their country.
    """
    try:
        return float(text)
    except ValueError:
        with contextlib.suppress(ValueError):
            return float(text.replace(",", "."))
    return math.nan


def is_json(start: bytes) -> bool:
    """Whether the first bytes of a file look like JSON."""
    return _decoded(start).lstrip()[:1] in ("{", "[")


def has_key(start: bytes, *keys: str) -> bool:
    """Whether all of ``keys`` appear in the first bytes of a JSON file, at any depth."""
    text = _decoded(start)
    return all(re.search(rf'"{re.escape(key)}"\s*:', text) for key in keys)


def has_type(start: bytes, *values: str) -> bool:
    """Whether the first bytes of a JSON file say ``"type": value`` for one of ``values``."""
    names = "|".join(map(re.escape, values))
    return bool(re.search(rf'"type"\s*:\s*"(?:{names})"', _decoded(start)))


def root(start: bytes) -> str:
    """The name of the first element of an XML file, without its prefix; "" if it is none."""
    text = _decoded(start).lstrip()
    if not text.startswith("<"):
        return ""
    at = 0
    while (at := text.find("<", at)) >= 0:
        if (found := ELEMENT.match(text, at)) is not None:
            return found[1]
        end = next((end for begin, end in ASIDES.items() if text.startswith(begin, at)), "<")
        at = text.find(end, at + 1)
        if at < 0:  # one that is never closed hides all that follows
            break
    return ""


def read_json(path: Path) -> Any:
    """The value in a JSON file: plain, .gz, or the only one in a .zip.

    Raises ``HistoclickError`` for what is no JSON, or too much of it. NaN and Infinity are read as
    numbers; shapes refuse them.
    """
    data = _bytes(path)
    # Counted before anything is built: a list of two numbers takes 20 times its text.
    brackets = data.count(b"[") + data.count(b"{")
    if brackets > 1.5 * MAX_VERTICES or data.count(b",") > 4 * MAX_VERTICES:
        raise HistoclickError(too_many(path))
    text = _text(path, data)
    del data
    try:
        return json.loads(text)
    except RecursionError:
        raise HistoclickError(f"{path}: nested too deeply to be annotations") from None
    except json.JSONDecodeError as error:
        raise HistoclickError(
            f"{path}: not JSON, or cut off: {error.msg} in line {error.lineno}, column "
            f"{error.colno}; export it again"
        ) from None
    except ValueError as error:  # a number of thousands of digits
        raise HistoclickError(f"{path}: not JSON that can be read ({error})") from None


def read_xml(path: Path, vertex: str) -> Iterator[Element]:
    """The elements of an XML file as they open; no tree is built.

    ``vertex``: the element that is counted. Raises ``HistoclickError`` for what is no XML, for
    document types and entities, namespaces, deep nesting and too many vertices.
    """
    data = _bytes(path)
    if data.count(b"<") > 2.5 * MAX_VERTICES:
        raise HistoclickError(too_many(path))
    parser = DefusedXMLParser(forbid_dtd=True)
    elements = _listen(parser)
    vertices = 0
    for start in range(0, len(data) + CHUNK, CHUNK):
        try:
            parser.parser.Parse(data[start : start + CHUNK], start >= len(data))
        except DefusedXmlException:
            _refuse_xml(path, "it declares a document type or entities, which may attack readers")
        except (ExpatError, LookupError, ValueError) as error:
            _refuse_xml(path, f"not XML, or cut off: {error}")
        for element in elements:
            depth, name, _ = element
            if name == vertex:
                vertices += 1
            elif "}" in name:
                _refuse_xml(path, f"its elements are in the namespace '{name.split('}')[0]}'")
            if depth > MAX_DEPTH:
                _refuse_xml(path, "nested too deeply to be annotations")
            if vertices > MAX_VERTICES:
                raise HistoclickError(too_many(path))
            yield element
        elements.clear()


def _listen(parser: DefusedXMLParser) -> list[Element]:
    """Where elements are put as they are parsed, instead of a tree: four times as fast.

    What refuses document types and entities stays as the library has set it.
    """
    elements: list[Element] = []
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        elements.append((depth, name, attributes))
        depth += 1

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1

    expat = parser.parser
    expat.ordered_attributes = False
    expat.StartElementHandler, expat.EndElementHandler = start, end
    expat.CharacterDataHandler = expat.DefaultHandlerExpand = None
    return elements


def _refuse_xml(path: Path, why: str) -> NoReturn:
    raise HistoclickError(f"{path}: {why}; export it again from the program that drew it")


def _bytes(path: Path) -> bytes:
    """All of the file, decompressed, at most ``MAX_BYTES``."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if start.startswith(GZIP):
                with gzip.open(file) as inside:
                    return _bounded(inside, path)
            if start.startswith(ZIP):
                archive = zipfile.ZipFile(file)
                with archive, archive.open(_member(archive, path)) as inside:
                    return _bounded(inside, path)
            return _bounded(file, path)
    except (EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise HistoclickError(
            f"{path}: the compressed file is damaged or protected ({error}); export it again"
        ) from None
    except OSError as error:
        raise HistoclickError(f"{path}: cannot be read ({error.strerror or error})") from None


def _bounded(file: Any, path: Path) -> bytes:
    data = bytearray()
    while chunk := file.read(CHUNK):
        data += chunk
        if len(data) > MAX_BYTES:
            raise HistoclickError(
                f"{path}: more than {MAX_BYTES // 2**20} MB of text; export it in parts"
            )
    return bytes(data)


def _member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    inside = [
        member
        for member in archive.infolist()
        if member.filename.lower().endswith((".geojson", ".json"))
        and not member.filename.startswith("__MACOSX/")
    ]
    if len(inside) != 1:
        raise HistoclickError(
            f"{path}: holds {len(inside)} JSON files; only an archive with one can be read, so "
            "unpack it and give each on its own"
        )
    return inside[0]


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode(_encoding(data))
    except UnicodeDecodeError as error:
        raise HistoclickError(
            f"{path}: not UTF-8 text (byte {data[error.start]:#04x} at {error.start}); save it as "
            "UTF-8"
        ) from None


def _decoded(start: bytes) -> str:
    """The first bytes as text; a character that is cut off does not matter."""
    return start.decode(_encoding(start), errors="replace")


def _encoding(data: bytes) -> str:
    """By the byte order mark, as Windows programs write it."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"
