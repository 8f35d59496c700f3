"""What happened, one row each, never changed: the annotations are a fold over these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from histoclick.session.actions import Action, from_plain, to_plain


@dataclass(frozen=True)
class Event:
    """An action that was done.

    ``seq``: 1, 2, ... on its slide, without gaps. ``id``: made by who asked for it, so that asking
    twice does nothing twice. ``client``: the browser tab or program, ``user``: the person, "" if
    unknown. ``time``: s since 1970. ``result``: the layer that the model made (see ``layers``).
    ``facts``: for the log: model, seconds, window.
    """

    seq: int
    id: str
    client: str
    user: str
    time: float
    action: Action
    result: bytes | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def to_row(event: Event) -> dict[str, Any]:
    """An event as plain values, for the store."""
    return {
        "seq": event.seq,
        "id": event.id,
        "client": event.client,
        "user": event.user,
        "time": event.time,
        "action": to_plain(event.action),
        "facts": dict(event.facts),
        "result": event.result,
    }


def from_row(row: Mapping[str, Any]) -> Event:
    """The event of such values. Raises ``HistoclickError`` for values of no event."""
    action = from_plain(row["action"])
    return Event(
        row["seq"], row["id"], row["client"], row["user"], row["time"], action, row["result"],
        row["facts"],
    )  # fmt: skip
