"""How patches are cut, and which split each slide belongs to."""

from __future__ import annotations

import csv
import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histoclick.datasets.cases import DataSet
from histoclick.types import HistoclickError


@dataclass(frozen=True)
class Recipe:
    """What a patch is. The defaults are the paper's: 400 px, 20 % to 80 % tumour.

    ``mpp``: um per px of the patches; magnification m is 10 / m. ``stride_px``: from patch to
    patch, 0 for their size. ``object_fraction``: least and most of a patch that is object.
    ``tissue_fraction``: least of it that is tissue; the paper names none, so the default only
    leaves out glass. ``slide_mpp``: um per px of level 0, for slides that do not say. ``icc``:
    apply the slides' colour profiles.
    """

    data_set: DataSet
    mpp: float
    size_px: int = 400
    stride_px: int = 0
    object_fraction: tuple[float, float] = (0.2, 0.8)
    tissue_fraction: float = 0.05
    slide_mpp: float | None = None
    icc: bool = False

    def __post_init__(self) -> None:
        low, high = self.object_fraction
        wrong = {
            "the magnification": not (math.isfinite(self.mpp) and 0.05 <= self.mpp <= 100),
            "the patch size (16 to 4096 px)": not 16 <= self.size_px <= 4096,
            "the stride": self.stride_px < 0,
            "the object fraction (two numbers, 0 to 1)": not 0 <= low <= high <= 1 or high == 0,
            "the tissue fraction (0 to 1)": not 0 <= self.tissue_fraction <= 1,
            "the slides' um per px": self.slide_mpp is not None
            and not 0.01 <= self.slide_mpp <= 50,
        }
        for what, is_wrong in wrong.items():
            if is_wrong:
                raise HistoclickError(f"{what} cannot be used; see histoclick prepare --help")

    @property
    def step_px(self) -> int:
        """From patch to patch."""
        return self.stride_px or self.size_px

    @property
    def facts(self) -> dict[str, Any]:
        """As ``prepare.toml`` holds it."""
        facts = {
            **self.data_set.facts,
            "mpp": self.mpp,
            "size_px": self.size_px,
            "stride_px": self.step_px,
            "object_fraction": list(self.object_fraction),
            "tissue_fraction": self.tissue_fraction,
            "icc": self.icc,
        }
        return facts if self.slide_mpp is None else facts | {"slide_mpp": self.slide_mpp}


@dataclass(frozen=True)
class Splits:
    """Names with their shares of the slides, drawn with a seed; or a table that says it all.

    ``shares``: name to weight; empty for a single patch set. ``fixed``: slide to name.
    """

    shares: Mapping[str, float]
    seed: int = 0
    fixed: Mapping[str, str] | None = None

    @classmethod
    def parse(cls, text: str, seed: int = 0) -> Splits:
        """``"train=0.8,val=0.1,test=0.1"``, or the path of a CSV file with ``slide,split``.

        Raises ``HistoclickError`` for anything else; "" is a single patch set.
        """
        if text.endswith(".csv"):
            return cls({}, seed, _read_table(Path(text)))
        shares = {}
        for part in filter(None, text.replace(" ", ",").split(",")):
            name, _, weight = part.partition("=")
            try:
                shares[_checked(name)] = float(weight)
            except ValueError:
                weight = ""
            if not weight or not 0 < shares[name] < math.inf:
                raise HistoclickError(
                    f"--splits {text!r}: give names with shares, as in train=0.8,val=0.1,test=0.1"
                )
        return cls(shares, seed)

    @property
    def facts(self) -> dict[str, Any]:
        """As ``prepare.toml`` holds it."""
        if self.fixed is not None:
            return {"from": "table"}
        return {"shares": dict(self.shares), "seed": self.seed} if self.shares else {}

    def assign(self, slides: Iterable[str], kept: Mapping[str, str]) -> dict[str, str]:
        """The split of every slide; "" everywhere for a single patch set.

        Slides are dealt out in an order the seed gives, each to the split that lacks most. Those
        in ``kept`` stay where they are, so that new slides move no old one. A slide that a table
        does not name is not in the answer.
        """
        if self.fixed is not None:
            return {slide: self.fixed[slide] for slide in slides if slide in self.fixed}
        if not self.shares:
            return dict.fromkeys(slides, "")
        order = sorted(slides)
        random.Random(self.seed).shuffle(order)
        given = {slide: kept[slide] for slide in order if slide in kept}
        counts, total = Counter(given.values()), sum(self.shares.values())
        todo = [slide for slide in order if slide not in given]
        for left, slide in zip(range(len(todo), 0, -1), todo, strict=True):
            size = sum(counts.values()) + 1
            empty = [name for name in self.shares if not counts[name]]
            # The last slides are for the splits that have none yet.
            names = empty if len(empty) >= left else list(self.shares)
            lack = {name: self.shares[name] / total * size - counts[name] for name in names}
            given[slide] = max(lack, key=lack.__getitem__)
            counts[given[slide]] += 1
        return given

    def gaps(self, assigned: Mapping[str, str]) -> list[str]:
        """A sentence for each split without a slide, and for each slide of a table that is not
        there."""
        splits = set(assigned.values())
        found = [f"split {name} has no slide" for name in self.shares if name not in splits]
        unknown = [slide for slide in self.fixed or () if slide not in assigned]
        return found + [f"{slide}: in the table of splits, but no such slide" for slide in unknown]


def _read_table(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = {row["slide"]: row["split"] or "" for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise HistoclickError(
            f"{path}: no table of splits ({error}); it needs the columns slide and split"
        ) from None
    return {slide: _checked(split) for slide, split in rows.items()}


def _checked(name: str) -> str:
    """Splits become folders."""
    if not re.fullmatch(r"[A-Za-z0-9][\w-]{0,40}", name) or name in ("images", "masks", "slides"):
        raise HistoclickError(f"'{name}' cannot be the name of a split; use one such as train")
    return name
