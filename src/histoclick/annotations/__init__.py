"""Annotation files of other programs: recognised by what is in them, read, and written.

``FORMATS`` is the table of all. A new format is one module with a ``Format`` and one line here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from histoclick.annotations import sources
from histoclick.annotations.aperio import APERIO
from histoclick.annotations.asap import ASAP
from histoclick.annotations.coco import COCO
from histoclick.annotations.darwin import DARWIN
from histoclick.annotations.dicomseg import DICOM_SEG
from histoclick.annotations.document import Annotation, Canvas, Colour, Document, Shape
from histoclick.annotations.dsa import DSA
from histoclick.annotations.format import Format, Holds
from histoclick.annotations.losses import fitted
from histoclick.annotations.ncrf import NCRF
from histoclick.annotations.qupath import QUPATH
from histoclick.annotations.raster import MASK
from histoclick.types import HistoclickError

__all__ = [
    "FORMATS",
    "Annotation",
    "Canvas",
    "Colour",
    "Document",
    "Format",
    "Holds",
    "Shape",
    "fitted",
    "read",
    "recognise",
    "write",
]

# In the order in which they are asked whether a file is theirs.
FORMATS: dict[str, Format] = {
    format_.name: format_
    for format_ in (QUPATH, ASAP, APERIO, DSA, COCO, NCRF, DARWIN, MASK, DICOM_SEG)
}


def recognise(path: Path) -> Format:
    """The format of a file, by its content; its suffix decides only between several.

    Raises ``HistoclickError`` for files that are missing, empty or of no known format.
    """
    head = sources.head(path)
    possible = [f for f in FORMATS.values() if f.recognises(path, head)]
    if not possible:
        known = ", ".join(f"{f.title} ({', '.join(f.suffixes)})" for f in FORMATS.values())
        raise HistoclickError(f"{path}: no annotation file of a known kind; known are {known}")
    return next((f for f in possible if _has_suffix(path, f)), possible[0])


def read(path: Path, canvas: Canvas | None = None) -> Document:
    """The annotations in a file of any known format, in px of level 0.

    ``canvas``: what is known of the slide. QuPath counts from the corner of the slide's bounds, and
    files about several slides need its ``name``. Raises ``HistoclickError``.
    """
    try:
        document = recognise(path).read(path, canvas)
    except RecursionError:
        raise HistoclickError(f"{path}: nested too deeply to be annotations") from None
    return Document(document.annotations, document.notes, document.canvas, path)


def write(
    document: Document, path: Path, format_name: str | None = None, canvas: Canvas | None = None
) -> list[str]:
    """Write the annotations; returns what was lost, a sentence each.

    ``format_name``: of ``FORMATS``; not needed where the suffix leaves no choice. ``canvas``: of
    the slide, for formats that need it. A file that is there is replaced, but never the one that
    the document was read from. Raises ``HistoclickError``.
    """
    format_ = _writable(path, format_name)
    if document.source is not None and path.exists() and path.samefile(document.source):
        raise HistoclickError(f"{path} is the file that was read; give another name")
    canvas = canvas or document.canvas
    if format_.needs_canvas and canvas is None:
        raise HistoclickError(
            f"{path}: {format_.title} needs the size of the slide; name the slide (--slide)"
        )
    kept, losses = fitted(document, format_)
    assert format_.write is not None
    unfinished = path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder beside it: the suffix stays, and nobody's file is in the way.
        with tempfile.TemporaryDirectory(prefix=".histoclick-", dir=path.parent) as folder:
            unfinished = Path(folder) / path.name
            losses += format_.write(kept, unfinished, canvas)
            unfinished.replace(path)
    except HistoclickError as error:  # about the unfinished file
        raise HistoclickError(str(error).replace(str(unfinished), str(path))) from None
    except OSError as error:
        raise HistoclickError(f"{path}: cannot be written ({error.strerror or error})") from None
    return losses


def _writable(path: Path, name: str | None) -> Format:
    """The format that was asked for, or the only one with this suffix."""
    writable = {key: f for key, f in FORMATS.items() if f.write is not None}
    if name is not None:
        if name not in writable:
            raise HistoclickError(
                f"'{name}' is no format that can be written; use one of: {', '.join(writable)}"
            )
        return writable[name]
    fitting = {key: f for key, f in writable.items() if _has_suffix(path, f)}
    if not fitting:
        suffixes = dict.fromkeys(suffix for f in writable.values() for suffix in f.suffixes)
        raise HistoclickError(
            f"{path}: the suffix tells no format; end it in one of {', '.join(suffixes)}, or name "
            f"the format (--to): {', '.join(writable)}"
        )
    if len(fitting) > 1:
        raise HistoclickError(
            f"{path}: the suffix may mean {' or '.join(fitting)}; name the format (--to)"
        )
    return next(iter(fitting.values()))


def _has_suffix(path: Path, format_: Format) -> bool:
    return path.name.lower().endswith(format_.suffixes)
