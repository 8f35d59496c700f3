"""``histoclick convert``: annotations from one format into another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from histoclick.cli.console import say
from histoclick.types import HistoclickError

if TYPE_CHECKING:
    from histoclick.annotations import Canvas, Document


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Annotation file of any format.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File to write.")],
    to: Annotated[
        str | None,
        typer.Option(help="Format of OUT, where its suffix leaves a choice: see docs/formats.md."),
    ] = None,
    slide: Annotated[
        Path | None,
        typer.Option(help="The slide: masks need its size, QuPath's coordinates its bounds."),
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="um per px, if the slide does not say.")] = None,
    simplify: Annotated[
        float, typer.Option(min=0, help="Leave out vertices; outlines move by at most this, px.")
    ] = 0.0,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")] = False,
) -> None:
    """Annotations from one format into another; what the new one cannot hold is said."""
    from histoclick import annotations

    if target.exists() and not force:
        raise HistoclickError(f"{target}: is there already; give another name, or --force")
    canvas = canvas_of(slide, mpp)
    document = annotations.read(source, canvas)
    if simplify:
        document = simplified(document, simplify)
    losses = annotations.write(document, target, to, canvas)
    for note in document.notes:
        say(f"Note: {note}")
    for loss in losses:
        say(f"Lost: {loss}")
    say(f"{counted(document)} from {source} ({annotations.recognise(source).title})")
    say(f"Written to {target}" + ("" if losses or document.notes else ", nothing lost"))


def canvas_of(slide: Path | None, mpp: float | None = None) -> Canvas | None:
    """What formats may have to know of a slide."""
    from histoclick.annotations import Canvas
    from histoclick.slides import open_slide

    if slide is None:
        return None
    with open_slide(slide, mpp=mpp) as opened:
        return Canvas.of(opened)


def simplified(document: Document, tolerance_px: float) -> Document:
    """All areas with fewer vertices, and a note that says it."""
    from dataclasses import replace

    from shapely import MultiPolygon, Polygon, get_num_coordinates

    from histoclick.masks import simplify

    kept, before, after = [], 0, 0
    for annotation in document.annotations:
        shape = annotation.shape
        if isinstance(shape, Polygon | MultiPolygon):
            simple = simplify(shape, tolerance_px)
            before, after = before + get_num_coordinates(shape), after + get_num_coordinates(simple)
            shape = shape if simple.is_empty else simple
        kept.append(replace(annotation, shape=shape))
    counts = f"{before} to {after} vertices"
    note = f"simplified from {counts}; outlines moved by {tolerance_px:g} px at most"
    return replace(document, annotations=tuple(kept)).noting(note)


def counted(document: Document) -> str:
    """As in "3 objects (Tumor 2, no class 1)"."""
    from collections import Counter

    counts = Counter(annotation.label or "no class" for annotation in document.annotations)
    total = len(document.annotations)
    classes = ", ".join(f"{label} {count}" for label, count in counts.most_common(12))
    more = f" and {len(counts) - 12} more classes" if len(counts) > 12 else ""
    return f"{total} object{'' if total == 1 else 's'}" + (f" ({classes}{more})" if total else "")
