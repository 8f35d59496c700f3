"""What may be slides in folders of strangers, and names of files as they may be shown."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset(  # of files in folders that are tried; a file that is named is always tried
    (
        *(".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif"),
        *(".czi", ".png", ".jpg", ".jpeg", ".jp2", ".bmp"),
    )
)
MASK = "_mask"  # as CAMELYON16, PAIP2019 and the phantoms name them
DICOM = ".dcm"
MAX_SLIDES = 10_000
MAX_VISITED = 200_000  # files that one look through the folders considers
# How Unicode classes signs that turn the direction of writing.
TURNING = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))


@dataclass(frozen=True)
class Found:
    """A file, or a folder with a DICOM slide, and how to see that it has changed."""

    path: Path
    folder: str
    stamp: tuple[int, int]


def found_in(roots: Sequence[Path]) -> Iterator[Found]:
    """What may be slides in files and folders, each once, in order."""
    seen = set[Path]()
    for root in roots:
        for path, folder in _walk(root) if root.is_dir() else [(root, "")]:
            if path in seen or len(seen) >= MAX_SLIDES:
                continue
            try:
                status = path.stat()
            except OSError:  # gone, or a link to nothing
                continue
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                continue  # to open a pipe would wait for ever
            seen.add(path)
            yield Found(path, folder, (status.st_mtime_ns, status.st_size))


def plain(text: str) -> str:
    """Fit to be shown: what would do something to a terminal or turn the direction of writing is
    escaped, as are bytes that are no UTF-8."""
    return "".join(map(_plain, text)) if not text.isprintable() else text


def _plain(sign: str) -> str:
    acts = unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")
    if acts or unicodedata.bidirectional(sign) in TURNING:
        return f"\\x{ord(sign):02x}" if sign < "\u0100" else f"\\u{ord(sign):04x}"
    return sign


def _walk(root: Path) -> Iterator[tuple[Path, str]]:
    """Files by their suffix and folders with DICOM files, by name; hidden ones are passed over, and
    masks beside their slides (``case_mask.tif`` of ``case.svs``)."""
    visited = 0
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = sorted(name for name in files if not name.startswith("."))
        visited += len(visible)
        if visited > MAX_VISITED:
            return
        here = Path(place)
        below = here.relative_to(root).as_posix()
        folder = "" if below == "." else below
        suffixes = {Path(name).suffix.lower() for name in visible}
        levels = [name for name in visible if Path(name).suffix.lower() == DICOM]
        if len(levels) == 1:
            yield here / levels[0], folder
        elif levels:  # one slide, as a rule
            above = here.parent.relative_to(root).as_posix() if folder else ""
            yield here, "" if above == "." else above
        slides = {Path(name).stem for name in visible if Path(name).suffix.lower() in SUFFIXES}
        parts = {".vms", ".vmu"} & suffixes  # their pixels are pictures beside them
        for name in visible:
            suffix, stem = Path(name).suffix.lower(), Path(name).stem
            if stem.endswith(MASK) and stem.removesuffix(MASK) in slides:
                continue
            if suffix in SUFFIXES and not (parts and suffix in (".jpg", ".jpeg")):
                yield here / name, folder
