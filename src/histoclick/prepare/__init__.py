"""Prepare patch sets from slides and annotations, as the paper does: a grid of patches at one
magnification, those kept that are object by 20 % to 80 %, split by slide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from histoclick.crew import Crew
from histoclick.datasets.cases import Case
from histoclick.prepare.cutting import Bench, Cut, Failure, Look, Patches, Plan, work
from histoclick.prepare.pieces import Pieces, Row
from histoclick.prepare.recipe import Recipe, Splits
from histoclick.types import HistoclickError

__all__ = ["Bench", "Prepared", "Progress", "Recipe", "Splits", "prepare"]

AT_ONCE = 48  # places that one job looks at


@dataclass(frozen=True)
class Prepared:
    """What came of it. ``patches``: number by split; ``failures``, ``notes``: a sentence each."""

    patches: dict[str, int]
    slides: int
    failures: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class Progress:
    """How far it is, for a progress bar: slides that are done, places that may have a patch and how
    many of them were looked at, patches that were cut."""

    slides: int = 0
    places: int = 0
    looked: int = 0
    patches: int = 0


@dataclass
class _Open:
    """A slide under way: places that are still to be looked at, and rows of its patches so far."""

    plan: Plan
    left: int
    rows: list[Row]


def prepare(
    crew: Crew[Bench],
    recipe: Recipe,
    slides: Path,
    annotations: Path,
    out: Path,
    *,
    splits: Splits | None = None,
    begun: Callable[[int], object] = lambda slides: None,
    seen: Callable[[Progress], object] = lambda progress: None,
) -> Prepared:
    """Cut patches of all slides into the folder ``out``; an interrupted preparation goes on.

    ``crew``: workers with a ``Bench`` of the same recipe. A slide that cannot be used is skipped
    and told, and tried again next time. ``begun`` is called with the number of slides, ``seen``
    after every job. Raises ``HistoclickError`` when nothing could be done.
    """
    cases, notes = recipe.data_set.cases(slides, annotations)
    pieces = Pieces.open(out.resolve(), recipe, splits or Splits({}), cases)
    notes = [*notes, *(splits or Splits({})).gaps(pieces.splits)]
    if unnamed := [case.id for case in cases if case.id not in pieces.splits]:
        notes = [*notes, f"in no split, left out: {', '.join(unnamed)}"]
        cases = [case for case in cases if case.id in pieces.splits]
    notes = [*notes, *pieces.others(cases)]
    todo = [case for case in cases if not pieces.is_done(case)]
    begun(len(cases))
    progress = Progress(slides=len(cases) - len(todo))
    seen(progress)
    failures: list[str] = []
    labels: set[str] = set()
    try:
        for number, result in enumerate(_all_of(crew, pieces, recipe, todo, progress)):
            if not number:  # others are at work meanwhile
                pieces.manifests()  # what is there is a patch set, also if this process is killed
            if isinstance(result, Plan):
                notes = [*notes, *result.notes]
                labels |= result.labels
            elif isinstance(result, Failure):
                failures.append(result.reason)
            seen(progress)
    finally:
        patches = pieces.manifests()
    if len(todo) == len(cases) and labels:  # else it is not known what the other slides hold
        notes += [
            f"no slide has an object of class '{name}'; there are {', '.join(sorted(labels))}"
            for name in recipe.data_set.named
            if name not in labels
        ]
    if cases and len(failures) == len(cases):
        raise HistoclickError(f"no slide could be used; the first: {failures[0]}")
    return Prepared(patches, len(cases), tuple(failures), tuple(notes))


def _all_of(
    crew: Crew[Bench], pieces: Pieces, recipe: Recipe, todo: list[Case], progress: Progress
) -> Iterator[Plan | Patches | Failure]:
    """Look at every slide and cut its patches. What was found is cut before the next slide is
    looked at, so that slides are finished one after the other."""
    looks: list[Look | Cut] = [Look(case) for case in reversed(todo)]
    cuts: list[Look | Cut] = []
    under_way: dict[str, _Open] = {}
    failed: set[str] = set()
    while looks or cuts:
        for result in crew.map(work, _drained(cuts, looks)):
            id_ = result.case.id
            if isinstance(result, Plan):
                under_way[id_] = _Open(result, len(result.places), [])
                parts = range(0, len(result.places), AT_ONCE)
                folder = pieces.folder(result.case)
                cuts += [
                    Cut(result.case, result.places[a : a + AT_ONCE], folder)
                    for a in reversed(parts)
                ]
                progress.places += len(result.places)
            elif isinstance(result, Patches) and id_ in under_way:
                slide = under_way[id_]
                slide.rows += pieces.rows(recipe, slide.plan, result)
                slide.left -= result.places
                progress.looked += result.places
                progress.patches += len(result.cells)
            elif isinstance(result, Patches):  # of a slide that failed in another place
                for cell in result.cells:
                    pieces.remove(result.case, cell.id)
            elif isinstance(result, Failure):
                if id_ in failed:
                    continue  # by another part of the same slide
                failed.add(id_)
                cuts[:] = [job for job in cuts if job.case.id != id_]
                given_up = under_way.pop(id_, None)
                for row in given_up.rows if given_up else ():
                    pieces.remove(result.case, row["id"])
            if id_ in under_way and not under_way[id_].left:
                pieces.finish(result.case, under_way.pop(id_).rows)
                progress.slides += 1
            yield result


def _drained(cuts: list[Look | Cut], looks: list[Look | Cut]) -> Iterator[Look | Cut]:
    """Jobs as they are asked for; ``cuts`` may grow meanwhile."""
    while cuts or looks:
        yield (cuts or looks).pop()
