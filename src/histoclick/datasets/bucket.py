"""What a server offers: files with size and checksum, from an S3 listing or a list of checksums.

Nothing here speaks HTTP. ``Get`` is handed in: the content of a URL, ``None`` where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote_plus, urlencode
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from histoclick.types import HistoclickError

Get = Callable[[str], bytes | None]

MAX_PAGES = 200  # of a listing, 1000 files each
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?<!\.)")
_DIGEST = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
_LINE = re.compile(r"([0-9A-Fa-f]{32}|[0-9A-Fa-f]{64})[ \t]+\*?(?:\./)?(\S.*)")


@dataclass(frozen=True)
class RemoteFile:
    """A file below a base URL, and below the folder it is fetched into.

    ``path``: relative, with ``/``. ``size``: bytes, ``None`` if the server tells it only with the
    file. ``checksum``: hexadecimal MD5 (32 digits) or SHA-256 (64), "" for none. Raises
    ``HistoclickError`` for a path that could leave the folder or hide in it: listings are written
    by strangers.
    """

    path: str
    size: int | None = None
    checksum: str = ""

    def __post_init__(self) -> None:
        if not all(_PLAIN.fullmatch(name) for name in self.path.split("/")):
            raise HistoclickError(
                f"{self.path!r}: the server lists a file whose name may lead out of the folder; "
                "nothing is fetched from such a list, so take another mirror"
            )
        if self.checksum and not _DIGEST.fullmatch(self.checksum):
            raise HistoclickError(
                f"{self.path}: {self.checksum!r} is neither an MD5 nor a SHA-256; mend the list"
            )
        if self.size is not None and self.size < 0:
            raise HistoclickError(f"{self.path}: {self.size} bytes cannot be; mend the list")

    @property
    def algorithm(self) -> str:
        """The name of the checksum's algorithm for ``hashlib``."""
        return "sha256" if len(self.checksum) == 64 else "md5"


class Entry(NamedTuple):
    """One object of a bucket; ``md5`` is "" where its ETag is not one (several parts)."""

    key: str
    size: int
    md5: str


def list_bucket(get: Get, bucket: str, prefix: str) -> list[Entry] | None:
    """All objects below ``prefix``; ``None`` when the server does not answer like a bucket.

    ``bucket``: its URL without a slash at the end. Raises ``HistoclickError`` for an answer that
    attacks the parser, or that never ends.
    """
    entries: list[Entry] = []
    token = ""
    for _ in range(MAX_PAGES):
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
        url = f"{bucket}/?{urlencode(query | ({'continuation-token': token} if token else {}))}"
        content = get(url)
        page = None if content is None else _parse(content, url)
        if page is None and not token:
            return None
        if page is None:
            raise _damaged(url)
        entries += _entries(page, url)
        if _text(page, "IsTruncated") != "true":
            return entries
        following = _text(page, "NextContinuationToken")
        if not following or following == token:
            raise _damaged(url)
        token = following
    raise HistoclickError(
        f"{bucket}: its list has more than {MAX_PAGES} pages; give the URL of another mirror"
    )


def read_checksums(content: bytes) -> dict[str, str]:
    """Path: checksum, as ``md5sum`` and ``sha256sum`` write them; other lines are passed over."""
    lines = content.decode("utf-8", errors="replace").splitlines()
    found = (_LINE.fullmatch(line.strip()) for line in lines)
    return {match[2]: match[1].lower() for match in found if match}


def _parse(content: bytes, url: str) -> Element | None:
    """The list, or ``None`` for a page of another kind."""
    try:
        root: Element = fromstring(content, forbid_dtd=True)
    except DefusedXmlException as error:
        if b"ListBucketResult" not in content:
            return None  # a web page
        raise _damaged(url) from error
    except (ParseError, ValueError):
        return None
    return root if _name(root) == "ListBucketResult" else None


def _entries(page: Element, url: str) -> list[Entry]:
    coded = _text(page, "EncodingType") == "url"
    entries = []
    for item in page:
        if _name(item) != "Contents":
            continue
        key, size, etag = (_text(item, name) for name in ("Key", "Size", "ETag"))
        digest = etag.strip('"').lower()
        if not re.fullmatch(r"[0-9]{1,18}", size):
            raise _damaged(url)
        md5 = digest if re.fullmatch(r"[0-9a-f]{32}", digest) else ""
        entries.append(Entry(unquote_plus(key) if coded else key, int(size), md5))
    return entries


def _name(element: Element) -> str:
    """Without the namespace: some mirrors leave it out."""
    return element.tag.rpartition("}")[2]


def _text(element: Element, name: str) -> str:
    return next((child.text or "" for child in element if _name(child) == name), "").strip()


def _damaged(url: str) -> HistoclickError:
    return HistoclickError(f"{url}: the list of files is damaged; try again, or another mirror")
