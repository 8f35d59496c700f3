"""What a store holds: slides, and the events on each of them. Nothing is changed or deleted."""

from __future__ import annotations

import sqlalchemy as sa

from histoclick.types import HistoclickError

VERSION = 1  # of the tables; a store of a higher one was made by a newer histoclick

METADATA = sa.MetaData()

SLIDES = sa.Table(
    "slides",
    METADATA,
    sa.Column("key", sa.Text, primary_key=True),  # fingerprint of the slide's content
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("width", sa.BigInteger, nullable=False),  # of level 0, px
    sa.Column("height", sa.BigInteger, nullable=False),
    sa.Column("mpp", sa.Double),  # um per px of level 0, if known
)

EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("slide", sa.ForeignKey("slides.key"), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),  # 1, 2, ... no gaps
    sa.Column("id", sa.Text, nullable=False),  # made by the client
    sa.Column("client", sa.Text, nullable=False),
    sa.Column("user", sa.Text, nullable=False),
    sa.Column("time", sa.Double, nullable=False),  # s since the epoch
    sa.Column("action", sa.JSON, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("result", sa.LargeBinary),
    sa.UniqueConstraint("slide", "id"),
    sa.CheckConstraint("seq >= 1"),
)


class Unavailable(HistoclickError):
    """The store takes or gives nothing now; asking again later may help. ``sentence``: without
    where it is, which is nobody's business who asks over HTTP."""

    def __init__(self, where: str, sentence: str) -> None:
        super().__init__(f"{where}: {sentence}")
        self.sentence = sentence
