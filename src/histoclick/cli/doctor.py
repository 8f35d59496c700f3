"""``histoclick doctor``: what is installed, what a file holds, and what is wrong with it."""

from __future__ import annotations

import typer

from histoclick.cli.console import Json, say, say_json
from histoclick.types import HistoclickError


def doctor(json: Json = False) -> None:
    """What is installed, and whether it works."""
    from histoclick import machine
    from histoclick.models import registry

    known = registry.cards()
    facts = machine.describe() | {
        "devices": machine.devices(),
        "models": [id_ for id_, card in known.items() if not isinstance(card, HistoclickError)],
        "damaged": [str(card) for card in known.values() if isinstance(card, HistoclickError)],
        "model_folder": str(registry.home()),
        "self_test": self_test(),
    }
    if json:
        say_json(facts)
    else:
        for key, value in facts.items():
            if isinstance(value, dict):
                value = ", ".join(f"{name} {version}" for name, version in value.items())
            say(f"{key + ':':<14} {', '.join(value) if isinstance(value, list) else value}")
    if facts["damaged"]:
        raise typer.Exit(1)


def self_test() -> str:
    """Two clicks of the built-in model on a real picture."""
    from histoclick.datasets.demo import demo_samples
    from histoclick.models.registry import load
    from histoclick.trajectory import trajectory

    sample = demo_samples(phantoms=0)[0]
    *_, step = trajectory(load(), sample, max_clicks=2)
    return f"two clicks on a real gland gave IoU {step.iou:.2f} in {step.seconds:.2f} s per click"
