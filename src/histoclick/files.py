"""Files that are there whole or not at all, and their hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Write a file, or replace it: under another name first, then renamed."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
