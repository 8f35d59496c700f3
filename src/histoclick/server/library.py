"""The slides that are served: found in the given files and folders, opened when needed.

Nothing outside them is readable: slides have ids, requests never name a path, and links that lead
out are refused.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from histoclick.server.folders import Found, found_in, plain
from histoclick.slides import Slide, open_slide
from histoclick.types import HistoclickError

FRESH_SECONDS = 1.0  # for which what was found is not looked for again
SHARE = 10  # that long again as a look took, so that folders on a slow disk are left in peace


class NoSlide(KeyError):
    """No slide that is served has this id."""


@dataclass(frozen=True)
class Entry:
    """One slide that is served, or a file that should be one.

    ``id``: stable, from the content; of a file that does not open, from its path. ``folder``: where
    it lies below the folder that was given, "" for directly inside; both names are ``plain``.
    ``key``: fingerprint of the content. ``width``, ``height``: level 0, px; ``mpp``: um per px of
    level 0. ``problem``: why it cannot be opened, one sentence; ``key`` and sizes are empty then.
    """

    id: str
    path: Path
    name: str
    folder: str = ""
    key: str = ""
    width: int = 0
    height: int = 0
    mpp: float | None = None
    problem: str | None = None


@dataclass
class _Handle:
    slide: Slide
    users: int = 0


class Library:
    """Thread-safe. ``look`` takes its lock and then ``_lock``; nothing else takes two.

    ``mpp``: um per px of level 0 of all slides, whatever the files say. ``open_at_most``: slides
    that stay open while nobody uses them; those in use stay open always.
    """

    def __init__(
        self, paths: Sequence[Path], *, mpp: float | None = None, open_at_most: int = 12
    ) -> None:
        for path in paths:
            if not path.exists():
                raise HistoclickError(f"{path}: no such file or folder; check the path")
        self._roots = [path.resolve() for path in dict.fromkeys(paths)]
        self._mpp = mpp
        self._open_at_most = open_at_most
        self._looking = threading.Lock()  # one look at a time
        self._lock = threading.Lock()  # of everything below; never held while a file is read
        self._next_look = 0.0  # monotonic s
        self._known: dict[Found, Entry] = {}
        self._entries: dict[str, Entry] = {}
        self._handles: OrderedDict[str, _Handle] = OrderedDict()  # least recently used first

    def entries(self) -> list[Entry]:
        """All slides, in the order in which they were given, files of a folder by name."""
        self.look()
        with self._lock:
            return list(self._entries.values())

    def entry(self, id_: str) -> Entry:
        """Raises ``NoSlide`` for an id that nothing has, also not after another look."""
        with self._lock:
            known = self._entries.get(id_)
        if known is None:
            self.look()
            with self._lock:
                known = self._entries.get(id_)
        if known is None:
            raise NoSlide(id_)
        return known

    @contextmanager
    def open(self, id_: str) -> Iterator[Slide]:
        """An open slide, which stays open until the end of the block.

        Raises ``NoSlide`` for an unknown id, ``HistoclickError`` if it cannot be opened.
        """
        entry = self.entry(id_)
        handle = self._take(id_)
        if handle is None:
            slide = self._open(entry)
            with self._lock:  # somebody may have been faster
                handle = self._handles.setdefault(id_, _Handle(slide))
                handle.users += 1
            if handle.slide is not slide:
                slide.close()
        try:
            yield handle.slide
        finally:
            with self._lock:
                handle.users -= 1
            self._close_some(self._open_at_most)

    def find(self, name: str) -> Entry | None:
        """The slide whose file has this name, with its suffix or without."""
        for entry in self.entries():
            if name in (entry.name, entry.path.name, entry.path.stem) and entry.problem is None:
                return entry
        return None

    def told(self, sentence: str) -> str:
        """A sentence without the part of paths that lies above what is served, ``plain``."""
        for root in self._roots:
            sentence = sentence.replace(f"{root.parent}{os.sep}", "")
        return plain(sentence)

    def close(self) -> None:
        """Close all slides; those in use when their users are done."""
        self._open_at_most = 0
        self._close_some(0)

    def look(self) -> None:
        """Look for slides, unless somebody just did."""
        with self._looking:
            begin = time.monotonic()
            if begin < self._next_look:
                return
            files = list(found_in(self._roots))
            seconds = time.monotonic() - begin
            known: dict[Found, Entry] = {}
            entries: dict[str, Entry] = {}
            for found in files:
                entry = self._known.get(found) or self._examine(found)
                known[found] = entry
                same = entries.get(entry.id)
                if same is not None:
                    problem = f"{entry.name}: the same slide as {same.name}, where it is shown"
                    entry = replace(entry, id=_hash(str(entry.path)), key="", problem=problem)
                entries[entry.id] = entry
            with self._lock:
                changed = [
                    id_
                    for id_ in self._handles
                    if id_ not in entries or entries[id_].path != self._entries[id_].path
                ]
                closing = [handle for id_ in changed if (handle := self._handles[id_]).users == 0]
                for id_ in changed:
                    if self._handles[id_].users == 0:
                        del self._handles[id_]
                self._known, self._entries = known, entries
            for handle in closing:
                handle.slide.close()
            self._next_look = time.monotonic() + max(FRESH_SECONDS, SHARE * seconds)

    def _take(self, id_: str) -> _Handle | None:
        with self._lock:
            handle = self._handles.get(id_)
            if handle is not None:
                handle.users += 1
                self._handles.move_to_end(id_)
            return handle

    def _open(self, entry: Entry) -> Slide:
        if entry.problem is not None:
            raise HistoclickError(entry.problem)
        if not self._inside(entry.path):  # may have become a link since it was found
            raise HistoclickError(f"{entry.name}: leads out of the folders that are served")
        try:
            return open_slide(entry.path, mpp=self._mpp)
        except HistoclickError as error:
            raise HistoclickError(self.told(str(error))) from None

    def _close_some(self, remaining: int) -> None:
        """Close the slides that were not used for longest, as long as there are too many."""
        closing = []
        with self._lock:
            for id_, handle in list(self._handles.items()):
                if len(self._handles) <= remaining:
                    break
                if handle.users == 0:
                    closing.append(handle)
                    del self._handles[id_]
        for handle in closing:
            handle.slide.close()

    def _examine(self, found: Found) -> Entry:
        """Open a new file once, to see what it is. Nothing that is wrong with one ends the rest."""
        entry = Entry(
            _hash(str(found.path)), found.path, plain(found.path.name), plain(found.folder)
        )
        try:
            str(found.path).encode()
        except UnicodeEncodeError:
            problem = f"{entry.name}: its name, or that of a folder, is no UTF-8; rename it"
            return replace(entry, problem=problem)
        if not self._inside(found.path):
            problem = f"{entry.name}: a link out of the folders that are served; name its target"
            return replace(entry, problem=problem)
        try:
            with open_slide(found.path, mpp=self._mpp) as slide:
                key = slide.fingerprint
                return replace(
                    entry, id=_hash(key), key=key, width=slide.width, height=slide.height,
                    mpp=slide.mpp,
                )  # fmt: skip
        except HistoclickError as error:
            return replace(entry, problem=self.told(str(error)))
        except OSError as error:  # rights, or a disk that went away
            return replace(entry, problem=f"{entry.name}: {error.strerror or error}; check it")
        except Exception as error:  # noqa: BLE001  # of a library that met the unexpected
            return replace(entry, problem=self.told(f"{entry.name}: cannot be read ({error})"))

    def _inside(self, path: Path) -> bool:
        target = path.resolve()
        return any(target == root or target.is_relative_to(root) for root in self._roots)


def _hash(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
