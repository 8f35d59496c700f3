"""``histoclick replay``: what real users clicked, as click records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from histoclick.cli.console import say


def replay(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="Store of 'annotate' or 'serve': file or URL.")
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Run folder to make.")],
    slide: Annotated[str | None, typer.Option(help="Only this slide, by name.")] = None,
    user: Annotated[
        str | None, typer.Option(help="Only objects that this user alone worked on.")
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            help="Folder with an annotation file for each slide, named as the slide. Without it, "
            "objects as they became in the end."
        ),
    ] = None,
) -> None:
    """Click records of real users: their NoC, and seconds per object."""
    from histoclick.replay import replay
    from histoclick.store import Store

    with Store.open(store, must_exist=True) as opened:
        replayed = replay(opened, out, slide=slide, user=user, truth=truth)
    say(replayed.users)
    for note in replayed.notes:
        say(f"Note: {note}")
    if len(replayed.runs) > 1:
        say(f"{len(replayed.runs)} models answered: a run of each is in {out}")
    say(f"Records and users.csv are in {out}. Next: histoclick report {out} --out page")
