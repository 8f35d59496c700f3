"""One variant with one seed: trained, exported, evaluated. Whatever is there already is kept."""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from histoclick.comparison.plan import Plan, Variant
from histoclick.evaluate import Protocol, evaluate
from histoclick.machine import describe
from histoclick.models import registry
from histoclick.models.card import Card, read_card
from histoclick.models.nets.mobilenet import MobileNetV2, calibrate
from histoclick.patches import PatchSet, open_patch_set
from histoclick.train.builtin import build, export, read_trunk
from histoclick.train.course import CHECKPOINT, Budget, learn
from histoclick.train.crops import Batch, Pairs, Recipe, draw, read_folders
from histoclick.train.pool import Pool, make_pool
from histoclick.types import HistoclickError

Say = Callable[[str], object]


@dataclass(frozen=True)
class Job:
    """A variant and a seed."""

    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """Of its model and its runs."""
        return f"{self.variant.name}-seed{self.seed}"


@dataclass(frozen=True)
class Bench:
    """Where a comparison is done. ``root``: of the patch sets. ``trunk``: file with its folded
    weights. ``out``: for all that is made. ``say`` hears of every step of the work."""

    plan: Plan
    root: Path
    trunk: Path
    out: Path
    say: Say = lambda text: None

    @functools.cached_property
    def sets(self) -> list[Pairs]:
        """What is learned from."""
        return read_folders([self.root / folder for folder in self.plan.learn_from])

    def pool(self, recipe: Recipe) -> Pool:
        """The crops with the frozen trunk's features; made once for each size of crop."""
        net = MobileNetV2(norm=False).eval()
        fill(net, self.trunk)
        return make_pool(
            self.sets, net, self.out / f"pool-{recipe.crop}", self.plan.crops, 0, recipe,
            lambda done: done % 200 == 0 and self.say(f"{done} crops of {self.plan.crops}"),
        )  # fmt: skip


def jobs(plan: Plan) -> Iterator[Job]:
    """All of them: stage by stage, seed by seed, so that what is most wanted is there first."""
    for stage in sorted({variant.stage for variant in plan.variants}):
        for seed in plan.seeds:
            yield from (Job(v, seed) for v in plan.variants if v.stage == stage)


def run(bench: Bench, job: Job) -> Path:
    """Train and evaluate; returns the folder of the runs, one for each patch set."""
    model = bench.out / "models" / job.name
    facts = _facts(bench.plan, job)
    if (model / "card.toml").exists():
        if read_card(model).training != facts:
            raise HistoclickError(
                f"{model}: was made otherwise than the plan says now; delete it, or choose another "
                "--out"
            )
    elif job.variant.weights_of:
        _borrow(bench, job, model, facts)
    else:
        bench.say(f"{job.name}: training")
        work = bench.out / "work" / job.name
        train(bench, job, work)
        export(work / CHECKPOINT, model, _card(bench.plan, job, facts))
    runs = bench.out / "runs" / job.name
    for patches in patch_sets(bench.plan, bench.root):
        bench.say(f"{job.name}: clicking on {patches.name}")
        card = read_card(model)
        evaluate(
            registry.load(model),
            patches,
            runs / patches.name.replace("/", "-"),
            model=dataclasses.asdict(card),
            machine=describe(),
            protocol=Protocol(bench.plan.max_clicks),
            strips=0,
        )
    return runs


def train(bench: Bench, job: Job, work: Path) -> None:
    """The steps of the plan, from the frozen trunk's pool or with all that learns."""
    plan, variant, seed = bench.plan, job.variant, job.seed
    recipe = plan.recipe_of(variant)
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    net = build(variant.architecture, norm=not variant.frozen)
    drawn: Callable[[int], Batch]
    if variant.frozen:
        net.trunk.requires_grad_(False)
        pool = bench.pool(recipe)
        drawn = lambda step: pool.draw(seed, step, recipe)  # noqa: E731
    else:
        drawn = lambda step: draw(bench.sets, seed, step, recipe)  # noqa: E731

    def begin() -> None:
        if variant.frozen:
            fill(net.trunk, bench.trunk)
        elif not variant.random:
            images = torch.cat([draw(bench.sets, seed + 1, i, recipe).images for i in range(4)])
            calibrate(net.trunk, read_trunk(bench.trunk), images)

    budget = Budget(steps=plan.steps)
    learn(net, drawn, work, budget, seed=seed, rate=variant.rate or plan.rate, begin=begin)


@torch.no_grad()
def fill(trunk: MobileNetV2, file: Path) -> None:
    """Folded weights into a trunk without norms. Raises ``HistoclickError`` for others."""
    values = list(read_trunk(file).values())
    units = trunk.units()
    if len(values) != 2 * len(units):
        raise HistoclickError(f"{file}: holds {len(values)} arrays, a trunk has {2 * len(units)}")
    for unit, weight, bias in zip(units, values[0::2], values[1::2], strict=True):
        assert unit.conv.bias is not None
        unit.conv.weight.copy_(weight)
        unit.conv.bias.copy_(bias)


def patch_sets(plan: Plan, root: Path) -> list[PatchSet]:
    """What is measured on, each called by its place, its slides as the plan finds them."""
    found = []
    for data in plan.data:
        patches = replace(open_patch_set(root / data.folder), title=data.folder)
        if plan.slide and not patches.has_slides:
            named = tuple(
                replace(each, slide=match[0].upper() if match else each.id)
                for each in patches
                for match in [re.search(plan.slide, each.id)]
            )
            patches = replace(patches, patches=named, has_slides=True)
        found.append(patches)
    return found


def _borrow(bench: Bench, job: Job, model: Path, facts: dict[str, object]) -> None:
    source = bench.out / "models" / f"{job.variant.weights_of}-seed{job.seed}"
    if not (source / "card.toml").exists():
        raise HistoclickError(f"{source}: not trained yet; it comes first, mend the stages")
    model.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "weights.safetensors", model / "weights.safetensors")
    given = read_card(source)
    card = _card(bench.plan, job, facts)
    replace(card, sha256=given.sha256, parameters=given.parameters).write(model)


def _facts(plan: Plan, job: Job) -> dict[str, object]:
    """All that decides about the weights, as a card holds it."""
    variant, recipe = job.variant, plan.recipe_of(job.variant)
    kept = ("frozen", "random", "weights_of")
    return {
        "seed": job.seed,
        "steps": plan.steps,
        "crops": plan.crops if variant.frozen else 0,
        "rate": variant.rate or plan.rate,
        "data": list(plan.learn_from),
        **{key: getattr(variant, key) for key in kept},
        "recipe": dataclasses.asdict(recipe) | {"long_side": list(recipe.long_side)},
    }


def _card(plan: Plan, job: Job, facts: dict[str, object]) -> Card:
    return Card(
        id=job.name,
        family="gatedclick",
        architecture=job.variant.architecture,
        summary=f"{plan.title}: {job.variant.name}, seed {job.seed}.",
        licence="Apache-2.0",
        origin="histoclick; made by python -m histoclick.comparison",
        input_size=job.variant.input_size or plan.input_size,
        trained_on=plan.learn_from,
        training=facts,
    )
