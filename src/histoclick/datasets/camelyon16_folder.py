"""How a folder with CAMELYON16 looks, from its bucket, from GigaDB or sorted by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from histoclick.datasets.inventory import Layout

# The README of the data set: there may be tumour on these that nobody outlined.
PARTLY_ANNOTATED = (
    "tumor_010", "tumor_015", "tumor_018", "tumor_020", "tumor_025", "tumor_029", "tumor_033",
    "tumor_034", "tumor_044", "tumor_046", "tumor_051", "tumor_054", "tumor_055", "tumor_056",
    "tumor_067", "tumor_079", "tumor_085", "tumor_092", "tumor_095", "tumor_110", "test_114",
)  # fmt: skip
_CASE = r"(?P<case>(?:normal|tumor|test)_\d{3})"


def _complaint(case: str, parts: set[str]) -> str:
    if "slide" not in parts:
        kinds = " and ".join(sorted(parts))
        return f"{kinds} without slide; run: histoclick fetch camelyon16 {case} --only images"
    if case.startswith("tumor") and not parts & {"annotation", "mask"}:
        return (
            f"slide without annotation; run: histoclick fetch camelyon16 {case} --only annotations"
        )
    return ""


def _remarks(cases: Iterable[str]) -> Mapping[str, Any]:
    partly = [case for case in cases if case in PARTLY_ANNOTATED]
    return {"not_fully_annotated": partly} if partly else {}


CAMELYON16 = Layout(
    "CAMELYON16",
    {
        "slide": re.compile(rf"{_CASE}\.tiff?"),
        "annotation": re.compile(rf"{_CASE}\.xml"),
        "mask": re.compile(rf"{_CASE}_mask\.tiff?"),
    },
    _complaint,
    _remarks,
)
