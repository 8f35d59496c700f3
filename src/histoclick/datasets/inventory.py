"""What a folder of slides holds, case by case, and what is wrong with it.

Files are known by their names, in whatever folders they lie: each mirror, each year and each lab
sorts them another way.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tifffile

from histoclick.slides.directories import check_directories, is_tiff
from histoclick.types import HistoclickError

MAX_FILES = 500_000
MAX_LEVELS = 64  # of a pyramid, looked at
UNFINISHED = (".partial", ".part", ".crdownload", ".download", ".aria2")
NO_CASE = (".partial.version", ".wrong")  # what a fetch leaves beside the files
TIFFS = (".tif", ".tiff", ".svs")


@dataclass(frozen=True)
class Layout:
    """How the files of one data set are called.

    ``parts``: what a case has, each with a pattern for the whole name in lower case, whose group
    ``case`` is the case. The part ``slide`` is the picture the others are about; parts with "mask"
    in their name have its size. ``complaint``: what is missing of a case with these parts, a
    sentence without the case's name, or "". ``remarks``: what else to know of the cases there.
    """

    title: str
    parts: Mapping[str, re.Pattern[str]]
    complaint: Callable[[str, set[str]], str]
    remarks: Callable[[Iterable[str]], Mapping[str, Any]] = lambda cases: {}


@dataclass(frozen=True)
class Inventory:
    """``facts`` for a table or JSON, ``problems`` one sentence each, empty when all is well."""

    facts: dict[str, Any]
    problems: list[str]


def take_inventory(folder: Path, layout: Layout) -> Inventory | None:
    """Look at everything below ``folder``; ``None`` when nothing has a name of this data set.

    Reads headers only. Raises ``HistoclickError`` for a folder that is not there or not a data
    set's size.
    """
    cases: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    problems, size = [], 0
    for path in _files(folder):
        name = path.name.lower()
        ending = next((end for end in UNFINISHED if name.endswith(end)), "")
        part, case = _known(name.removesuffix(ending), layout)
        if not part:
            continue
        if ending:
            problems.append(
                f"{_below(path, folder)}: a download that was cut; fetch it again to go on"
            )
            continue
        cases[case][part].append(path)
        size += path.stat().st_size
    if not cases and not problems:
        return None
    whole: dict[str, int] = dict.fromkeys(layout.parts, 0)
    for case, parts in sorted(cases.items()):
        for part in parts:
            whole[part] += 1
        problems += _check(case, parts, folder, layout)
    facts = {
        "data_set": layout.title,
        "cases": len(cases),
        **{f"{part}s": count for part, count in whole.items()},
        "bytes": size,
        **layout.remarks(sorted(cases)),
        "names": sorted(cases),
    }
    return Inventory(facts, problems)


def _files(folder: Path) -> Iterator[Path]:
    """All but hidden ones, sorted; links to folders are not followed (they may run in a circle)."""
    if not folder.is_dir():
        raise HistoclickError(f"{folder}: no such folder; give the one with the slides")
    count = 0
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        count += len(names)
        if count > MAX_FILES:
            raise HistoclickError(
                f"{folder}: holds more than {MAX_FILES} files; give the folder of the slides alone"
            )
        for name in sorted(names):
            if not name.startswith(".") and (Path(where) / name).is_file():
                yield Path(where) / name


def _known(name: str, layout: Layout) -> tuple[str, str]:
    """(part, case), or two empty strings."""
    if not name.endswith(NO_CASE):
        for part, pattern in layout.parts.items():
            if match := pattern.fullmatch(name):
                return part, match["case"]
    return "", ""


def _check(
    case: str, parts: Mapping[str, list[Path]], folder: Path, layout: Layout
) -> Iterator[str]:
    """Everything wrong with one case."""
    if complaint := layout.complaint(case, set(parts)):
        yield f"{case}: {complaint}"
    sizes: dict[str, tuple[int, int]] = {}
    for part, paths in parts.items():
        if len(paths) > 1:
            found = ", ".join(_below(path, folder) for path in paths)
            yield f"{case}: {len(paths)} files are its {part} ({found}); keep one"
        for path in paths:
            if path.stat().st_size == 0:
                yield f"{_below(path, folder)}: is empty; fetch it again"
            elif path.suffix.lower() in TIFFS:
                try:
                    sizes.setdefault(part, _size_px(path))
                except HistoclickError as error:
                    yield str(error).replace(f"{path}: ", f"{_below(path, folder)}: ")
    for part in sizes:
        if "mask" in part and "slide" in sizes and sizes[part] != sizes["slide"]:
            (width, height), (slide_width, slide_height) = sizes[part], sizes["slide"]
            yield (
                f"{case}: its {part} has {width}x{height} px and its slide {slide_width}x"
                f"{slide_height}; they do not belong together, so fetch both again"
            )


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _size_px(path: Path) -> tuple[int, int]:
    """(width, height) of the first picture of a TIFF whose tiles are all there.

    Raises ``HistoclickError`` for a file that is damaged or cut, or may not be read.
    """
    try:
        with path.open("rb") as file:
            if not is_tiff(file.read(4)):
                raise HistoclickError(f"{path}: is no TIFF; fetch it again")
    except OSError as error:
        raise HistoclickError(
            f"{path}: cannot be read ({error.strerror}); ask its owner for the right to"
        ) from error
    check_directories(path)
    try:
        with tifffile.TiffFile(path) as content:
            first = content.pages.first
            width, height = int(first.imagewidth), int(first.imagelength)
            end = max(
                offset + count
                for page in itertools.islice(content.pages, MAX_LEVELS)
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
            )
    except Exception as error:  # a reader that is fed damage raises whatever it stumbles on
        raise HistoclickError(f"{path}: is damaged ({error}); fetch it again") from error
    if end > path.stat().st_size:
        raise HistoclickError(
            f"{path}: {end - path.stat().st_size} bytes of its picture are missing at its end; "
            "fetch it again"
        )
    return width, height
