"""The command line: thin, lazy, and the only place that wires the layers together."""

from __future__ import annotations

import sys

import typer
from typer.exceptions import TyperException

from histoclick.cli.annotation import annotate, serve
from histoclick.cli.console import INCOMPLETE, INTERRUPTED
from histoclick.cli.conversion import convert
from histoclick.cli.doctor import doctor
from histoclick.cli.evaluation import demo, evaluate, report, reproduce
from histoclick.cli.fetching import fetch, phantom
from histoclick.cli.models import models_app
from histoclick.cli.preparation import prepare
from histoclick.cli.replaying import replay
from histoclick.cli.running import run_evaluation
from histoclick.cli.training import train
from histoclick.types import HistoclickError

__all__ = ["INCOMPLETE", "app", "main", "run_evaluation"]

app = typer.Typer(
    name="histoclick",
    help="Interactive segmentation for histopathology: click, train, evaluate. All of it offline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    demo, annotate, serve, replay, fetch, phantom, convert, prepare, train, evaluate, report,
    reproduce, doctor,
):  # fmt: skip
    app.command()(command)
app.add_typer(models_app, name="models")


def main() -> None:
    """Entry point: bad input ends with one sentence and 2, Ctrl-C with 130."""
    try:
        code = app(standalone_mode=False)
    except HistoclickError as error:
        typer.echo(f"histoclick: {error}", err=True)
        code = 2
    except TyperException as error:  # wrong use: unknown command, missing option, ...
        typer.echo(f"histoclick: {error.format_message()}", err=True)
        code = error.exit_code
    except OSError as error:  # full disk, missing rights, a file where a folder should be
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        typer.echo(f"histoclick: {what}; check the path, your rights and the free space", err=True)
        code = 2
    except RuntimeError as error:  # torch has no other name for it on all devices
        if "out of memory" not in str(error):
            raise
        typer.echo("histoclick: out of memory; use a smaller --batch or fewer --workers", err=True)
        code = 2
    if code == INTERRUPTED:
        typer.echo(
            "\nhistoclick: interrupted; long commands continue when they are repeated.",
            err=True,
        )
    sys.exit(code)
