"""What a comparison is made of: a TOML file, checked."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from histoclick.models.card import check_architecture
from histoclick.models.gatedclick.parts import ARCHITECTURES
from histoclick.train.crops import Recipe
from histoclick.types import HistoclickError

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
SHIPPED = "decoders.toml"
Part = TypeVar("Part")


@dataclass(frozen=True)
class Variant:
    """One network to compare; what is 0, empty or ``None`` is as the plan says.

    ``architecture``: of the gated family. ``stage``: those of stage 1 are done first, with all
    seeds. ``weights_of``: takes over the weights of that variant instead of learning, for what only
    matters when it predicts. ``frozen``: whether the trunk stays as it is, and is the same for all;
    ``random``: whether it begins without the given weights. ``rate``, ``crop``, ``stop``,
    ``most_clicks``, ``input_size``: as in ``Plan`` and ``Recipe``.
    """

    name: str
    architecture: str
    stage: int = 1
    weights_of: str = ""
    frozen: bool = True
    random: bool = False
    rate: float = 0.0
    crop: int = 0
    stop: float = 0.0
    most_clicks: int = 0
    input_size: int = 0


@dataclass(frozen=True)
class Data:
    """A patch set below the root. ``group``: what it is summed up with."""

    folder: str
    group: str


@dataclass(frozen=True)
class Plan:
    """``learn_from``: patch sets below the root; ``data``: those that are measured on. ``crops``:
    in a pool. ``references``: variants that all others are compared with. ``slide``: regular
    expression that finds a slide's or patient's name in a patch's id, empty for none."""

    title: str
    learn_from: tuple[str, ...]
    data: tuple[Data, ...]
    variants: tuple[Variant, ...]
    references: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    crops: int
    rate: float = 1e-3
    input_size: int = 256
    max_clicks: int = 20
    slide: str = ""
    recipe: Recipe = dataclasses.field(default_factory=Recipe)

    def recipe_of(self, variant: Variant) -> Recipe:
        """The plan's with the variant's changes; scales go with the crops."""
        recipe = self.recipe
        if variant.crop:
            low, high = (round(side * variant.crop / recipe.crop) for side in recipe.long_side)
            recipe = dataclasses.replace(recipe, crop=variant.crop, long_side=(low, high))
        asked = {key: getattr(variant, key) for key in ("stop", "most_clicks")}
        return dataclasses.replace(recipe, **{k: v for k, v in asked.items() if v})


def read_plan(path: Path | None = None, changes: Mapping[str, Any] | None = None) -> Plan:
    """A plan, by default the shipped one. ``changes``: other values of its own keys, such as
    ``steps``. Raises ``HistoclickError`` for what is wrong with it."""
    where = str(path or SHIPPED)
    try:
        if path is None:
            file = resources.files("histoclick.comparison").joinpath(SHIPPED)
            text = file.read_text(encoding="utf-8")
        else:
            text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise HistoclickError(f"{where}: no readable TOML ({error}); mend it") from None
    parts: dict[str, Any] = dict(values) | dict(changes or {})
    parts["variants"] = tuple(_part(Variant, each, where) for each in values.pop("variant", []))
    parts["data"] = tuple(_part(Data, each, where) for each in values.get("data", []))
    parts["recipe"] = _part(Recipe, values.get("recipe", {}), where)
    parts.pop("variant", None)
    plan = _part(Plan, parts, where)
    _check(plan, where)
    return plan


def _part(kind: type[Part], values: Mapping[str, Any], where: str) -> Part:
    fields = {each.name: each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - fields.keys()):
        known = ", ".join(fields)
        raise HistoclickError(f"{where}: unknown key {', '.join(unknown)}; known: {known}")
    plain = {}
    for name, value in values.items():
        wanted = str(fields[name].type)
        if wanted == "float" and type(value) is int:
            value = float(value)
        if isinstance(value, list):
            value = tuple(value)
        kinds: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}
        if wanted.startswith("tuple") != isinstance(value, tuple) or (
            wanted in kinds and type(value) is not kinds[wanted]
        ):
            raise HistoclickError(f"{where}: {name} is {value!r} and must be of type {wanted}")
        plain[name] = value
    try:
        return kind(**plain)
    except TypeError as error:
        raise HistoclickError(f"{where}: {error}; add what is missing") from None


def _check(plan: Plan, where: str) -> None:
    names = [variant.name for variant in plan.variants]
    for variant in plan.variants:
        check_architecture(variant.architecture, ARCHITECTURES, f"{where}: {variant.name}")
        if not NAME.fullmatch(variant.name) or names.count(variant.name) > 1:
            raise HistoclickError(f"{where}: variant '{variant.name}' is twice there or no name")
        sources = [each for each in plan.variants if each.name == variant.weights_of]
        if variant.weights_of and not (sources and not sources[0].weights_of):
            raise HistoclickError(
                f"{where}: {variant.name} takes the weights of '{variant.weights_of}', which is no "
                "variant that learns; mend weights_of"
            )
        if variant.random and variant.frozen:
            raise HistoclickError(f"{where}: {variant.name} has a random trunk that never learns")
        plan.recipe_of(variant)
    if lost := [name for name in plan.references if name not in names]:
        raise HistoclickError(f"{where}: reference '{lost[0]}' is no variant; add it")
    if not (names and plan.seeds and plan.data and plan.learn_from):
        raise HistoclickError(f"{where}: give variants, seeds, data and learn_from")
    if min(plan.steps, plan.crops, plan.max_clicks) < 1 or not plan.rate > 0:
        raise HistoclickError(f"{where}: steps, crops, max_clicks and rate must be above 0")
    try:
        re.compile(plan.slide)
    except re.error as error:
        raise HistoclickError(f"{where}: slide is no regular expression ({error})") from None
