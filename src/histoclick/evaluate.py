"""Evaluate a model on a patch set: simulated clicks in, click records out.

A run is a folder (see ``docs/formats.md``). While it is under way, finished patches stand in
``clicks.jsonl``, one line each, forced to disk; a torn last line is what an interruption leaves and
is done again. When all are there they become ``clicks.parquet``. Starting an interrupted run again
continues it and ends with the records an uninterrupted run would have made.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomli_w
from PIL import Image

from histoclick.patches import Patch, PatchSet
from histoclick.trajectory import Step, trajectory
from histoclick.types import HistoclickError, Mask, Sample, Segmenter

COLUMNS = {
    "model": "str", "dataset": "str", "patch": "str", "slide": "str", "click": "int32",
    "x": "float64", "y": "float64", "positive": "bool", "iou": "float64", "seconds": "float64",
    "encode_seconds": "float64",
}  # fmt: skip
SHOWN_CLICKS = (1, 2, 3, 5, 10, 20)  # of the qualitative strips (Fig. 4)


@dataclass(frozen=True)
class Protocol:
    """The rules of an evaluation. Runs are comparable when these agree."""

    max_clicks: int = 20
    targets: tuple[float, ...] = (0.80, 0.85, 0.90)
    click_rule: str = "deepest point of the larger error (Xu et al. 2016)"
    tta: str = "none"
    zoom: str = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(sorted(set(self.targets))))
        if self.max_clicks < 1:
            raise HistoclickError(f"max_clicks is {self.max_clicks}; it must be at least 1")
        if not self.targets or not all(0 < target <= 1 for target in self.targets):
            raise HistoclickError(
                f"targets are {list(self.targets)}; give IoU values above 0 and up to 1, as in 0.85"
            )


def evaluate(
    segmenter: Segmenter,
    patches: PatchSet,
    out: Path,
    *,
    model: dict[str, Any],
    machine: dict[str, Any],
    protocol: Protocol | None = None,
    strips: int = 6,
    predictions: bool = False,
    checked: Callable[[], object] = lambda: None,
    done: Callable[[str, bool], object] = lambda patch, resumed: None,
) -> Path:
    """Simulate a user on every patch and write the run folder ``out``.

    ``model``: its card as plain values, at least ``id`` and ``sha256``. ``machine``: what ran it.
    ``strips``: of how many patches, evenly spread over the set, the masks after selected clicks are
    kept for pictures. ``predictions``: keep the last mask of every patch as PNG. ``checked`` is
    called when a patch was found readable, ``done`` when it is finished. Returns ``out``.

    Raises ``HistoclickError`` for a bad patch, or when ``out`` holds a run with another card.
    """
    protocol = protocol or Protocol()
    if not out.exists():
        out.mkdir(parents=True)  # before all patches are read: a bad path is told at once
    card = {
        "schema": 1,
        "model_id": model["id"],
        "protocol": asdict(protocol) | {"targets": list(protocol.targets)},
        "model": model,
        "data": {
            "name": patches.name,
            "patches": len(patches),
            "slides": len({patch.slide for patch in patches}) if patches.has_slides else 0,
            "sha256": patches.check(checked),
        },
        "machine": machine,
    }
    _open_run(out, card)
    shown = _spread(patches, strips)
    finished = _finished(out)
    for patch in patches:
        wanted = [out / "strips" / f"{patch.id}.npz"] if patch in shown else []
        wanted += [out / "predictions" / f"{patch.id}.png"] if predictions else []
        resumed = patch.id in finished and all(path.exists() for path in wanted)
        if not resumed:
            sample = patch.read()
            rows, masks = [], {}
            for number, step in enumerate(trajectory(segmenter, sample, protocol.max_clicks), 1):
                rows.append(_row(number, step))
                last = step.prediction.mask
                if number in SHOWN_CLICKS:
                    masks[number] = last
            if patch in shown:
                _write_strip(out, sample, masks | {len(rows): last})
            if predictions:
                _write_prediction(out, sample.id, last)
            if patch.id not in finished:
                _append(out, patch, rows)
                finished[patch.id] = rows
        done(patch.id, resumed)
    _close_run(out, model["id"], patches, finished)
    return out


def _row(number: int, step: Step) -> dict[str, Any]:
    """One line of the table; model, dataset, patch and slide are added at the end."""
    return {
        "click": number,
        "x": float(step.click.x),
        "y": float(step.click.y),
        "positive": step.click.positive,
        "iou": step.iou,
        "seconds": step.seconds,
        "encode_seconds": step.encode_seconds,
    }


def _open_run(out: Path, card: dict[str, Any]) -> None:
    """Write the protocol card, or make sure the one that is there says the same."""
    path = out / "run.toml"
    if path.exists():
        old = _read_card(path)
        same = {
            "protocol": ("click_rule", "max_clicks", "tta", "zoom"),  # targets only name columns
            "model": ("id", "sha256"),
            "data": ("name", "patches", "sha256"),
            # A finished run may be opened anywhere; one run must not mix two machines' seconds.
            "machine": () if (out / "clicks.parquet").exists() else ("device", "threads"),
        }
        for part, keys in same.items():
            for key in keys:
                known, asked = old[part].get(key), card[part].get(key)
                if known != asked:
                    raise HistoclickError(
                        f"{out}: holds a run with another {part} ({key}: {known!r}, now "
                        f"{asked!r}); choose another --out or delete the folder"
                    )
        if old["protocol"].get("targets") == card["protocol"]["targets"]:
            return
        card = old | {"protocol": card["protocol"]}
    elif any(file.name != "run.toml.partial" for file in out.iterdir()):
        raise HistoclickError(f"{out}: is not empty and holds no run; choose another --out")
    _replace(path, tomli_w.dumps(card).encode())


def _read_card(path: Path) -> dict[str, dict[str, Any]]:
    """The card of a run that is there, with all its parts."""
    try:
        card = tomllib.loads(path.read_text(encoding="utf-8"))
        parts = {part: dict(card[part]) for part in ("protocol", "model", "data", "machine")}
    except (ValueError, KeyError, TypeError) as error:
        raise HistoclickError(f"{path}: no protocol card ({error}); choose another --out") from None
    return card | parts


def _finished(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Patches already done, from the table of a complete run or from the journal."""
    table = out / "clicks.parquet"
    if table.exists():
        columns = [name for name in COLUMNS if name not in ("model", "dataset", "patch", "slide")]
        try:
            records = pd.read_parquet(table)
            return {
                str(id_): rows[columns].to_dict("records")  # type: ignore[misc]
                for id_, rows in records.groupby("patch", sort=False)
            }
        except (OSError, ValueError, KeyError):
            raise HistoclickError(
                f"{table}: damaged; delete the run folder and evaluate again"
            ) from None
    finished = {}
    path = out / "clicks.jsonl"
    if path.exists():
        whole, _, torn = path.read_bytes().rpartition(b"\n")
        if torn:  # the interruption cut this line; drop it before anything is appended to it
            _replace(path, whole + b"\n" if whole else b"")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
                finished[entry["patch"]] = entry["clicks"]
            except (ValueError, KeyError, TypeError):
                raise HistoclickError(
                    f"{path}: line {number} is damaged; delete it and evaluate again"
                ) from None
    return finished


def _append(out: Path, patch: Patch, rows: list[dict[str, Any]]) -> None:
    entry = {"patch": patch.id, "slide": patch.slide, "clicks": rows}
    with (out / "clicks.jsonl").open("ab") as file:
        file.write(json.dumps(entry).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _close_run(
    out: Path, model: str, patches: PatchSet, finished: dict[str, list[dict[str, Any]]]
) -> None:
    rows = [
        {"model": model, "dataset": patches.name, "patch": patch.id, "slide": patch.slide} | row
        for patch in patches
        for row in finished[patch.id]
    ]
    partial = out / "clicks.parquet.partial"
    with partial.open("wb") as file:
        pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS).to_parquet(file, index=False)
        file.flush()
        os.fsync(file.fileno())  # the journal goes next: the table must be on disk before
    partial.replace(out / "clicks.parquet")
    (out / "clicks.jsonl").unlink(missing_ok=True)


def _spread(patches: PatchSet, count: int) -> frozenset[Patch]:
    """``count`` patches at even distances: shown whatever comes out of them."""
    last = len(patches) - 1
    return frozenset(
        patches.patches[round(i)] for i in np.linspace(0, last, min(count, len(patches)))
    )


def _write_strip(out: Path, sample: Sample, masks: dict[int, Mask]) -> None:
    """What a qualitative strip needs; the clicks are in the records."""
    (out / "strips").mkdir(exist_ok=True)
    partial = out / "strips" / f"{sample.id}.partial"
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            image=sample.image,
            truth=sample.mask,
            masks=np.stack(list(masks.values())),
            shown=np.array(list(masks)),
        )
    partial.replace(out / "strips" / f"{sample.id}.npz")


def _write_prediction(out: Path, patch: str, mask: Mask) -> None:
    """The last mask as an 8-bit PNG, 255 where the object is."""
    (out / "predictions").mkdir(exist_ok=True)
    partial = out / "predictions" / f"{patch}.partial"
    Image.fromarray(mask.astype(np.uint8) * 255).save(partial, format="PNG")
    partial.replace(out / "predictions" / f"{patch}.png")


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
