"""A store in one file: SQLite with a write-ahead log, every commit forced to disk.

The file names its owner and the version of its tables in its header (application id and user
version), in the same commit that makes the tables. So a file is looked at before SQLite opens it,
and one of somebody else is never touched.
"""

from __future__ import annotations

import sqlite3
import struct
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from histoclick.store.tables import METADATA, VERSION, Unavailable
from histoclick.types import HistoclickError

APPLICATION_ID = 0x48634C6B  # "HcLk"
BUSY_SECONDS = 20.0  # to wait for another program that is writing
_MAGIC = b"SQLite format 3\0"
# Locks and shared memory of SQLite's log do not hold between two machines.
_MOUNTS = Path("/proc/self/mounts")  # of Linux
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "afs"}

_WHY = {
    "SQLITE_FULL": "the disk is full; free some space and repeat",
    "SQLITE_READONLY": "it is write-protected; check your rights to the file and its folder",
    "SQLITE_PERM": "access is denied; check your rights to the file and its folder",
    "SQLITE_AUTH": "access is denied; check your rights to the file and its folder",
    "SQLITE_CANTOPEN": "it cannot be opened; check that the folder is there and your rights to it",
    "SQLITE_BUSY": "another program keeps it locked; close that one, or repeat later",
    "SQLITE_LOCKED": "another program keeps it locked; close that one, or repeat later",
    "SQLITE_PROTOCOL": "it cannot be locked; a store must lie on a local disk",
    "SQLITE_NOLFS": "the disk cannot hold files of this size; choose another place",
    "SQLITE_IOERR": "the disk does not take or give the data; check that it is there and not full",
    "SQLITE_CORRUPT": "it is damaged; copy it away and bring back a backup",
    "SQLITE_NOTADB": "it is no SQLite database; choose another file",
    "SQLITE_TOOBIG": "more data than one event can hold",
}


def engine(path: Path, must_exist: bool) -> sa.Engine:
    """Open a file, or make one with empty tables. Raises ``HistoclickError``."""
    _look(path, must_exist)

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        for pragma in ("synchronous = FULL", "foreign_keys = ON", "fullfsync = ON"):
            connection.execute(f"PRAGMA {pragma}")  # fullfsync: macOS' fsync alone is none
        return connection

    made = sa.create_engine("sqlite://", creator=connect, poolclass=sa.QueuePool)
    sa.event.listen(made, "begin", _begin)
    try:
        _set_up(made, path)
        _stay(made, path)
    except BaseException:
        made.dispose()
        raise
    return made


def why(error: BaseException) -> str:
    """What went wrong and how to mend it, as the end of a sentence."""
    name = getattr(error, "sqlite_errorname", "") or ""
    known = next((text for key, text in _WHY.items() if name.startswith(key)), "")
    return known or f"SQLite says: {error}"


def _begin(connection: sa.Connection) -> None:
    """Who writes locks before it reads, or two would wait for each other; who reads, never."""
    if connection.get_execution_options().get("writing"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _stay(engine: sa.Engine, path: Path) -> None:
    """Refuse to write when the file is no longer where it was: its new events would be in one that
    nobody finds again."""
    place = _place(path)

    def check(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("writing") and _place(path) != place:
            raise Unavailable(
                str(path),
                "the store of annotations was moved or deleted while it was in use; put it back, "
                "or start histoclick again",
            )

    sa.event.listen(engine, "begin", check, insert=True)


def _place(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _look(path: Path, must_exist: bool) -> None:
    """Raise ``HistoclickError`` for a file that is not ours, before it is opened."""
    if (kind := _file_system(path)) in _NETWORK:
        raise HistoclickError(
            f"{path}: lies on a network drive ({kind}), where SQLite loses data; choose a local "
            "disk, or a PostgreSQL server (postgresql://...)"
        )
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        head = b""
        if must_exist or not path.absolute().parent.is_dir():
            what = "there is no such store" if must_exist else "there is no such folder"
            raise HistoclickError(f"{path}: {what}; check the path") from None
    except OSError as error:
        raise HistoclickError(
            f"{path}: cannot be opened as a store ({error.strerror}); choose another file, or "
            "check your rights"
        ) from None
    if not head and not must_exist:
        return
    if len(head) < 100 or not head.startswith(_MAGIC):
        raise HistoclickError(f"{path}: is no store of histoclick; choose another file")
    version, owner = struct.unpack(">I", head[60:64])[0], struct.unpack(">I", head[68:72])[0]
    if owner != APPLICATION_ID:
        raise HistoclickError(f"{path}: is the database of another program; choose another file")
    if version > VERSION:
        raise HistoclickError(
            f"{path}: was made by a newer histoclick (version {version} of a store, this one knows "
            f"{VERSION}); update histoclick"
        )


def _set_up(engine: sa.Engine, path: Path) -> None:
    """Make the tables if there are none; switch to the write-ahead log.

    In this order: the mark of the owner is then in the file itself before anything is in the log.
    """
    with engine.execution_options(writing=True).begin() as connection:
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if version == 0:  # else another process was faster
            METADATA.create_all(connection, checkfirst=False)
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
    mode = _use_log(engine)
    if mode != "wal":
        raise HistoclickError(
            f"{path}: this disk allows no write-ahead log (SQLite offers '{mode}'); choose a local "
            "disk"
        )


def _use_log(engine: sa.Engine) -> Any:
    """Switch to the write-ahead log; SQLite does not wait for others here by itself."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            with engine.connect() as connection:
                return connection.exec_driver_sql("PRAGMA journal_mode = WAL").scalar_one()
        except sa.exc.OperationalError as error:
            busy = getattr(error.orig, "sqlite_errorname", "").startswith("SQLITE_BUSY")
            if not busy or time.monotonic() > until:
                raise
            time.sleep(0.02)


def _file_system(path: Path) -> str:
    """The kind of file system a path is on, "" where that is not known."""
    place = str(path.resolve())
    if place.startswith("\\\\"):  # Windows: \\server\share
        return "cifs"
    if not _MOUNTS.exists():
        return ""
    found = ("", "")
    for line in _MOUNTS.read_text(errors="replace").splitlines():
        _, point, kind = line.split(" ")[:3]
        point = point.replace("\\040", " ").rstrip("/")
        if (place == point or place.startswith(point + "/")) and len(point) >= len(found[0]):
            found = (point, kind)
    return found[1]
