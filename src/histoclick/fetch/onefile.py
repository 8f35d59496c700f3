"""One file: fetched to ``<name>.partial``, continued where it was cut, verified, then renamed."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import httpx2 as httpx

from histoclick.datasets.bucket import RemoteFile
from histoclick.fetch.plan import digest_of, free_bytes, in_words, partial_of
from histoclick.fetch.web import Hiccup, Refused, Tries, Web

Heard = Callable[[int, int], None]  # bytes done, bytes in total
Free = Callable[[Path], int]
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


class Partial:
    """The growing file, and beside it which version of the server's file its bytes are of."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = partial_of(target)
        self._note = self.path.with_name(f"{self.path.name}.version")

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def version(self) -> str:
        """What ``If-Range`` takes: a strong ETag or a date; "" when the server told none."""
        try:
            note = self._note.read_text(encoding="ascii")
        except (OSError, ValueError):
            return ""
        return note if len(note) < 1000 and note.isprintable() else ""

    def begin(self, version: str) -> None:
        """From byte 0. The old bytes go before the new version is noted."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        self._note.write_text(version, encoding="ascii", errors="replace")

    def discard(self) -> None:
        """Nothing is left."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self) -> None:
        """It is complete and right."""
        with self.path.open("rb+") as content:
            os.fsync(content.fileno())  # what is recorded as verified survives a power cut
        self.path.replace(self.target)
        self._note.unlink(missing_ok=True)


class Tally:
    """The checksum of what passes by, as long as nothing of it was there before."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._begin()

    def add(self, chunk: bytes, at: int) -> None:
        """``at``: where ``chunk`` begins, bytes."""
        if at == 0:
            self._begin()
        if at == self._done:
            self._digest.update(chunk)
            self._done += len(chunk)

    def digest(self, path: Path, heard: Callable[[int], None]) -> str:
        """Hexadecimal, of the whole file at ``path``; reads it only when it has to."""
        if self._done == path.stat().st_size:
            return self._digest.hexdigest()
        return digest_of(path, self._file.algorithm, heard)

    def _begin(self) -> None:
        self._digest = hashlib.new(self._file.algorithm, usedforsecurity=False)
        self._done = 0


def fetch_file(
    web: Web, url: str, file: RemoteFile, target: Path, heard: Heard, free: Free = free_bytes
) -> None:
    """Fetch ``url`` to ``target``, which does not exist yet. Whatever it raises, it can go on.

    Raises ``Refused``, ``Interrupted`` or ``OSError``.
    """
    partial, tally, tries = Partial(target), Tally(file), Tries(web)
    resumed, again = partial.size > 0, False
    while True:
        before = partial.size
        try:
            _go_on(web, url, file, partial, tally, heard, free)
        except Hiccup as hiccup:
            tries.after(hiccup, progress=partial.size > before)
            resumed = resumed or partial.size > 0
            continue
        if not file.checksum or tally.digest(partial.path, web.check) == file.checksum:
            partial.finish()
            return
        partial.discard()
        if again or not resumed:
            raise Refused(
                f"what the server sends does not have the {file.algorithm.upper()} "
                f"{file.checksum} it should have, so it was removed; take another mirror"
            )
        resumed, again = False, True  # two versions may have been glued: once more from the start


def _go_on(
    web: Web, url: str, file: RemoteFile, partial: Partial, tally: Tally, heard: Heard, free: Free
) -> None:
    """Fetch what is missing. ``Hiccup``: call again."""
    done = partial.size
    if done == file.size and partial.path.exists():
        return
    if (file.size is not None and done > file.size) or not (partial.version or file.checksum):
        partial.discard()  # too long, or nobody could tell whether the rest belongs to it
        done = 0
    headers = {"Range": f"bytes={done}-"} if done else {}
    if done and partial.version:
        headers["If-Range"] = partial.version
    with web.answer(url, headers) as response:
        nothing_more = response.headers.get("Content-Range") == f"bytes */{done}"
        if response.status_code == 416 and nothing_more:
            return  # nothing is missing; only the size was not known
        start, total = _extent(response, done, partial, file.checksum)
        if file.size is not None and total != file.size:
            raise Refused(
                f"it has {total} bytes on the server and {file.size} in its list; take another "
                "mirror, or try again later"
            )
        if (room := free(partial.path.parent)) < total - start:
            raise Refused(
                f"{in_words(total - start)} are missing and the disk has {in_words(room)}"
            )
        if start == 0:
            partial.begin(_version(response))
        done = start
        heard(done, total)
        with partial.path.open("ab", buffering=0) as content:
            for chunk in response.iter_raw():
                web.check()
                if done + len(chunk) > total:
                    raise Refused("the server sends more than it said")
                _write(content, chunk)
                tally.add(chunk, done)
                done += len(chunk)
                heard(done, total)
    if done < total:
        raise Hiccup("the connection was cut")


def _extent(
    response: httpx.Response, done: int, partial: Partial, checksum: str
) -> tuple[int, int]:
    """Where the body begins, and the size of the whole file, bytes."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,18}", length):
            raise Refused("the server does not say how long the file is")
        return 0, int(length)
    match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    # Some servers pass over If-Range; some do not repeat the version, and a checksum has to do.
    told = {response.headers.get("ETag"), response.headers.get("Last-Modified")} - {None}
    same = partial.version in {"", *told} or (bool(checksum) and not told)
    if response.status_code == 206 and match and int(match[1]) == done and same:
        return done, int(match[3])
    partial.discard()
    raise Hiccup("the file has changed on the server")


def _version(response: httpx.Response) -> str:
    """A weak ETag ('W/...') promises the same meaning, not the same bytes."""
    etag: str = response.headers.get("ETag", "")
    dated: str = response.headers.get("Last-Modified", "")
    return etag if etag and not etag.startswith("W/") else dated


def _write(content: FileIO, chunk: bytes) -> None:
    """All of it, at once: whatever happens next, the bytes so far are on disk in order."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[content.write(rest) :]
