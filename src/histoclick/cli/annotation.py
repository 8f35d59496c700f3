"""``histoclick annotate`` and ``histoclick serve``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from histoclick.cli.console import Device, say
from histoclick.types import HistoclickError

if TYPE_CHECKING:
    import socket

    from starlette.types import ASGIApp

    from histoclick.models.card import Card
    from histoclick.server.engine import Engine
    from histoclick.server.library import Entry

SHORTEST_TOKEN = 12  # characters
SHOWN_PROBLEMS = 5
Model = Annotated[str | None, typer.Option(help="Id or folder; default: built-in.")]
Host = Annotated[str, typer.Option(help="Where to listen; beyond this machine it takes a token.")]
Port = Annotated[
    int | None, typer.Option(min=1, max=65535, help="Default: the first free one from 8000 up.")
]
Token = Annotated[str | None, typer.Option(help="What everybody who uses the server has to know.")]
Threads = Annotated[
    int, typer.Option(min=0, help="Processor threads of the model; 0: as many as fit.")
]


def annotate(
    slides: Annotated[list[Path], typer.Argument(help="Slides, and folders with slides in them.")],
    model: Model = None,
    host: Host = "127.0.0.1",
    port: Port = None,
    store: Annotated[
        str | None,
        typer.Option(help="SQLite file, or URL of a database; default: in your data folder."),
    ] = None,
    token: Token = None,
    mpp: Annotated[
        float | None, typer.Option(help="Microns per pixel of the slides, if they do not say it.")
    ] = None,
    user: Annotated[str, typer.Option(help="Who clicks, for the log.")] = "",
    threads: Threads = 0,
    device: Device = "cpu",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the page.")] = False,
) -> None:
    """Click on slides in the browser, get outlines, take them to QuPath. Nothing is lost."""
    from contextlib import closing

    from histoclick.server.app import create_app
    from histoclick.server.decoding import decoder_of
    from histoclick.server.library import Library
    from histoclick.server.serving import address, listen, names
    from histoclick.server.sessions import Sessions
    from histoclick.store import Store

    token = admission(host, token)
    with (
        closing(Library(slides, mpp=mpp)) as library,
        Store.open(store or default_store()) as kept,
        listen(host, port) as listener,
        closing(load_engine(model, device, threads)) as engine,
    ):
        tell(library.entries())
        sessions = Sessions(library, kept, engine)
        decoder = decoder_of(engine.card, find(model)[1])
        app = create_app(
            engine, library, sessions, user=user, hosts=names(host), token=token, decoder=decoder
        )
        run(app, listener, host, address(host, listener), token, browser=not no_browser)
    say("Ended.")


def serve(
    model: Model = None,
    host: Host = "127.0.0.1",
    port: Port = None,
    token: Token = None,
    threads: Threads = 0,
    device: Device = "cpu",
) -> None:
    """The model alone, for QuPath's SAM extension and MONAI Label's plugins; no slides needed."""
    from contextlib import closing

    from histoclick.server.app import create_app
    from histoclick.server.library import Library
    from histoclick.server.serving import address, listen, names

    token = admission(host, token)
    with (
        listen(host, port) as listener,
        closing(load_engine(model, device, threads)) as engine,
    ):
        app = create_app(engine, Library([]), hosts=names(host), token=token)
        run(app, listener, host, address(host, listener), token, browser=False)
    say("Ended.")


def tell(entries: list[Entry]) -> None:
    """How many slides there are, and which cannot be opened and why."""
    problems = [entry.problem for entry in entries if entry.problem is not None]
    count = len(entries) - len(problems)
    say(f"{count} slide{'' if count == 1 else 's'}")
    for problem in problems[:SHOWN_PROBLEMS]:
        say(f"  {problem}")
    if len(problems) > SHOWN_PROBLEMS:
        say(f"  and {len(problems) - SHOWN_PROBLEMS} more files that cannot be opened")


def admission(host: str, token: str | None) -> str | None:
    """The token, made if it is needed and none was given."""
    import secrets

    from histoclick.server.serving import is_local

    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii()):
        raise HistoclickError(
            f"--token: give at least {SHORTEST_TOKEN} plain characters, or leave it out where one "
            "is needed: it is made and printed"
        )
    if token is not None and not all(each.isalnum() or each in "-._~" for each in token):
        raise HistoclickError(
            "--token: use letters, digits and - . _ ~ only; it goes into addresses"
        )
    return secrets.token_urlsafe(18) if token is None and not is_local(host) else token


def default_store() -> str:
    """A file in the user's data folder, which is made."""
    import os

    import platformdirs

    home = os.environ.get("HISTOCLICK_HOME") or platformdirs.user_data_dir("histoclick")
    Path(home).mkdir(parents=True, exist_ok=True)
    return str(Path(home) / "annotations.sqlite")


def find(model: str | None) -> tuple[Card, Path]:
    """Card and folder of the model that is asked for."""
    from histoclick.models import registry

    return registry.find(registry.default_id() if model is None else model)


def load_engine(model: str | None, device: str, threads: int) -> Engine:
    """The model behind its queue, with embeddings kept in the user's cache folder."""
    from histoclick import machine
    from histoclick.cli.running import load_segmenter
    from histoclick.server.engine import Engine
    from histoclick.server.shelf import shelf_of

    say("Loading the model ...")
    device = machine.resolve(device)
    card, folder = find(model)
    segmenter = load_segmenter(folder, device, threads)
    if card.untrained:
        say(f"{card.id} has untrained weights: its masks mean nothing.")
    return Engine(segmenter, card, shelf=shelf_of(card, device))


def run(
    app: ASGIApp, listener: socket.socket, host: str, url: str, token: str | None, *, browser: bool
) -> None:
    """Say where it is, open it, and answer until Ctrl-C."""
    import threading
    import webbrowser

    from histoclick.server.serving import is_local, serve

    page = url if token is None else f"{url}?token={token}"
    say(f"histoclick is at {page}")
    say(f"QuPath's SAM extension: {url}{'' if token is None else f't/{token}/'}sam/")
    if not is_local(host):
        say(
            f"Everybody who reaches this machine at {host} and knows the token can see the slides "
            "and change annotations; the connection is not encrypted."
        )
    say("Ctrl-C ends it; everything is saved at every click.")
    if browser:
        threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()
    serve(app, listener)
