"""The image directories of a TIFF, counted before anybody else reads them.

Readers follow directories from one to the next and allocate what their tags say. A file whose
directories run in a circle, or whose tags are larger than itself, would keep them busy for ever.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from histoclick.types import HistoclickError

MAX_DIRECTORIES = 10_000
MAX_TAGS = 4096
SUB_DIRECTORIES = 330  # the tag that points to more of them
VALUE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8,
               13: 4, 16: 8, 17: 8, 18: 8}  # fmt: skip


def is_tiff(start: bytes) -> bool:
    """Whether a file that starts with these bytes calls itself a TIFF."""
    return start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_directories(path: Path) -> None:
    """Raise ``HistoclickError`` for a TIFF that is not safe to give to a reader."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(16)
        order = "<" if start[:2] == b"II" else ">"
        big = start[2:4] in (b"+\0", b"\0+")
        try:
            first = struct.unpack_from(order + ("Q" if big else "I"), start, 8 if big else 4)[0]
        except struct.error:
            raise HistoclickError(f"{path}: ends after its first bytes; copy it again") from None
        chains, seen = [first], set[int]()
        while chains:
            offset, chain = chains.pop(), set[int]()
            while offset and offset not in seen - chain:  # others lists what they follow as well
                if offset in chain:
                    raise HistoclickError(
                        f"{path}: its TIFF directories run in a circle; export it again"
                    )
                chain.add(offset)
                seen.add(offset)
                if len(seen) > MAX_DIRECTORIES:
                    raise HistoclickError(
                        f"{path}: has more than {MAX_DIRECTORIES} TIFF directories; export the one "
                        "picture that is wanted"
                    )
                try:
                    offset, subordinate = _directory(file, offset, size, order, big)
                except (struct.error, ValueError, KeyError, OverflowError, OSError):
                    raise HistoclickError(
                        f"{path}: cut off or damaged (its TIFF directory at byte {offset} cannot "
                        "be read); copy it again"
                    ) from None
                chains += subordinate


def _directory(
    file: BinaryIO, offset: int, size: int, order: str, big: bool
) -> tuple[int, list[int]]:
    """Where the next directory is and those below this one; ``ValueError`` if it cannot be one."""
    head, entry, place = (8, 20, "Q") if big else (2, 12, "I")
    width = struct.calcsize("<" + place)
    file.seek(offset)
    (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(head))
    if count > MAX_TAGS:
        raise ValueError(count)
    data = file.read(count * entry + width)
    (following,) = struct.unpack_from(order + place, data, count * entry)
    below: list[int] = []
    for at in range(0, count * entry, entry):
        tag, kind = struct.unpack_from(order + "HH", data, at)
        (values,) = struct.unpack_from(order + place, data, at + 4)
        if values * VALUE_SIZES.get(kind, 1) > size:
            raise ValueError(values)
        if tag != SUB_DIRECTORIES:
            continue
        letter = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}[kind]
        length = values * VALUE_SIZES[kind]
        inline = data[at + 4 + width : at + 4 + 2 * width]
        if length > width:
            file.seek(struct.unpack(order + place, inline)[0])
            inline = file.read(length)
        below += struct.unpack_from(f"{order}{values}{letter}", inline)
    return following, below
