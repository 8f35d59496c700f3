"""Tables as one value object, rendered as Markdown, LaTeX and CSV (and by the page as HTML)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    MINUS: "$-$", "<": "$<$", ">": "$>$", "[": "{[}", "]": "{]}",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One entry, as text to show and as numbers to compute with.

    ``value`` stands out, ``detail`` (an interval) belongs to it, ``change`` and ``change_detail``
    compare with the baseline and ``verdict`` tells whether their interval leaves out zero;
    ``mark`` warns. ``numbers``: full precision, by column of the CSV.
    """

    value: str
    detail: str = ""
    change: str = ""
    change_detail: str = ""
    verdict: str = ""
    mark: str = ""
    numbers: tuple[tuple[str, object], ...] = ()

    @property
    def plain(self) -> str:
        """Everything in one line."""
        mark = f"({self.mark})" if self.mark else ""
        change = f"({self.change} {self.change_detail}".rstrip() + ")" if self.change else ""
        return " ".join(part for part in (self.value, mark, self.detail, change) if part)


@dataclass(frozen=True)
class Table:
    """Rows of cells under ``columns``; the first ``labels`` columns say what a row is about."""

    title: str
    columns: tuple[str, ...]
    labels: int
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def beside(self, other: Table) -> Table:
        """The table with the new columns of ``other``, whose rows are about the same."""
        new = [i for i, column in enumerate(other.columns) if column not in self.columns]
        rows = zip(self.rows, other.rows, strict=True)
        return Table(
            f"{self.title}; {other.title}",
            self.columns + tuple(other.columns[i] for i in new),
            self.labels,
            tuple(row + tuple(more[i] for i in new) for row, more in rows),
            tuple(dict.fromkeys(self.notes + other.notes)),
        )


def markdown(tables: Iterable[Table]) -> str:
    """GitHub-flavoured Markdown, numbers to the right."""
    return "\n".join(_markdown(table) for table in tables)


def latex(tables: Iterable[Table]) -> str:
    r"""``table`` environments for a document with ``\usepackage{booktabs}``.

    Intervals and changes stand in rows of their own under the values, in script size, so that the
    table stays as narrow as a printed page.
    """
    return "% needs \\usepackage{booktabs}\n" + "\n".join(_latex(table) for table in tables)


def comma_separated(table: Table) -> str:
    """CSV, one line per row, full precision: each number, its bounds and its change in columns."""
    lines = [dict(pair for cell in row for pair in cell.numbers) for row in table.rows]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _markdown(table: Table) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(re.sub(r"([|\\`*<])", r"\\\1", cell) for cell in cells) + " |"

    rule = ["---"] * table.labels + ["---:"] * (len(table.columns) - table.labels)
    rows = [line(cell.plain for cell in row) for row in table.rows]
    head = [f"**{table.title}**", "", line(table.columns), "|" + "|".join(rule) + "|"]
    return "\n".join([*head, *rows, "", *(f"{note}  " for note in table.notes), ""])


def _latex(table: Table) -> str:
    def line(cells: Iterable[str], small: bool = False) -> str:
        size = r"\scriptsize " if small else ""
        return " & ".join(size + cell if cell else "" for cell in cells) + r" \\"

    rows = []
    for row in table.rows:
        marked = [f"{cell.value} ({cell.mark})" if cell.mark else cell.value for cell in row]
        changed = [
            f"{value} ({cell.change})" if cell.change else value
            for value, cell in zip(marked, row, strict=True)
        ]
        rows.append(line(map(_escaped, changed)))
        details = [cell.detail for cell in row]
        bounds = [f"({cell.change_detail})" if cell.change_detail else "" for cell in row]
        rows += [line(map(_escaped, below), True) for below in (details, bounds) if any(below)]
        rows.append(r"\addlinespace")
    numbers = len(table.columns) - table.labels
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(table.title)}. {_escaped(' '.join(table.notes))}}}",
            rf"\begin{{tabular}}{{{'l' * table.labels}{'r' * numbers}}}",
            r"\toprule",
            line(map(_escaped, table.columns)),
            r"\midrule",
            *rows[:-1],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
