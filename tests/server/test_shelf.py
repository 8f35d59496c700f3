from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from histoclick.server.shelf import Shelf

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1, 2])}


def test_gives_back_what_it_was_given(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "new", "model")
    assert shelf.get("k") is None
    shelf.put("k", {"a": ARRAYS["a"].T, "b": ARRAYS["b"]})
    found = shelf.get("k")
    assert found is not None
    assert np.array_equal(found["a"], ARRAYS["a"].T)
    assert found["b"].dtype == ARRAYS["b"].dtype
    assert shelf.get("other") is None
    assert Shelf(tmp_path / "new", "other model").get("k") is None
    assert [path.suffix for path in (tmp_path / "new").iterdir()] == [".safetensors"]
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "header", "of another key"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, damage: str) -> None:
    shelf = Shelf(tmp_path, "model")
    shelf.put("k", ARRAYS)
    (path,) = tmp_path.glob("*")
    whole = path.read_bytes()
    if damage == "of another key":
        shelf.put("l", ARRAYS)
        (other,) = set(tmp_path.glob("*")) - {path}
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(
            {
                "empty": b"",
                "cut": whole[:-5],
                "noise": os.urandom(len(whole)),
                "header": b"\xff" * 8 + whole[8:],
            }[damage]
        )
    assert shelf.get("k") is None
    shelf.put("k", ARRAYS)
    assert shelf.get("k") is not None


def test_the_files_not_used_for_longest_go(tmp_path: Path) -> None:
    (tmp_path / "somebody else's").write_text("stays")
    shelf = Shelf(tmp_path, "model", max_bytes=5000)
    array = {"a": np.zeros(1000, np.uint8)}
    for number in range(4):
        shelf.put(str(number), array)
        for path in tmp_path.glob("*.safetensors"):  # as if each were made a minute later
            status = path.stat()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 60_000_000_000))
    assert shelf.get("0") is not None  # used again just now
    shelf.put("4", array)
    kept = [number for number in range(5) if shelf.get(str(number)) is not None]
    assert kept == [0, 2, 3, 4]
    assert sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) <= 5000
    assert (tmp_path / "somebody else's").exists()


def test_a_disk_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shelf = Shelf(tmp_path / "file", "model")
    shelf.put("k", ARRAYS)
    assert shelf.get("k") is None
