"""How a training goes. ``paper.toml`` holds the paper's way; every key is an option."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from histoclick.types import HistoclickError

SCHEDULES = ("steps", "cosine")
OPTIMISERS = ("adam", "adamw")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Settings:
    """What decides about the weights that come out. What only decides about speed and memory is in
    ``Machine``."""

    epochs: int
    batch: int  # patches per step, over all processes
    rate: float  # learning rate of Adam
    schedule: str  # "steps": times ``gamma`` at ``milestones``; "cosine": down to 1 %
    milestones: tuple[int, ...]  # epochs
    gamma: float
    optimiser: str
    weight_decay: float
    clip: float  # largest norm of the gradient, 0 for any
    ema: float  # decay of the running average that is kept as the result, 0 for none
    crop_px: int  # side of what is cut out of a patch
    augment: bool  # scale and appearance; turns and mirrors are always drawn
    first_points: int  # the most clicks a user begins with
    next_clicks: int  # the most that follow before the graded one
    max_minutes: float  # of training, all sessions together; 0 for any
    seed: int
    precision: str  # of multiplications

    def __post_init__(self) -> None:
        wrong = {
            "epochs must be 1 or more": self.epochs < 1,
            "batch must be 1 or more": self.batch < 1,
            "rate must be above 0": not 0 < self.rate < math.inf,
            f"schedule must be one of {', '.join(SCHEDULES)}": self.schedule not in SCHEDULES,
            f"optimiser must be one of {', '.join(OPTIMISERS)}": self.optimiser not in OPTIMISERS,
            f"precision must be one of {', '.join(PRECISIONS)}": self.precision not in PRECISIONS,
            "gamma must be above 0 and up to 1": not 0 < self.gamma <= 1,
            "weight_decay and clip must be 0 or more": min(self.weight_decay, self.clip) < 0,
            "ema must be 0 or more and below 1": not 0 <= self.ema < 1,
            "crop_px must be 32 to 4096": not 32 <= self.crop_px <= 4096,
            "first_points must be 1 or more": self.first_points < 1,
            "next_clicks must be 0 to 50": not 0 <= self.next_clicks <= 50,
            "max_minutes and seed must be 0 or more": min(self.max_minutes, self.seed) < 0,
        }
        for sentence, is_wrong in wrong.items():
            if is_wrong:
                raise HistoclickError(f"training settings: {sentence}")

    @property
    def facts(self) -> dict[str, Any]:
        """As TOML holds them."""
        return dataclasses.asdict(self) | {"milestones": list(self.milestones)}


@dataclass(frozen=True)
class Machine:
    """What decides about speed and memory only.

    ``device``: as PyTorch names it. ``micro_batch``: patches that go through the network together
    in one process, 0 for all. ``checkpointing``: layers are computed again for the gradient instead
    of being kept. ``save_every_s``: at most this much is lost by an interruption.
    """

    device: str = "cpu"
    micro_batch: int = 0
    checkpointing: bool = False
    save_every_s: float = 45.0


def read_settings(path: Path | None = None, **changes: Any) -> Settings:
    """The paper's settings, changed by a TOML file and then by ``changes`` that are not ``None``.

    Raises ``HistoclickError`` for unknown keys and impossible values.
    """
    values = tomllib.loads(
        resources.files("histoclick.train").joinpath("paper.toml").read_text(encoding="utf-8")
    )
    if path is not None:
        try:
            values |= tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise HistoclickError(f"{path}: no readable TOML ({error}); mend it") from None
    values |= {key: value for key, value in changes.items() if value is not None}
    return _checked(values, str(path or "training settings"))


def parse_changes(changes: list[str]) -> dict[str, Any]:
    """``["rate=1e-4", "schedule=cosine"]`` as values; raises ``HistoclickError``."""
    found: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise HistoclickError(f"--set {change}: give a key and a value, as in rate=1e-4")
        try:
            found[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = text.strip()
    return found


def _checked(values: Mapping[str, Any], where: str) -> Settings:
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    if unknown := sorted(values.keys() - fields.keys()):
        known = ", ".join(fields)
        raise HistoclickError(f"{where}: unknown key {', '.join(unknown)}; known: {known}")
    plain: dict[str, Any] = {}
    for name, value in values.items():
        wanted = str(fields[name].type)
        if wanted == "float" and type(value) is int:
            value = float(value)
        if wanted.startswith("tuple") and isinstance(value, list):
            value = tuple(value)
        kinds = {"int": int, "float": float, "str": str, "bool": bool}
        if type(value) is not kinds.get(wanted, tuple):
            raise HistoclickError(f"{where}: {name} is {value!r} and must be a {wanted}")
        plain[name] = value
    return Settings(**plain)
