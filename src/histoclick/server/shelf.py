"""Embeddings on disk: so that a slide which was looked at before answers at once.

One safetensors file each, which holds plain arrays and nothing that could run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import histoclick
from histoclick.models.card import Card

Arrays = Mapping[str, NDArray[np.generic]]

SUFFIX = ".safetensors"


class Shelf:
    """Arrays by key, at most ``max_bytes`` of files, the ones not used for longest dropped.

    ``owner``: whose keys these are, such as a model on a device; several may share a folder, and
    its bytes. ``folder`` is made when it is needed; what else lies in it is left alone. A file that
    is damaged, or was made for another key, is as good as none. Thread-safe; several processes may
    share a folder. Nothing here raises for a disk that is full or cannot be written: embeddings
    can be made again.
    """

    def __init__(self, folder: Path, owner: str, max_bytes: int = 2 << 30) -> None:
        self._folder = folder
        self._owner = owner
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._bytes: int | None = None  # of all files; None: not yet counted

    def get(self, key: str) -> dict[str, NDArray[np.generic]] | None:
        """The arrays, if they are here."""
        path = self._path(key)
        try:
            with safe_open(path, framework="np") as file:
                if (file.metadata() or {}).get("key") != self._name(key):
                    return None
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            os.utime(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, TypeError, KeyError):
            self.drop(key)
            return None
        return arrays

    def put(self, key: str, arrays: Arrays) -> None:
        """Keep arrays, if the disk allows it."""
        path = self._path(key)
        with contextlib.suppress(OSError, SafetensorError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(suffix=".partial", dir=self._folder)
            os.close(handle)
            try:
                plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
                save_file(plain, partial, metadata={"key": self._name(key)})
                Path(partial).replace(path)
            finally:
                Path(partial).unlink(missing_ok=True)
            self._make_room(path.stat().st_size)

    def drop(self, key: str) -> None:
        """Forget what turned out to be useless."""
        with contextlib.suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def _name(self, key: str) -> str:
        return f"{self._owner}/{key}"

    def _path(self, key: str) -> Path:
        return self._folder / (hashlib.sha256(self._name(key).encode()).hexdigest()[:32] + SUFFIX)

    def _make_room(self, added: int) -> None:
        """Count what is there now and then, and drop the oldest files of too many."""
        with self._lock:
            if self._bytes is not None:
                self._bytes += added
                if self._bytes <= self._max_bytes:
                    return
            files = []
            for path in self._folder.glob(f"*{SUFFIX}"):
                with contextlib.suppress(OSError):
                    status = path.stat()
                    files.append((status.st_mtime_ns, status.st_size, path))
            total = sum(size for _, size, _ in files)
            for _, size, path in sorted(files):
                if total <= self._max_bytes:
                    break
                path.unlink(missing_ok=True)
                total -= size
            self._bytes = total


def shelf_of(card: Card, device: str) -> Shelf | None:
    """The shelf of a model in the user's cache folder; none for a model without weights, because
    nothing would tell it from the next version of it.

    Embeddings of another device or version may differ.
    """
    if not card.sha256:
        return None
    folder = Path(platformdirs.user_cache_dir("histoclick")) / "embeddings"
    return Shelf(folder, f"{histoclick.__version__}/{card.sha256}/{device.partition(':')[0]}")
