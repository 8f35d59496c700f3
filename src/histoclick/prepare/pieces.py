"""What a preparation has done so far: a piece for each slide, and the patch sets made of them.

OUT/prepare.toml             the recipe, and the split of every slide
OUT/slides/<slide>.json      a slide that is done: its patches, and what they were made from
OUT/[<split>/]images, masks  the patches
OUT/[<split>/]patches.parquet
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from histoclick.datasets.cases import Case
from histoclick.files import replace
from histoclick.prepare.cutting import Patches, Plan
from histoclick.prepare.recipe import Recipe, Splits
from histoclick.types import HistoclickError

CARD = "prepare.toml"
COLUMNS = {
    "id": "string", "slide": "string", "split": "string", "x0": "int64", "y0": "int64",
    "mpp": "float64", "size": "int32", "object_fraction": "float64", "tissue_fraction": "float64",
    "slide_file": "string", "slide_width": "int64", "slide_height": "int64",
    "slide_mpp_x": "float64", "slide_mpp_y": "float64", "source_hash": "string",
    "annotation_file": "string", "annotation_hash": "string",
}  # fmt: skip

Row = dict[str, Any]  # COLUMNS but the split, and the bytes of image and mask


@dataclass(frozen=True)
class Pieces:
    """The folder of a preparation. ``splits``: of each slide, "" for a single patch set."""

    out: Path
    splits: dict[str, str]

    @classmethod
    def open(cls, out: Path, recipe: Recipe, splits: Splits, cases: list[Case]) -> Pieces:
        """Make the folder, or go on in it.

        Raises ``HistoclickError`` for a folder of another recipe, or of something else.
        """
        wanted = {"recipe": recipe.facts, "splits": splits.facts}
        path, kept = out / CARD, {}
        if path.exists() and any((out / "slides").glob("*.json")):
            kept = _kept(path, wanted)
        elif path.exists():
            pass  # no slide was done by that recipe: a mended one may take its place
        elif out.exists() and any(out.iterdir()):
            raise HistoclickError(f"{out}: holds something else; give a new or an empty folder")
        assigned = kept | splits.assign((case.id for case in cases), kept)
        (out / "slides").mkdir(parents=True, exist_ok=True)
        replace(path, tomli_w.dumps(wanted | {"slides": assigned}).encode())
        pieces = cls(out, assigned)
        for folder in pieces.folders:
            for part in ("images", "masks"):
                (folder / part).mkdir(parents=True, exist_ok=True)
        return pieces

    @property
    def folders(self) -> list[Path]:
        """The patch sets."""
        return [self.out / split for split in sorted(set(self.splits.values()))]

    def is_done(self, case: Case) -> bool:
        """Whether the slide was cut, from the same files. If they have changed since, its old
        patches are removed."""
        piece = self._read(case.id)
        if piece is None:
            return False
        if piece["made_from"] == _made_from(case) and self._all_there(case, piece["patches"]):
            return True
        for row in piece["patches"]:
            self.remove(case, row["id"])
        self._piece(case.id).unlink()
        return False

    def folder(self, case: Case) -> Path:
        """The patch set that a slide belongs to."""
        return self.out / self.splits[case.id]

    def rows(self, recipe: Recipe, plan: Plan, patches: Patches) -> list[Row]:
        """The rows of patches that were written."""
        return [
            {"id": cell.id, "slide": patches.case.id, "x0": cell.x0, "y0": cell.y0}
            | {"bytes": list(cell.sizes), "mpp": recipe.mpp, "size": recipe.size_px}
            | {"object_fraction": cell.object_fraction, "tissue_fraction": cell.tissue_fraction}
            | plan.facts
            for cell in patches.cells
        ]

    def finish(self, case: Case, rows: list[Row]) -> None:
        """Note that a slide is done."""
        ordered = sorted(rows, key=lambda row: (row["y0"], row["x0"]))
        piece = {"made_from": _made_from(case), "patches": ordered}
        replace(self._piece(case.id), json.dumps(piece, indent=1).encode())

    def remove(self, case: Case, id_: str) -> None:
        """A patch of a slide that cannot be used after all."""
        for part in ("images", "masks"):
            (self.folder(case) / part / f"{id_}.png").unlink(missing_ok=True)

    def manifests(self) -> dict[str, int]:
        """Write the manifest of every patch set from all pieces; their number of patches."""
        import pyarrow as pa  # here, because workers import this module and start faster without
        from pyarrow import parquet

        schema = pa.schema(list(COLUMNS.items()))
        rows: dict[str, list[Row]] = {split: [] for split in sorted(set(self.splits.values()))}
        for slide, split in sorted(self.splits.items()):
            piece = self._read(slide)
            rows[split] += [row | {"split": split} for row in piece["patches"]] if piece else []
        for split, patches in rows.items():
            path = self.out / split / "patches.parquet"
            partial = path.with_name("patches.parquet.partial")
            parquet.write_table(pa.Table.from_pylist(patches, schema), partial)
            partial.replace(path)
        return {split: len(patches) for split, patches in rows.items()}

    def others(self, cases: list[Case]) -> list[str]:
        """A sentence for each slide that is done and not among ``cases`` any more."""
        here = {case.id for case in cases}
        gone = [slide for slide in self.splits if slide not in here]
        return [
            f"{slide}: not among the slides any more; its {len(piece['patches'])} patches are kept "
            f"(to remove them delete {self._piece(slide)})"
            for slide in gone
            if (piece := self._read(slide))
        ]

    def _all_there(self, case: Case, rows: list[Row]) -> bool:
        """Whether the files of all patches are as long as they were written."""
        for row in rows:
            for part, size in zip(("images", "masks"), row["bytes"], strict=True):
                path = self.folder(case) / part / f"{row['id']}.png"
                if not path.is_file() or path.stat().st_size != size:
                    return False
        return True

    def _piece(self, slide: str) -> Path:
        return self.out / "slides" / f"{slide}.json"

    def _read(self, slide: str) -> dict[str, Any] | None:
        path = self._piece(slide)
        if not path.exists():
            return None
        try:
            piece: dict[str, Any] = json.loads(path.read_bytes())
            whole = {"made_from", "patches"} <= piece.keys()
            return piece if whole and all("bytes" in row for row in piece["patches"]) else None
        except (ValueError, AttributeError, TypeError):
            return None  # damaged: the slide is cut again


def _kept(path: Path, wanted: dict[str, Any]) -> dict[str, str]:
    """The splits of the slides there are; raises unless the recipe is the same."""
    try:
        card = tomllib.loads(path.read_text(encoding="utf-8"))
        slides = {str(slide): str(split) for slide, split in card["slides"].items()}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, AttributeError) as error:
        raise HistoclickError(f"{path}: damaged ({error}); choose another folder") from None
    for part, facts in wanted.items():
        there = card.get(part, {})
        for key in sorted(facts.keys() | there.keys()):
            if facts.get(key) != there.get(key):
                raise HistoclickError(
                    f"{path.parent}: was made with {key} {there.get(key)}, asked for is "
                    f"{facts.get(key)}; choose another folder"
                )
    return slides


def _made_from(case: Case) -> dict[str, Any]:
    """Changes when the slide or its annotation does, and is quick to find out."""
    digest = hashlib.sha256(case.annotation.read_bytes()).hexdigest()
    about = case.slide.stat()
    slide = {"slide_bytes": about.st_size, "slide_mtime_ns": about.st_mtime_ns}
    return {"annotation_sha256": digest, **slide}
