"""``histoclick models``: what this machine knows, and how it learns more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from histoclick.cli.console import Json, say, say_json
from histoclick.types import HistoclickError

models_app = typer.Typer(help="List, show, import and export models.", no_args_is_help=True)


@models_app.command("list")
def list_models(json: Json = False) -> None:
    """The models this machine knows, built-in and imported."""
    from histoclick.models.registry import cards

    known = [
        {"id": id_, "family": "", "summary": f"damaged: {card}"}
        if isinstance(card, HistoclickError)
        else {"id": id_, "family": card.family, "summary": card.summary}
        for id_, card in cards().items()
    ]
    if json:
        say_json(known)
        return
    width = max(len(entry["id"]) for entry in known)
    for entry in known:
        say(f"{entry['id']:<{width}}  {entry['family']:<10}  {entry['summary']}")


@models_app.command("show")
def show_model(
    model: Annotated[str, typer.Argument(help="Id or folder.")], json: Json = False
) -> None:
    """A model's card: origin, licence, training data, measured NoC."""
    import dataclasses

    from histoclick.models.card import CURVE
    from histoclick.models.registry import find

    card, folder = find(model)
    if json:
        say_json(dataclasses.asdict(card) | {"folder": str(folder)})
        return
    say((folder / "card.toml").read_text(encoding="utf-8").rstrip())
    say(f"\n# folder: {folder}")
    if (folder / CURVE).is_file():
        say(f"# how it learned: {folder / CURVE}")


@models_app.command("import")
def import_model(
    file: Annotated[
        Path, typer.Argument(help="Official weight file, or folder of the Hugging Face Hub.")
    ],
    family: Annotated[str, typer.Option(help="Family of the file, such as sam.")],
    id_: Annotated[str, typer.Option("--id", help="Name the model shall have here.")],
) -> None:
    """Check an official weight file strictly and make a model of it."""
    from histoclick.models.registry import import_model

    say(f"Reading {file} ...")
    folder = import_model(file, family, id_)
    say(f"Imported into {folder}. Use it with: --model {id_}")


@models_app.command("random")
def random_model(
    architecture: Annotated[str, typer.Argument(help="Such as hrnet18s.")],
    out: Annotated[Path, typer.Option(help="Model folder to make.")],
    family: Annotated[str, typer.Option(help="Such as ritm.")],
) -> None:
    """Make a model with random weights: to time a network without its weights."""
    from histoclick.models.registry import with_random_weights

    folder = with_random_weights(family, architecture, out)
    say(f"Made {folder}, marked as untrained. Use it with: --model {folder}")


@models_app.command("export")
def export_model(
    model: Annotated[str, typer.Argument(help="Id or folder.")],
    out: Annotated[Path, typer.Argument(help="Model folder to make.")],
    format_: Annotated[str, typer.Option("--format", help="Of the graphs: onnx.")] = "onnx",
) -> None:
    """Write a model as graphs that run without PyTorch: a light folder for any machine."""
    from histoclick.models.registry import export_model

    if format_ != "onnx":
        raise HistoclickError(f"--format {format_}: models are exported as onnx")
    say(f"Exporting {model}; a minute or two ...")
    folder = export_model(model, out)
    say(f"Exported into {folder}. Use it with: --model {folder.resolve()}")
