"""What all commands share: how they speak, and options that several of them have."""

from __future__ import annotations

from typing import Annotated, Any

import typer

INTERRUPTED = 130  # what Typer makes of Ctrl-C
INCOMPLETE = 3  # the run went to its end, and parts of it are missing

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto for the best there is.")]


def say(text: str) -> None:
    """One line to standard output."""
    typer.echo(text)


def say_json(value: Any) -> None:
    """A value as JSON to standard output."""
    import json

    typer.echo(json.dumps(value, indent=2))
