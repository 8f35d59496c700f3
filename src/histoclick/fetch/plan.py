"""What is on disk already, what is missing, and the record of what has been verified."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from histoclick.datasets.bucket import RemoteFile
from histoclick.types import HistoclickError

RECORD = ".histoclick-fetch.json"
BLOCK = 1 << 20  # bytes hashed at once
Heard = Callable[[int], None]  # bytes done so far


class State(StrEnum):
    """Of a file on disk, as far as a look without reading it tells."""

    THERE = "there"  # right size, and verified before or without a checksum
    UNCHECKED = "unchecked"  # right size, never verified
    WRONG = "wrong"  # another size
    PARTIAL = "partial"
    MISSING = "missing"


@dataclass(frozen=True)
class Item:
    """``missing``: bytes to fetch, 0 where the size is not known."""

    file: RemoteFile
    target: Path
    state: State
    missing: int


@dataclass(frozen=True)
class Plan:
    """What ``fetch`` would do."""

    items: tuple[Item, ...]

    @property
    def size(self) -> int:
        """Bytes of all files; those of unknown size count 0."""
        return sum(item.file.size or 0 for item in self.items)

    @property
    def missing(self) -> int:
        """Bytes still to fetch."""
        return sum(item.missing for item in self.items)

    @property
    def sizes_known(self) -> bool:
        """Whether ``size`` and ``missing`` are everything."""
        return all(item.file.size is not None for item in self.items)


class Record:
    """Which files of a folder have been verified: size, time of change and checksum of each.

    So that 700 GB are not hashed again each time. A file that was changed since is not in it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORD
        self._entries: dict[str, Any] = {}
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
            self._entries = entries if isinstance(entries, dict) else {}
        except (OSError, ValueError, RecursionError):
            pass  # none yet, or damaged: files are verified again

    def knows(self, file: RemoteFile, target: Path) -> bool:
        """Whether this very content was verified against this very checksum."""
        entry = self._entries.get(file.path)
        return bool(entry and file.checksum) and entry == _entry(file, target)

    def add(self, file: RemoteFile, target: Path) -> None:
        """Remember ``target`` as verified."""
        if not file.checksum or self.knows(file, target):
            return
        self._entries[file.path] = _entry(file, target)
        partial = self._path.with_name(f"{RECORD}.{os.getpid()}.partial")
        with contextlib.suppress(OSError):  # a full disk: the file is verified again next time
            partial.write_text(json.dumps(self._entries, indent=1), encoding="utf-8")
            partial.replace(self._path)


def _entry(file: RemoteFile, target: Path) -> dict[str, Any]:
    stat = target.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "checksum": file.checksum}


def make_plan(files: Iterable[RemoteFile], folder: Path) -> Plan:
    """Look at what is there. Reads no file but the record, and touches nothing.

    Raises ``HistoclickError`` for names that some systems cannot tell apart.
    """
    record = Record(folder)
    names: dict[str, str] = {}
    items = []
    for file in files:
        twin = names.setdefault(file.path.lower(), file.path)
        if twin is not file.path:
            raise HistoclickError(
                f"{file.path} and {twin}: the server lists names that are one file on some "
                "systems; take another mirror"
            )
        items.append(_look(file, folder / file.path, record))
    return Plan(tuple(items))


def _look(file: RemoteFile, target: Path, record: Record) -> Item:
    size = file.size or 0
    if target.is_file():
        found = target.stat().st_size
        if file.size is not None and found != file.size:
            return Item(file, target, State.WRONG, size)
        known = not file.checksum or record.knows(file, target)
        return Item(file, target, State.THERE if known else State.UNCHECKED, 0)
    partial = partial_of(target)
    if partial.is_file():
        return Item(file, target, State.PARTIAL, max(0, size - partial.stat().st_size))
    return Item(file, target, State.MISSING, size)


def partial_of(target: Path) -> Path:
    """Where a file grows before it is complete and verified."""
    return target.with_name(f"{target.name}.partial")


def digest_of(path: Path, algorithm: str, heard: Heard) -> str:
    """The hexadecimal checksum of a file; ``heard`` may raise to end it."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    done = 0
    with path.open("rb") as content:
        while block := content.read(BLOCK):
            digest.update(block)
            done += len(block)
            heard(done)
    return digest.hexdigest()


def free_bytes(folder: Path) -> int:
    """Room on the disk where ``folder`` is, or will be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def in_words(size: int) -> str:
    """Bytes for people, in powers of 1000 as disks are sold: '1.9 GB'."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
