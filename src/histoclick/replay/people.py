"""What people did, in numbers: a line for each object, and for each user and class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from histoclick import metrics
from histoclick.replay.history import History
from histoclick.replay.measuring import Measured
from histoclick.report.tables import Cell, Table
from histoclick.session import BoxAround, Import, Stroke

NOBODY, NO_CLASS = "(no name)", "(no class)"


@dataclass(frozen=True)
class Object:
    """An object that is there in the end. ``measured``: ``None`` if nobody clicked on it, or if
    there is nothing to compare it with."""

    patch: str
    slide: str
    history: History
    measured: Measured | None

    @property
    def user(self) -> str:
        """Who worked on it, all of them."""
        return " + ".join(name or NOBODY for name in self.history.users)


def objects_table(objects: Sequence[Object]) -> Table:
    """A line for each object. Those with strokes or from files are to be told apart in it."""
    rows = []
    for each in objects:
        history, item, measured = each.history, each.history.item, each.measured
        assert item is not None
        values: dict[str, object] = {
            "object": each.patch, "slide": each.slide, "user": each.user, "class": item.label,
            "name": item.name, "model": " + ".join(history.models), "mpp": item.mpp,
            "clicks": len(history.clicks), "boxes": history.count(BoxAround),
            "strokes": history.count(Stroke), "imported": bool(history.count(Import)),
            "undone_clicks": len(history.undone), "seconds": round(history.seconds, 3),
            "iou": "" if measured is None else measured.iou,
            "clicks_iou": "" if measured is None else measured.clicks_iou,
        }  # fmt: skip
        rows.append(tuple(Cell(str(value), numbers=((n, value),)) for n, value in values.items()))
    columns = tuple(name for cell in (rows[0] if rows else ()) for name, _ in cell.numbers)
    return Table("Objects", columns, 1, tuple(rows))


def users_table(
    objects: Sequence[Object],
    gone: Sequence[History],
    targets: Sequence[float],
    budget: int,
    truth: str,
) -> Table:
    """A line for each user and class.

    ``gone``: objects that are not there any more; only the clicks taken back on them count.
    ``truth``: what masks were compared with, in words.
    """
    keys = [(each.user, each.history.label) for each in objects]
    lost = [
        (event.user or NOBODY, history.label or str(getattr(event.action, "label", "")))
        for history in gone
        for event in history.undone
    ]
    rows = []
    for key in sorted({*keys, *lost}):
        own = [each for each, whose in zip(objects, keys, strict=True) if whose == key]
        undone = sum(len(each.history.undone) for each in own) + lost.count(key)
        rows.append(_line(key, own, undone, targets, budget))
    columns = (
        "User", "Class", "Objects", "Clicks", "Clicks per object", "Seconds per object", "Boxes",
        "Brush strokes", "Undone clicks", "With brush", "Imported",
        *(f"NoC@{100 * target:g}" for target in targets),
    )  # fmt: skip
    notes = (
        "Seconds per object: from its first action to its last, pauses over 60 s not counted.",
        f"NoC: clicks until the IoU with {truth} is reached, of the objects that were clicked on; "
        f"who never reaches it counts {budget}. Brush and eraser count for no IoU.",
        "Undone clicks are no part of a NoC. Deleted objects are left out; clicks that were taken "
        "back on them are counted.",
    )
    return Table("Real users", columns, 2, tuple(rows), notes)


def _line(
    key: tuple[str, str],
    own: Sequence[Object],
    undone: int,
    targets: Sequence[float],
    budget: int,
) -> tuple[Cell, ...]:
    user, label = key
    histories = [each.history for each in own]
    clicks = sum(len(history.clicks) for history in histories)
    strokes = [history.count(Stroke) for history in histories]
    cells = [
        Cell(user, numbers=(("user", user),)),
        Cell(label or NO_CLASS, numbers=(("class", label),)),
        _count("objects", len(own)),
        _count("clicks", clicks),
        _mean("clicks_per_object", [len(history.clicks) for history in histories]),
        _mean("seconds_per_object", [history.seconds for history in histories]),
        _count("boxes", sum(history.count(BoxAround) for history in histories)),
        _count("strokes", sum(strokes)),
        _count("undone_clicks", undone),
        _count("with_strokes", sum(count > 0 for count in strokes)),
        _count("imported", sum(history.count(Import) > 0 for history in histories)),
    ]
    for target in targets:
        reached = [
            int(metrics.clicks_to_reach(np.array(ious), target, budget))
            for each in own
            if each.measured is not None
            for ious in [[row["iou"] for row in each.measured.rows[:budget]]]
        ]
        cells.append(_mean(f"noc{100 * target:g}", reached))
    return tuple(cells)


def _count(name: str, value: int) -> Cell:
    return Cell(str(value), numbers=((name, value),))


def _mean(name: str, values: Sequence[float]) -> Cell:
    if not values:
        return Cell("", numbers=((name, ""),))
    mean = float(np.mean(values))
    return Cell(f"{mean:.1f}", numbers=((name, mean),))
