"""Slides: whatever the file format, one picture at several resolutions.

Coordinates are px of level 0 as OpenSlide counts them, pixel-corner.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path

import openslide

from histoclick.slides.colours import in_srgb
from histoclick.slides.directories import is_tiff
from histoclick.slides.findings import describe, problems
from histoclick.slides.levels import Level
from histoclick.slides.openslides import OpenSlideSource
from histoclick.slides.pictures import PictureSource
from histoclick.slides.slide import Slide
from histoclick.slides.source import Facts, Source
from histoclick.slides.tiffs import TiffSource, check_tiff
from histoclick.types import HistoclickError

__all__ = ["Facts", "Level", "Slide", "Source", "describe", "open_slide", "problems"]

MAX_FILES = 10_000  # of a folder that are tried as DICOM
MAX_LEVELS = 20  # files of a folder that are opened to see whether they belong together


def open_slide(path: Path, *, mpp: float | None = None, icc: bool = False) -> Slide:
    """Open a slide, a folder with a DICOM slide, or a picture.

    ``mpp``: um per px of level 0, if the file does not say it or is wrong. ``icc``: convert colours
    to sRGB by the file's own profile, if it has one. Raises ``HistoclickError`` for files that are
    missing, damaged or of an unknown format.
    """
    file = _file_of(path)
    source: Source = _source(file)
    notes: tuple[str, ...] = ()
    if icc:
        source, notes = in_srgb(source)
    return Slide(file, source, partial(open_slide, path, mpp=mpp, icc=icc), mpp, notes)


def _file_of(path: Path) -> Path:
    """The file to open: itself, or one of a folder with a DICOM slide."""
    if path.is_dir():
        return _dicom_of(path)
    if path.exists() and not path.is_file():  # to open a pipe would wait for ever
        raise HistoclickError(f"{path}: neither a file nor a folder; check the path")
    try:
        with path.open("rb") as opened:
            if not opened.read(1):
                raise HistoclickError(f"{path}: the file is empty; copy it again")
    except OSError as error:
        raise HistoclickError(f"{path}: {error.strerror}; check the path") from None
    return path


def _dicom_of(folder: Path) -> Path:
    """One file of the only DICOM slide in a folder; OpenSlide finds the others of its series."""
    files = [
        file
        for file in sorted(islice(folder.iterdir(), MAX_FILES))
        if file.is_file() and openslide.OpenSlide.detect_format(file) == "dicom"
    ]
    if not files:
        raise HistoclickError(
            f"{folder}: a folder without a DICOM slide in it; give a slide file, or a folder with "
            "the .dcm files of one slide"
        )
    slides: dict[str, Path] = {}
    for file in files[:MAX_LEVELS]:
        try:
            slide = openslide.OpenSlide(file)
        except openslide.OpenSlideError:  # such as a label, which may be a file of its own
            continue
        slides.setdefault(slide.properties["dicom.SeriesInstanceUID"], file)
        slide.close()
    if len(slides) > 1:
        names = " or ".join(file.name for file in slides.values())
        raise HistoclickError(
            f"{folder}: holds {len(slides)} DICOM slides; give a file of the one wanted, such as "
            f"{names}"
        )
    return next(iter(slides.values()), files[0])


def _source(path: Path) -> Source:
    """OpenSlide where it knows the format and shows all of it, else tifffile, else Pillow."""
    with path.open("rb") as opened:
        tiff = is_tiff(opened.read(4))
    whole = check_tiff(path) if tiff else True
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor and (vendor != "generic-tiff" or whole):
        try:
            return OpenSlideSource(path)
        except openslide.OpenSlideError as error:
            if not tiff:
                raise HistoclickError(
                    f"{path}: a damaged or incomplete {vendor} slide ({error}); copy it again with "
                    "all its files"
                ) from None
    if tiff:
        return TiffSource(path)
    if path.suffix.lower() == ".mrxs" and not path.with_suffix("").is_dir():
        raise HistoclickError(
            f"{path}: the folder {path.stem}, which holds its pixels, is not beside it; copy both"
        )
    return PictureSource(path)
