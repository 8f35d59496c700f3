"""Which models there are, and how to get one.

A model is a folder with ``card.toml`` and, if it has any, ``weights.safetensors``. The built-in
ones ship with the package; imported ones live under ``home()``. A new family is one line in
``FAMILIES``.
"""

from __future__ import annotations

import importlib
import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import platformdirs

from histoclick.files import sha256
from histoclick.models.card import Card, read_card
from histoclick.types import HistoclickError, Segmenter

if TYPE_CHECKING:
    from histoclick.models.graphs import Graphs

BUILTIN = Path(__file__).parent / "builtin"
FAMILIES = {
    "denseclick": "histoclick.models.denseclick.segmenter",
    "gatedclick": "histoclick.models.gatedclick.segmenter",
    "sam": "histoclick.models.sam.family",
    "mobilesam": "histoclick.models.sam.family",  # SAM with another image encoder
    "ritm": "histoclick.models.ritm.family",
    "focalclick": "histoclick.models.focalclick.family",
    "simpleclick": "histoclick.models.simpleclick.family",
    "baseline": "histoclick.models.baselines",
    "classical": "histoclick.models.classical",
    "peer": "histoclick.models.peers.family",
    "onnx": "histoclick.models.onnx.segmenter",  # exported from others; needs no torch
}
EXPORTABLE = ("denseclick", "gatedclick")


class Family(Protocol):
    """What the module of a family offers. Imported when needed: most start torch."""

    def load(self, card: Card, folder: Path, device: str) -> Segmenter:
        """Build the segmenter of a model folder."""
        ...


class ImportableFamily(Family, Protocol):
    """A family whose official weight files can be imported."""

    def convert(self, file: Path, id_: str, folder: Path) -> Card:
        """Check an official weight file strictly, write ``folder/weights.safetensors``, and say
        what it was. Raises ``HistoclickError`` for a file that is not exactly of this family."""
        ...

    def draw(self, architecture: str, folder: Path) -> Path:
        """Make in ``folder`` what ``convert`` takes, with weights that learned nothing. Raises
        ``HistoclickError`` for an unknown architecture, listing the known ones."""
        ...


class ExportableFamily(Family, Protocol):
    """A family whose models are also graphs."""

    def graphs(self, card: Card, folder: Path) -> Graphs:
        """The networks of a model folder, for an export."""
        ...


class ThreadedFamily(Protocol):
    """A family whose models have numbers of threads of their own."""

    def load(self, card: Card, folder: Path, device: str, threads: int) -> Segmenter:
        """Build the segmenter of a model folder."""
        ...


def home() -> Path:
    """Where imported models live: ``$HISTOCLICK_HOME/models``, else the user's data folder."""
    base = os.environ.get("HISTOCLICK_HOME") or platformdirs.user_data_dir("histoclick")
    return Path(base) / "models"


def folders() -> dict[str, Path]:
    """Folder of every known model by id: built-in first, then imported, sorted."""
    found: dict[str, Path] = {}
    for place in (BUILTIN, home()):
        if place.is_dir():
            inside = sorted(path.parent for path in place.glob("*/card.toml"))
            found |= {folder.name: folder for folder in inside if folder.name not in found}
    return found


def cards() -> dict[str, Card | HistoclickError]:
    """Cards of all known models by id; of a damaged one, what is wrong with it."""
    found: dict[str, Card | HistoclickError] = {}
    for id_ in folders():
        try:
            found[id_] = find(id_)[0]
        except HistoclickError as error:
            found[id_] = error
    return found


def default_id() -> str:
    """The built-in model that is used when none is named."""
    shipped = (read_card(path.parent) for path in sorted(BUILTIN.glob("*/card.toml")))
    return next(card.id for card in shipped if card.default)


def find(id_or_folder: str | Path) -> tuple[Card, Path]:
    """Card and folder of a model. What looks like a path is a path, never a guess.

    Raises ``HistoclickError`` for an unknown name, listing the known ones.
    """
    name = str(id_or_folder)
    if isinstance(id_or_folder, Path) or "/" in name or os.sep in name or name in (".", ".."):
        folder = Path(id_or_folder)
        if not folder.is_dir():
            raise HistoclickError(f"{folder}: no such model folder")
        return read_card(folder), folder
    known = folders()
    if name not in known:
        raise HistoclickError(
            f"unknown model '{name}'; known: {', '.join(known)} (a folder is given as a path, such "
            f"as ./{name})"
        )
    card = read_card(known[name])
    if card.id != name:
        raise HistoclickError(
            f"{known[name]}: the card says '{card.id}'; give folder and card the same name"
        )
    return card, known[name]


def load(
    id_or_folder: str | Path | None = None, *, device: str = "cpu", threads: int = 0
) -> Segmenter:
    """Load a model by id or folder; without a name, the built-in one.

    ``device``: as PyTorch names them (``cpu``, ``cuda``, ``mps``). ``threads``: of an exported
    model, 0 for as many as fit; PyTorch has one number for all models. Raises ``HistoclickError``
    for an unknown model, a damaged folder, or weights that are not those of the card.
    """
    card, folder = find(default_id() if id_or_folder is None else id_or_folder)
    _verify(card, folder)
    family = _family(card.family)
    if card.family == "onnx":
        return cast(ThreadedFamily, family).load(card, folder, device, threads)
    return family.load(card, folder, device)


def export_model(id_or_folder: str | Path, out: Path) -> Path:
    """Write a model as ONNX graphs to the new folder ``out``, which ``load`` runs without PyTorch.

    Raises ``HistoclickError`` for a family that has no graphs.
    """
    card, folder = find(id_or_folder)
    _verify(card, folder)
    module = _family(card.family)
    if not hasattr(module, "graphs"):
        raise HistoclickError(
            f"{card.id}: models of family '{card.family}' cannot be exported; those of "
            f"{' and '.join(EXPORTABLE)} can"
        )
    from histoclick.models.onnx.export import export

    return export(card, folder, cast(ExportableFamily, module).graphs(card, folder), out)


def import_model(file: Path, family: str, id_: str) -> Path:
    """Make a model folder under ``home()`` from an official weight file. Returns the folder.

    Raises ``HistoclickError`` for a bad file, an unknown family, or an id that is taken.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", id_):
        raise HistoclickError(
            f"'{id_}' is no model id; use small letters, digits, dots, dashes and underscores"
        )
    if id_ in folders():
        raise HistoclickError(
            f"model '{id_}' exists already in {folders()[id_]}; choose another --id, or "
            "delete that folder"
        )
    module = _family(family)
    if not hasattr(module, "convert"):
        importable = [name for name in FAMILIES if hasattr(_family(name), "convert")]
        raise HistoclickError(
            f"family '{family}' has no files to import; importable: {', '.join(importable)}"
        )
    try:
        home().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HistoclickError(
            f"{home()}: cannot be made ({error.strerror}); set HISTOCLICK_HOME to a folder of yours"
        ) from None
    return _convert(cast(ImportableFamily, module), file, home() / id_)


def with_random_weights(family: str, architecture: str, folder: Path, input_size: int = 0) -> Path:
    """Make a model ``folder`` whose weights learned nothing: to time a network, or to try a whole
    study without its weights. Its card, and so every output, says ``untrained``. ``input_size``:
    the card's, if not what was published.

    Raises ``HistoclickError`` for an unknown family or architecture.
    """
    module = _family(family)
    if not hasattr(module, "draw"):
        able = [name for name in FAMILIES if hasattr(_family(name), "draw")]
        raise HistoclickError(
            f"family '{family}' has no weights to draw; those that have: {', '.join(able)}"
        )
    if folder.exists():
        raise HistoclickError(f"{folder}: exists already; choose another folder")
    family_ = cast(ImportableFamily, module)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".random-", dir=folder.parent) as partial:
        file = family_.draw(architecture, Path(partial))
        return _convert(family_, file, folder, untrained=True, input_size=input_size)


def _convert(
    family: ImportableFamily,
    file: Path,
    folder: Path,
    untrained: bool = False,
    input_size: int = 0,
) -> Path:
    """The model ``folder``, there whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=".import-", dir=folder.parent) as partial:
        made = Path(partial) / folder.name
        made.mkdir()
        card = family.convert(file, folder.name, made)
        if untrained:
            card = replace(
                card,
                summary=f"Random weights ({card.architecture}): for timing, not for masks.",
                licence="Apache-2.0",
                origin="drawn at random by histoclick",
                input_size=input_size or card.input_size,
                untrained=True,
            )
        card.write(made)
        made.rename(folder)
    return folder


def _family(name: str) -> Family:
    if name not in FAMILIES:
        raise HistoclickError(f"unknown family '{name}'; known: {', '.join(FAMILIES)}")
    try:
        return cast(Family, importlib.import_module(FAMILIES[name]))
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise HistoclickError(
            f"models of family '{name}' need PyTorch, which is not installed; install it, or give "
            "--model an exported model ('histoclick models export', where PyTorch is)"
        ) from None


def _verify(card: Card, folder: Path) -> None:
    files = card.graphs.get("sha256", {"weights.safetensors": card.sha256})
    if not isinstance(files, dict):
        raise HistoclickError(f"{folder / 'card.toml'}: [graphs.sha256] is no table; mend it")
    if not card.sha256 and not any((folder / name).exists() for name in files):
        return  # a model without weights
    again = "export" if card.graphs else "import"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise HistoclickError(f"{folder}: {name} is missing; {again} the model again")
        if sha256(path) != expected:
            raise HistoclickError(
                f"{path}: not the weights the card describes (SHA-256 differs); {again} the model "
                "again"
            )
