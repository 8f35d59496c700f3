"""From run folders to what gets published: tables, curves, strips, one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from histoclick.report import figures, measures, page, strips, tables
from histoclick.report.published import published_table
from histoclick.report.records import read_runs
from histoclick.studies import Published
from histoclick.types import HistoclickError

__all__ = ["ReportFiles", "write_report"]


@dataclass(frozen=True)
class ReportFiles:
    """What a report consists of; ``strips`` is ``None`` when no run kept pictures."""

    markdown: Path
    latex: Path
    csv: Path
    curve_png: Path
    curve_svg: Path
    strips: Path | None
    page: Path


def write_report(
    runs: Sequence[Path],
    out: Path,
    baseline: Path | None = None,
    published: Sequence[Published] | None = None,
    before: Mapping[str, str] | None = None,
) -> ReportFiles:
    """Write the report on ``runs`` into the folder ``out``, replacing one that is there.

    ``runs``: run folders, or folders of run folders. ``baseline``: a run, or a folder with one for
    each dataset (and model family), to which the changes of NoC refer. ``published``: numbers of
    others; the table (and ``published.csv``) that sets ours beside them. ``before``: the model that
    each model was before it was trained (Table 2's brackets). Everything is computed from those
    folders, and before the first file is written.

    Raises ``HistoclickError`` for folders that are no runs or not comparable.
    """
    loaded = read_runs(runs)
    baselines = read_runs([baseline]) if baseline is not None else []
    kept = [strip for run in loaded for strip in strips.read_strips(run)]
    shown = strips.selected(kept)
    clicks, ious = measures.clicks_table(loaded, baselines, before), measures.iou_table(loaded)
    stability = measures.stability_table(loaded)
    shown_tables = [clicks, ious, stability]
    beside = published_table(loaded, published) if published is not None else None
    if beside is not None:
        shown_tables.insert(1, beside)
    curve = figures.curves(loaded)
    contents = {
        "table.md": tables.markdown(shown_tables).encode(),
        "table.tex": tables.latex(shown_tables).encode(),
        "table.csv": tables.comma_separated(clicks.beside(ious).beside(stability)).encode(),
        "curve.png": figures.png(curve, dpi=200),
        "curve.svg": figures.svg(curve),
        "index.html": page.render(loaded, shown_tables, shown, len(kept)).encode(),
    }
    if beside is not None:
        contents["published.csv"] = tables.comma_separated(beside).encode()
    if shown:
        contents["strips.png"] = figures.png(strips.figure(shown), dpi=160)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            partial = out / f"{name}.partial"
            partial.write_bytes(content)
            partial.replace(out / name)
        if not shown:
            (out / "strips.png").unlink(missing_ok=True)  # of an earlier report
    except OSError as error:
        raise HistoclickError(
            f"{out}: cannot write the report there ({error.strerror}); choose another folder"
        ) from None
    return ReportFiles(
        markdown=out / "table.md",
        latex=out / "table.tex",
        csv=out / "table.csv",
        curve_png=out / "curve.png",
        curve_svg=out / "curve.svg",
        strips=out / "strips.png" if shown else None,
        page=out / "index.html",
    )
