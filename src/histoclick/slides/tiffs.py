"""TIFFs through tifffile: OME-TIFF, pyramids in sub-directories, strips, planes, transparency."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
import numpy as np
import tifffile
from defusedxml import DefusedXmlException

from histoclick.slides.directories import check_directories
from histoclick.slides.resolution import believable, from_dots
from histoclick.slides.segments import (
    SegmentCache,
    TiffLevel,
    Unreadable,
    check_end,
    check_segments,
)
from histoclick.slides.source import Facts
from histoclick.types import RGB8, HistoclickError

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # we say ourselves what is wrong

MICRONS = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "Å": 1e-4, "pm": 1e-6}
MAX_DESCRIPTION = 50_000_000  # characters of OME-XML
PLAIN = (
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.YCBCR,
    tifffile.PHOTOMETRIC.MINISBLACK,
)
UNITS = {tifffile.RESUNIT.INCH: "inch", tifffile.RESUNIT.CENTIMETER: "cm"}


class TiffSource:
    """A TIFF opened by tifffile. Only the tiles or strips that a region needs are decoded.

    Reading the file is locked, and the cache of what was decoded last; decoding is not.
    """

    def __init__(self, path: Path) -> None:
        check_directories(path)
        self._path = path
        with _told(path), contextlib.ExitStack() as on_error:
            self._file = tifffile.TiffFile(path, _multifile=False)
            on_error.callback(self._file.close)
            ome = _ome(self._file)
            number, series = _picture(self._file)
            cache = SegmentCache(self._file.filehandle)
            self._levels = [TiffLevel(_pages(level), cache) for level in series.levels]
            self.facts = _facts(series, self._levels[0].page, ome, number)
            on_error.pop_all()
        self.sizes: tuple[tuple[int, int], ...] = tuple(
            (level.width, level.height) for level in self._levels
        )

    def read(self, level: int, x: int, y: int, width: int, height: int) -> RGB8:
        """See ``Source``."""
        with _told(self._path):
            return self._levels[level].read(x, y, width, height)

    def close(self) -> None:
        """See ``Source``."""
        self._file.close()


def check_tiff(path: Path) -> bool:
    """Whether OpenSlide would show a TIFF of no known vendor as it is: all levels, 8 bits, opaque.

    Raises ``HistoclickError`` for files that are cut off or that no reader should be given.
    """
    check_directories(path)
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            for page in file.pages:
                check_end(page)
                if page.is_tiled:
                    check_segments(page)
            page = file.pages.first
            return bool(
                page.dtype == np.uint8
                and page.samplesperpixel in (1, 3)
                and page.photometric in PLAIN
                and not page.subifds
                and not _is_ome(page)
            )
    except Unreadable as error:
        raise HistoclickError(f"{path}: {error}") from None
    except Exception:  # noqa: BLE001 - whatever tifffile stumbles over, OpenSlide may know better
        return True


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside becomes one sentence."""
    try:
        yield
    except HistoclickError:
        raise
    except Unreadable as error:
        raise HistoclickError(f"{path}: {error}") from None
    except Exception as error:  # damaged files make readers raise anything
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise HistoclickError(
            f"{path}: damaged TIFF ({reason}); export or copy it again"
        ) from error


def _picture(file: tifffile.TiffFile) -> tuple[int, tifffile.TiffPageSeries]:
    """The largest picture of the file and its number."""
    series = list(file.series)
    if not series:
        raise Unreadable("holds no picture; export it again")
    number = max(range(len(series)), key=lambda index: np.prod(series[index].shape[-3:]))
    return number, series[number]


def _pages(level: Any) -> list[tifffile.TiffPage]:
    """The page of a level, or three that hold red, green and blue."""
    if level.axes in ("YX", "YXS", "SYX"):
        return [level.keyframe]
    if level.axes == "CYX" and level.shape[0] == 3 and len(level.pages) == 3:
        pages = [page for page in level.pages if page is not None]
        if len(pages) == 3:
            return [page.aspage() for page in pages]
    sizes = "x".join(map(str, level.shape))
    raise Unreadable(
        f"holds a stack of {sizes} ({level.axes}); export one RGB picture, without focal planes or "
        "fluorescence channels"
    )


def _facts(
    series: tifffile.TiffPageSeries, page: tifffile.TiffPage, ome: Element | None, number: int
) -> Facts:
    said_x = said_y = power = None
    if ome is not None:
        said_x, said_y = _ome_mpp(ome, number)
        power = _ome_power(ome)
    if said_x is None and said_y is None:
        unit = UNITS.get(page.resolutionunit, "")
        said_x, said_y = (from_dots(float(dots), unit) for dots in page.resolution)
    mpp_x, mpp_y, notes = believable(said_x, said_y)
    if len(series.levels[0].pages) == 3:
        notes = (*notes, "its three channels are shown as red, green and blue")
    return Facts(
        format="ome-tiff" if ome is not None else "tiff",
        mpp_x=mpp_x,
        mpp_y=mpp_y,
        objective_power=power,
        icc=page.iccprofile,
        notes=notes,
    )


def _is_ome(page: tifffile.TiffPage) -> bool:
    return str(page.description[-10:]).strip().endswith("OME>")


def _ome(file: tifffile.TiffFile) -> Element | None:
    """The OME-XML of the file. Refused here, before tifffile reads it, if it is an attack."""
    page = file.pages.first
    if not _is_ome(page):
        return None
    if len(page.description) > MAX_DESCRIPTION:
        raise Unreadable("its OME-XML is larger than any that is honest; export it again")
    try:
        root: Element = defusedxml.ElementTree.fromstring(page.description, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise Unreadable(f"its OME-XML cannot be read ({error}); export it again") from None
    return root


def _ome_mpp(ome: Element, number: int) -> tuple[float | None, float | None]:
    pixels = [element for element in ome.iter() if element.tag.endswith("}Pixels")]
    if number >= len(pixels):
        return None, None
    said = []
    for axis in "XY":
        size = pixels[number].get(f"PhysicalSize{axis}")
        unit = MICRONS.get(pixels[number].get(f"PhysicalSize{axis}Unit", "µm"))
        said.append(float(size) * unit if size and unit else None)
    return said[0], said[1]


def _ome_power(ome: Element) -> float | None:
    for element in ome.iter():
        if element.tag.endswith("}Objective") and element.get("NominalMagnification"):
            return float(element.get("NominalMagnification", ""))
    return None
