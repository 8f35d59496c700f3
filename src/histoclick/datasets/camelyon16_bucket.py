"""Which files of the public CAMELYON bucket belong to which slide of CAMELYON16 (CC0).

Below ``CAMELYON16/`` lie ``images/tumor_001.tif`` (399 slides, 701 GB), ``annotations/
tumor_001.xml`` (160), ``masks/tumor_001_mask.tif`` (399, 9 GB) and ``checksums.md5``. They keep
these places on disk.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from histoclick.datasets.bucket import Get, RemoteFile, list_bucket, read_checksums
from histoclick.types import HistoclickError

BUCKET = "https://camelyon-dataset.s3.us-west-2.amazonaws.com"
ROOT = "CAMELYON16"
KINDS = ("images", "annotations", "masks")
GONE = {  # what people look for and the organisers took out
    "normal_086": "it was misclassified and is tumor_111 now",
    "test_049": "it showed the same section as another slide",
}
_PATH = re.compile(
    r"images/(?P<images>[a-z]+_\d+)\.tif"
    r"|annotations/(?P<annotations>[a-z]+_\d+)\.xml"
    r"|masks/(?P<masks>[a-z]+_\d+)_mask\.tif"
)


@dataclass(frozen=True)
class Choice:
    """What to fetch: ``files`` below the URL ``base``; ``notes`` are sentences for the user."""

    base: str
    files: tuple[RemoteFile, ...]
    notes: tuple[str, ...] = ()


def choose(
    get: Get,
    names: Sequence[str] = (),
    kinds: Sequence[str] = KINDS,
    mirror: str | None = None,
) -> Choice:
    """The files of the slides ``names`` ('tumor_001', or patterns: 'tumor_*'), all by default.

    ``kinds``: of ``KINDS``. ``mirror``: URL of a copy of the bucket; one that is not S3 needs
    ``CAMELYON16/checksums.md5``, from which its files are known then. Raises ``HistoclickError``
    for an unknown name or kind, and where nothing can be listed.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise HistoclickError(f"'{kind}' is nothing CAMELYON16 has; give {', '.join(KINDS)}")
    bucket = _bucket_url(mirror)
    offered, notes = _offered(get, bucket)
    cases = {_case(path) for path in offered}
    wanted = {case for name in names for case in _matching(name, cases)} if names else cases
    files = tuple(
        file
        for kind in KINDS
        for path, file in sorted(offered.items())
        if kind in kinds and path.startswith(f"{kind}/") and _case(path) in wanted
    )
    if not files:
        raise HistoclickError(
            f"{', '.join(names)}: no {' or '.join(kinds)} to fetch (slides without tumour have no "
            "annotations); ask for other slides or other parts"
        )
    return Choice(f"{bucket}/{ROOT}", files, (*notes, *_unchecked(files)))


def _bucket_url(mirror: str | None) -> str:
    if mirror is None:
        return BUCKET
    url = mirror.strip().rstrip("/").removesuffix(f"/{ROOT}")
    try:
        parts = urlsplit(url)
        known = parts.scheme in {"https", "http"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets or a port that are none
        known = False
    if not known or parts.query or parts.fragment:
        raise HistoclickError(
            f"'{mirror}' is no mirror; give a URL such as https://host/camelyon-dataset, below "
            f"which {ROOT}/images lies"
        )
    return url


def _offered(get: Get, bucket: str) -> tuple[dict[str, RemoteFile], list[str]]:
    """Path below ``CAMELYON16``: file, of everything that belongs to a slide; and notes."""
    listed = list_bucket(get, bucket, f"{ROOT}/")
    content = get(f"{bucket}/{ROOT}/checksums.md5")
    sums = {
        path.removeprefix(f"{ROOT}/"): digest
        for path, digest in read_checksums(content or b"").items()
    }
    if listed is not None:
        entries = {entry.key.removeprefix(f"{ROOT}/"): entry for entry in listed}
        files = {
            path: RemoteFile(path, entry.size, sums.get(path, entry.md5))
            for path, entry in entries.items()
            if _PATH.fullmatch(path)
        }
    else:
        files = {path: RemoteFile(path, None, sums[path]) for path in sums if _PATH.fullmatch(path)}
    if not files:
        raise HistoclickError(
            f"{bucket}: neither a list of files nor {ROOT}/checksums.md5 with slides is there; "
            "check the URL of the mirror"
        )
    notes = []
    if listed is None:
        notes.append(
            f"{bucket} is no S3 bucket: its files are those in {ROOT}/checksums.md5, and their "
            "sizes are known only once they are fetched."
        )
    elif not sums:
        notes.append(
            f"{bucket}/{ROOT}/checksums.md5 is missing: files are checked by the MD5 in the "
            "bucket's list, where there is one."
        )
    return files, notes


def _case(path: str) -> str:
    match = _PATH.fullmatch(path)
    return next(filter(None, match.groups())) if match else ""


def _matching(name: str, cases: set[str]) -> list[str]:
    found = sorted(fnmatch.filter(cases, name)) if _is_pattern(name) else [name]
    if found and cases.issuperset(found):
        return found
    if name in GONE:
        raise HistoclickError(f"{name} was taken out of CAMELYON16: {GONE[name]}; leave it out")
    near = difflib.get_close_matches(name, sorted(cases), n=3)
    raise HistoclickError(
        f"'{name}' is no slide of CAMELYON16"
        + (f"; the nearest names are {', '.join(near)}" if near else "")
        + "; give names such as tumor_001, or patterns such as 'test_*'"
    )


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _unchecked(files: Sequence[RemoteFile]) -> list[str]:
    bare = [file for file in files if not file.checksum]
    if not bare:
        return []
    return [
        f"{len(bare)} of {len(files)} files have no checksum (the first is {bare[0].path}): only "
        "their size can be checked."
    ]
