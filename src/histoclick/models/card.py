"""A model's card: everything about a model but its numbers. ``card.toml`` beside the weights."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from histoclick.types import HistoclickError

CURVE = Path("training", "curve.png")  # in the folder of a model that histoclick trained


@dataclass(frozen=True)
class Card:
    """Identity, origin and measured quality of a model.

    ``family`` names a line of the registry's table, ``architecture`` a member of that family; no
    card ever names a Python class. ``sha256`` is of ``weights.safetensors`` (empty: the model has
    no weights). ``untrained`` marks weights that mean nothing, in every output. ``measured`` holds
    one table per patch set: ``dataset``, ``patches``, ``noc80`` ... and the ``command``.
    ``training``: how it was trained from its base, if histoclick did it. ``graphs``: of an exported
    model, what ``models.onnx`` has to know of its files; ``sha256`` is then of both in a row.
    """

    id: str
    family: str
    architecture: str
    summary: str
    licence: str
    origin: str
    sha256: str = ""
    input_size: int = 0
    parameters: int = 0
    untrained: bool = False
    default: bool = False
    trained_on: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    measured: tuple[dict[str, Any], ...] = ()
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    graphs: dict[str, Any] = dataclasses.field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``card.toml`` into ``folder``, replacing one that is there."""
        values = dataclasses.asdict(self)
        plain = {key: value for key, value in values.items() if value not in ((), {})}
        partial = folder / "card.toml.partial"
        partial.write_bytes(tomli_w.dumps(plain, multiline_strings=True).encode())
        partial.replace(folder / "card.toml")


def check_architecture(name: str, known: Collection[str], where: str) -> None:
    """Raise ``HistoclickError`` for a ``name`` that is not among those ``known``. ``where``: the
    model folder or family that asks for it."""
    if name not in known:
        raise HistoclickError(f"{where}: unknown architecture '{name}'; known: {', '.join(known)}")


def read_card(folder: Path) -> Card:
    """Read ``folder/card.toml``. Raises ``HistoclickError`` for a missing or malformed card."""
    path = folder / "card.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise HistoclickError(
            f"{folder}: no card.toml inside, so this is no model folder; make one with 'histoclick "
            "models import'"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HistoclickError(f"{path}: not valid TOML ({error}); mend or re-import") from None
    fields = {field.name: field for field in dataclasses.fields(Card)}
    unknown = sorted(values.keys() - fields.keys())
    missing = sorted(
        name
        for name, field in fields.items()
        if name not in values and field.default is field.default_factory is dataclasses.MISSING
    )
    if unknown or missing:
        problems = [f"unknown {key}" for key in unknown] + [f"missing {key}" for key in missing]
        raise HistoclickError(f"{path}: {', '.join(problems)}; re-import the model")
    for name, field in fields.items():
        kinds = {"str": str, "int": int, "bool": bool, "dict[str, Any]": dict}
        wanted = kinds.get(str(field.type), list)
        if name in values and type(values[name]) is not wanted:
            raise HistoclickError(
                f"{path}: {name} is {values[name]!r} and must be of type {wanted.__name__}; mend it"
            )
    for name in ("trained_on", "notes", "measured"):
        values[name] = tuple(values.get(name, ()))
    return Card(**values)
