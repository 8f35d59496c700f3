"""Studies: which models on which patch sets, and what others measured there.

A study is a TOML file; those of the paper lie beside this module, and a copy of one with other
models or patch sets is a study too.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from histoclick.types import HistoclickError

HERE = Path(__file__).parent
ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # as models are called, and their folders
COLUMNS = ("noc80", "noc85", "noc90", "spc", "nof85", "nof90")  # that may have been published

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class StudiedModel:
    """A model of the registry. ``get``: where its weights come from. ``family`` and
    ``architecture``: what to build with random weights where the study allows that, ``input_size``
    px large if that is to be smaller than published."""

    id: str
    get: str = ""
    family: str = ""
    architecture: str = ""
    input_size: int = 0


@dataclass(frozen=True, slots=True)
class StudiedData:
    """A patch set, as a folder below the root. ``get``: where it comes from."""

    folder: str
    get: str = ""


@dataclass(frozen=True, slots=True)
class Training:
    """How all ``[[trained]]`` models learn: on which patch sets below the root (``data``), chosen
    by which (``validation``), and the settings that differ from the paper's (``train.settings``).
    """

    data: tuple[str, ...]
    validation: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trained:
    """A model that the study makes: ``base``, one of its ``[[model]]``, trained by ``scenario``."""

    id: str
    base: str
    scenario: str


@dataclass(frozen=True, slots=True)
class Published:
    """What a source found with ``model`` on ``dataset`` (the patch set's name).

    ``numbers``: by column of ``COLUMNS``; NoC in clicks, SPC in seconds, NoF as a share (0..1).
    """

    model: str
    dataset: str
    source: str
    numbers: dict[str, float]


@dataclass(frozen=True)
class Study:
    """``limit``: patches per set, 0 for all. ``random_weights``: whether a model that is missing is
    replaced by one of its architecture that learned nothing. Without ``data``, every patch set
    below the root counts."""

    title: str
    models: tuple[StudiedModel, ...]
    data: tuple[StudiedData, ...] = ()
    published: tuple[Published, ...] = ()
    training: Training | None = None
    trained: tuple[Trained, ...] = ()
    max_clicks: int = 20
    targets: tuple[float, ...] = (0.80, 0.85, 0.90)
    limit: int = 0
    random_weights: bool = False


def shipped() -> dict[str, Path]:
    """The studies that come with histoclick, by name."""
    return {path.stem: path for path in sorted(HERE.glob("*.toml"))}


def read_study(name_or_file: str) -> Study:
    """A shipped study by name (``table1-mini``), or any TOML file.

    Raises ``HistoclickError`` for an unknown name, unreadable TOML, and unknown or missing keys.
    """
    path = shipped().get(name_or_file, Path(name_or_file))
    if not path.is_file():
        raise HistoclickError(
            f"unknown study '{name_or_file}'; known: {', '.join(shipped())}, or give a TOML file"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HistoclickError(f"{path}: not valid TOML ({error}); mend it") from None
    models = [_part(StudiedModel, entry, path) for entry in _tables(content, "model", path)]
    data = [_part(StudiedData, entry, path) for entry in _tables(content, "data", path)]
    published = [_published(entry, path) for entry in _tables(content, "published", path)]
    training, trained = _training(content, path)
    if not models:
        raise HistoclickError(f"{path}: names no [[model]]; add at least one")
    names = [*(model.id for model in models), *(model.id for model in trained)]
    if lost := [each.base for each in trained if each.base not in names[: len(models)]]:
        raise HistoclickError(f"{path}: base '{lost[0]}' is no [[model]] of the study; add it")
    if wrong := [name for name in names if not ID.fullmatch(name) or names.count(name) > 1]:
        raise HistoclickError(f"{path}: model id '{wrong[0]}' is twice there or no id; mend it")
    learned = (*training.data, *training.validation) if training else ()
    for folder in (*(entry.folder for entry in data), *learned):
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise HistoclickError(f"{path}: {folder} is no folder below the root; mend it")
    settings = content | {"models": tuple(models), "data": tuple(data)}
    settings |= {"published": tuple(published), "training": training, "trained": trained}
    if isinstance(settings.get("targets"), list):
        settings["targets"] = tuple(settings["targets"])
    study = _part(Study, settings, path)
    if study.limit < 0 or study.max_clicks < 1:
        raise HistoclickError(f"{path}: give limit 0 or more and max_clicks 1 or more")
    if not study.targets or not all(_is_number(target) and target <= 1 for target in study.targets):
        raise HistoclickError(f"{path}: targets are IoU values up to 1, as in [0.80, 0.85]")
    return study


def _training(content: dict[str, Any], path: Path) -> tuple[Training | None, tuple[Trained, ...]]:
    """Take ``[training]`` and ``[[trained]]`` out of ``content``."""
    trained = tuple(_part(Trained, entry, path) for entry in _tables(content, "trained", path))
    entry = content.pop("training", None)
    if bool(trained) != (entry is not None):
        raise HistoclickError(f"{path}: [training] and [[trained]] go together; add the other")
    if entry is None:
        return None, ()
    if not isinstance(entry, dict):
        raise HistoclickError(f"{path}: training is no table; write [training]")
    for name in ("data", "validation"):
        folders = entry.get(name, [])
        if not isinstance(folders, list) or not all(isinstance(each, str) for each in folders):
            raise HistoclickError(f"{path}: {name} of [training] must be a list of folders")
        entry[name] = tuple(folders)
    return _part(Training, entry, path), trained


def _tables(content: dict[str, Any], name: str, path: Path) -> list[dict[str, Any]]:
    """Take the tables ``[[name]]`` out of ``content``."""
    tables = content.pop(name, [])
    if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
        raise HistoclickError(f"{path}: {name} is no list of tables; write [[{name}]]")
    return tables


def _part(kind: type[Part], entry: dict[str, Any], path: Path) -> Part:
    """``entry`` as a ``kind``, every key and type checked against its defaults and annotations."""
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(entry.keys() - known.keys())
    missing = [
        n
        for n, each in known.items()
        if n not in entry and each.default is each.default_factory is MISSING
    ]
    problems = [f"unknown {key} (known: {', '.join(known)})" for key in unknown] + [
        f"missing {key}" for key in missing
    ]
    kinds = {"str": str, "int": int, "bool": bool}
    for name, value in entry.items():
        wanted = kinds.get(str(known[name].type)) if name in known else None
        if wanted and type(value) is not wanted:
            problems.append(f"{name} is {value!r} and must be of type {wanted.__name__}")
    if problems:
        raise HistoclickError(f"{path}: {', '.join(problems)}; mend the study")
    return kind(**entry)


def _published(entry: dict[str, Any], path: Path) -> Published:
    numbers = {column: entry.pop(column) for column in COLUMNS if column in entry}
    wrong = [f"{name} = {value!r}" for name, value in numbers.items() if not _is_number(value)]
    if wrong:
        raise HistoclickError(f"{path}: {', '.join(wrong)}; give a number of 0 or more")
    entry["numbers"] = {name: float(value) for name, value in numbers.items()}
    return _part(Published, entry, path)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
