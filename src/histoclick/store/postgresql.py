"""A store on a PostgreSQL server, for teams."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from histoclick.store.tables import METADATA, VERSION
from histoclick.types import HistoclickError

MARK = sa.Table("histoclick_store", sa.MetaData(), sa.Column("version", sa.Integer, nullable=False))
_CREATING = 0x48634C6B  # advisory lock: one process makes the tables
_SETTINGS = (
    # A server may be told to confirm before anything is on its disk: not to us.
    "SELECT set_config('synchronous_commit', 'on', false)"
    " WHERE current_setting('synchronous_commit') = 'off'",
    "SELECT set_config('lock_timeout', '20s', false)",
)


def engine(url: sa.URL, where: str, must_exist: bool) -> sa.Engine:
    """Connect, and make the tables in an empty database. Raises ``HistoclickError``."""
    try:
        made = sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,  # a server that was started again is no reason to fail
            isolation_level="READ COMMITTED",
            connect_args={"connect_timeout": url.query.get("connect_timeout", "10")},
        )
    except ImportError:
        raise HistoclickError(
            f"{where}: needs psycopg; install it with: pip install 'histoclick[postgresql]'"
        ) from None
    sa.event.listen(made, "connect", _settle)
    try:
        with made.begin() as connection:
            _set_up(connection, where, must_exist)
    except BaseException:
        made.dispose()
        raise
    return made


def why(error: BaseException) -> str:
    """What went wrong and how to mend it, as the end of a sentence."""
    state = str(getattr(error, "sqlstate", None) or "")
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if state in ("53100", "53200", "53300"):
        return f"the server has no room ({text}); tell who runs it"
    if state in ("25006", "42501"):
        return f"it must not be written ({text}); ask who runs the server for the rights"
    if state == "55P03":
        return "another program keeps it locked; close that one, or repeat later"
    if state.startswith(("08", "57")) or not state:
        return f"there is no connection ({text}); check the address and that the server runs"
    return f"PostgreSQL says: {text}"


def _settle(dbapi_connection: Any, _: Any) -> None:
    """What every connection needs."""
    with dbapi_connection.cursor() as cursor:
        for setting in _SETTINGS:
            cursor.execute(setting)
    dbapi_connection.commit()


def _set_up(connection: sa.Connection, where: str, must_exist: bool) -> None:
    """Make the tables, or check that those that are there are ours."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATING)))
    tables = set(sa.inspect(connection).get_table_names())
    if MARK.name in tables:
        version = connection.execute(sa.select(MARK.c.version)).scalar_one()
        if version > VERSION:
            raise HistoclickError(
                f"{where}: was made by a newer histoclick (version {version} of a store, this one "
                f"knows {VERSION}); update histoclick"
            )
        return
    if tables:
        raise HistoclickError(
            f"{where}: is the database of another program (it has a table {min(tables)}); make an "
            "empty one for histoclick"
        )
    if must_exist:
        raise HistoclickError(f"{where}: there is no store in it; check the address")
    METADATA.create_all(connection, checkfirst=False)
    MARK.create(connection)
    connection.execute(MARK.insert().values(version=VERSION))
