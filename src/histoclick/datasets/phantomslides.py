"""Phantom slides as files: the picture, and its truth in three forms.

For each slide, ``<name>.tif`` (a pyramid), ``<name>.geojson`` (QuPath), ``<name>.xml`` (ASAP, in
the groups of CAMELYON16: ``_0`` and ``_1`` tumour, ``_2`` normal tissue inside it) and
``<name>_mask.tif`` (a pyramid of labels, 1 is tumour).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tifffile
from shapely import Polygon

from histoclick.annotations import Annotation, Canvas, Document
from histoclick.annotations import write as write_annotations
from histoclick.datasets.slidephantom import PhantomSlide
from histoclick.pyramids import write_pyramid
from histoclick.types import HistoclickError

_LESION = 250_000.0  # um^2; smaller ones are in group _1
_COLOURS = {"_0": (255, 0, 0), "_1": (255, 128, 0), "_2": (0, 128, 0)}


def write_phantom_slides(
    out: Path,
    slides: int = 1,
    *,
    seed: int = 0,
    width: int = 20_000,
    height: int = 20_000,
    mpp: float = 0.25,
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Write ``slides`` slides of the seeds from ``seed`` on into the folder ``out``.

    ``width``, ``height``: px of level 0, ``mpp``: um per px. ``progress`` is called with the number
    of rows of level 0 that are done, of ``slides * height``. Slides that are there are not drawn
    again. Returns the pictures' files. Raises ``HistoclickError``.
    """
    if slides < 1:
        raise HistoclickError(f"{slides} slides are nothing to draw; give 1 or more")
    wanted = [PhantomSlide(seed + index, width, height, mpp) for index in range(slides)]
    return [write_phantom_slide(slide, out, progress) for slide in wanted]


def write_phantom_slide(
    slide: PhantomSlide, folder: Path, progress: Callable[[int], None] | None = None
) -> Path:
    """Write the slide, unless it is there; the picture comes last and shows that all is there.

    ``progress`` is called with numbers of rows of level 0. Returns the picture's file. Raises
    ``HistoclickError`` where another slide has the name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, about = folder / f"{slide.name}.tif", describe(slide)
    if file.exists():
        if _description(file) != about:
            raise HistoclickError(
                f"{file} is not the slide asked for ({about}); delete it or give another folder"
            )
        if progress:
            progress(slide.height)
        return file
    canvas = Canvas(slide.width, slide.height, slide.mpp, name=file.name)
    for suffix, document, name in (
        (".geojson", slide.truth, "qupath"),
        (".xml", camelyon16(slide), "asap"),
    ):
        write_annotations(document, file.with_suffix(suffix), name, canvas)
    size = slide.width, slide.height
    write_pyramid(folder / f"{slide.name}_mask.tif", *size, slide.masks(), mpp=slide.mpp)
    write_pyramid(file, *size, slide.bands(), mpp=slide.mpp, description=about, progress=progress)
    return file


def describe(slide: PhantomSlide) -> str:
    """What the picture's file says of itself."""
    return (
        f"histoclick phantom slide, not of a patient: seed {slide.seed}, "
        f"{slide.width}x{slide.height} px, {slide.mpp} um per px"
    )


def camelyon16(slide: PhantomSlide) -> Document:
    """The truth as CAMELYON16 has it: outlines without holes, and holes as outlines of ``_2``."""
    drawn = []
    for annotation in slide.truth.annotations:
        shape = annotation.shape
        assert isinstance(shape, Polygon)
        group = "_0" if shape.area * slide.mpp**2 >= _LESION else "_1"
        drawn.append((group, shape.exterior))
        drawn += [("_2", ring) for ring in shape.interiors]
    return Document(
        tuple(
            Annotation(Polygon(ring), group, _COLOURS[group], f"Annotation {index}")
            for index, (group, ring) in enumerate(drawn)
        )
    )


def _description(file: Path) -> str:
    try:
        with tifffile.TiffFile(file) as tiff:
            return str(tiff.pages.first.description)
    except (OSError, ValueError, tifffile.TiffFileError):
        return ""
