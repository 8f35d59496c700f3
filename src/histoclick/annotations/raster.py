"""Masks: PNG or TIFF images whose pixels name classes.

Read: every piece of a class is an annotation, with the corners of its pixels as vertices. What
classes are called is known from files written here (see ``histoclick.rasters.legend``); colour
masks give classes the names of their colours. A mask may be a smaller copy of the slide's.

Written: grey PNG, or tiled TIFF with smaller levels, a few rows at a time; 0 is background, classes
count from 1.
"""

from __future__ import annotations

from pathlib import Path

from histoclick.annotations.document import Canvas, Document
from histoclick.annotations.format import Format, Holds
from histoclick.annotations.regions import Painting, annotations_of, classes_of, on_canvas
from histoclick.masks import trace
from histoclick.pyramids import write_pyramid
from histoclick.rasters import PNG_BYTES, LabelClass, Legend, is_raster, open_raster, write_png
from histoclick.types import HistoclickError


def recognises(path: Path, head: bytes) -> bool:
    """Any PNG or TIFF: whether its pixels name classes is seen when they are read."""
    return is_raster(head)


def read(path: Path, canvas: Canvas | None) -> Document:
    """See ``Format``."""
    with open_raster(path) as image:
        pieces = trace((band for _, band in image.bands()), name=str(path))
        width, height, legend = image.width, image.height, image.legend
    labels = {value: one.name for value, one in legend.classes.items()}
    colours = {value: one.colour for value, one in legend.classes.items()}
    annotations = annotations_of(pieces, labels, colours)
    notes = []
    if canvas is not None and (width, height) != (canvas.width, canvas.height):
        annotations = on_canvas(path, annotations, width, height, canvas)
        notes.append(
            f"the mask has {width}x{height} px and the slide {canvas.width}x{canvas.height}: "
            "outlines were enlarged, in steps of that size"
        )
    size = Canvas(width, height, legend.mpp) if not notes else canvas
    return Document(annotations, tuple(notes), size)


def write(document: Document, path: Path, canvas: Canvas | None) -> list[str]:
    """See ``Format``. The suffix .png makes a PNG, every other one a TIFF."""
    canvas = canvas or document.canvas
    if canvas is None:
        raise HistoclickError(f"{path}: a mask has the size of the slide; name it (--slide)")
    classes, losses = classes_of(document)
    legend = Legend({one.value: LabelClass(one.label, one.colour) for one in classes}, canvas.mpp)
    painting = Painting(document, classes, canvas)
    if path.suffix.lower() == ".png":
        if canvas.width * canvas.height * painting.dtype.itemsize > PNG_BYTES:
            raise HistoclickError(
                f"{path}: {canvas.width}x{canvas.height} px are too many for a PNG; write a .tif"
            )
        write_png(path, canvas.width, canvas.height, painting.bands(), legend)
    else:
        write_pyramid(
            path,
            canvas.width,
            canvas.height,
            painting.bands(),
            mpp=canvas.mpp,
            description=legend.text(),
        )
    return losses + painting.losses()


MASK = Format(
    name="mask",
    title="Mask PNG/TIFF",
    suffixes=(".png", ".tif", ".tiff"),
    decimals=None,
    # Pieces of a class may be parts of one object or not: a mask cannot say it.
    holds=frozenset({Holds.LABELS, Holds.COLOURS, Holds.HOLES}),
    recognises=recognises,
    read=read,
    write=write,
    needs_canvas=True,
)
