"""One model for everybody: embeddings made once and kept, clicks before what is made ahead.

Locks, in the order in which they may be taken: ``Engine._lock`` (the tables of embeddings that are
kept and that are being made), then that of the ``Worker`` (its queue). Neither is held while a
picture is read, the model runs, or a file is read or written. Pictures are read in the thread that
asks, before the model is needed; the model runs in the worker's thread alone, so that clicks do
not fight for processors and accelerators.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from histoclick.models.card import Card
from histoclick.server.shelf import Shelf
from histoclick.server.worker import Busy, Job, Urgency, Worker
from histoclick.types import RGB8, HistoclickError, Prediction, Prompt, Segmenter

__all__ = ["Busy", "Engine", "Packs", "nbytes_of"]

DEFAULT_WINDOW = 448  # px, of models that take pictures of any size
LARGEST_WINDOW = 1024
WAITING = {Urgency.CLICK: 64, Urgency.AHEAD: 64, Urgency.SHELVE: 8}


@dataclasses.dataclass
class _Kept:
    """``shelved``: whether it is on disk, or on its way there."""

    encoded: Any
    nbytes: int
    shelved: bool


@runtime_checkable
class Packs(Protocol):
    """A segmenter whose embeddings can be kept on disk; an optional ability."""

    def pack(self, encoded: Any) -> dict[str, NDArray[np.generic]]:
        """An embedding as arrays."""
        ...

    def unpack(self, arrays: Mapping[str, NDArray[np.generic]]) -> Any:
        """The embedding of such arrays, which predicts the same. Raises ``KeyError`` or
        ``ValueError`` for arrays of something else."""
        ...


class Engine:
    """Encodes and predicts for all sessions. Thread-safe; calls return when it is done.

    ``model``: id and hash. ``window_px``: side of the pictures that this model likes, at most 1024.
    ``boxes``: whether it understands boxes. ``memory_bytes``: of embeddings that are kept on the
    device of the model. ``shelf``: where those that were needed are kept beyond that, for models
    that can pack them.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        card: Card,
        *,
        memory_bytes: int = 512 << 20,
        shelf: Shelf | None = None,
        waiting: Mapping[Urgency, int] = WAITING,
    ) -> None:
        self.card = card
        self.model = f"{card.id}@{card.sha256[:12]}" if card.sha256 else card.id
        self.window_px = min(card.input_size or DEFAULT_WINDOW, LARGEST_WINDOW)
        self.boxes = bool(getattr(segmenter, "boxes", False))
        self._segmenter = segmenter
        self._memory_bytes = memory_bytes
        self._shelf = shelf
        self._packer = segmenter if isinstance(segmenter, Packs) and shelf is not None else None
        self._lock = threading.Lock()
        self._making: dict[str, Job] = {}  # embeddings that somebody reads or encodes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()  # least recently used first
        self._bytes = 0
        self._worker = Worker(dict(waiting))

    @property
    def nbytes(self) -> int:
        """Bytes of the embeddings in memory."""
        return self._bytes

    def has(self, key: str) -> bool:
        """Whether an embedding is in memory."""
        with self._lock:
            return key in self._kept

    def embedding(self, key: str, picture: Callable[[], RGB8]) -> Any:
        """The embedding of a picture, from memory, disk or the model.

        ``key``: names the picture for good. ``picture``: reads it, (H, W, 3) uint8 RGB; called in
        this thread and only if needed. Asked for twice at once it is encoded once. Raises ``Busy``,
        and what ``picture`` raises.
        """
        with self._lock:
            job, mine = self._making.get(key), False
            if key in self._kept:
                self._kept.move_to_end(key)
                job = _done(self._kept[key].encoded)
            elif job is not None:
                self._worker.hurry(job)
            else:
                job, mine = Job(_nothing, key=key), True
                self._making[key] = job
        if mine:
            self._make(job, picture)
        encoded = job.result.result()
        self._shelve_once(key)
        return encoded

    def ahead(self, key: str, picture: Callable[[], RGB8], turn: int = 0) -> bool:
        """Have an embedding made when nothing else is to do; whether it is there already.

        ``picture`` is read in this thread, now. ``turn``: those of a higher one come first, as a
        later view should; in one turn, they are made in the order of these calls.
        """
        with self._lock:
            if key in self._kept:
                return True
            if key in self._making:
                return False
            job = self._making[key] = Job(_nothing, Urgency.AHEAD, key, turn)
        self._make(job, picture)
        return False

    def give_up(self, turn: int) -> None:
        """Make nothing more of a turn, unless somebody waits for it by now."""
        with self._lock:
            for job in self._worker.give_up(turn):
                self._making.pop(job.key, None)

    def predict(self, encoded: Any, prompt: Prompt, previous: Prediction | None) -> Prediction:
        """The model's answer. Raises ``Busy``, and ``ValueError`` as ``Segmenter.predict``."""
        job = Job(lambda: self._segmenter.predict(encoded, prompt, previous))
        self._worker.submit(job)
        answer: Prediction = job.result.result()
        return answer

    def pack(self, encoded: Any) -> dict[str, NDArray[np.generic]]:
        """An embedding as arrays, of a model that ``Packs``."""
        assert isinstance(self._segmenter, Packs)
        return self._segmenter.pack(encoded)

    def close(self) -> None:
        """Finish what is being computed and answer all others with an error."""
        self._worker.close()

    def _make(self, job: Job, picture: Callable[[], RGB8]) -> None:
        """Take an embedding from the shelf, else let the worker encode it."""
        try:
            encoded = self._unshelved(job.key)
            if encoded is not None:
                self._keep(job.key, encoded, shelved=True)
                job.result.set_result(encoded)
                return
            pixels = picture()
            job.work = lambda: self._encode(job.key, pixels)
            with self._lock:
                if (dropped := self._worker.submit(job)) is not None:
                    self._making.pop(dropped.key, None)
        except BaseException as error:
            with self._lock:
                self._making.pop(job.key, None)
            job.result.set_exception(error)
            raise

    def _encode(self, key: str, pixels: RGB8) -> Any:
        """The worker's part of an embedding."""
        try:
            encoded = self._segmenter.encode(pixels)
        except BaseException:
            with self._lock:  # the next one who asks tries again
                self._making.pop(key, None)
            raise
        self._keep(key, encoded, shelved=False)
        return encoded

    def _keep(self, key: str, encoded: Any, *, shelved: bool) -> None:
        size = nbytes_of(encoded)
        with self._lock:
            self._making.pop(key, None)
            self._kept[key] = _Kept(encoded, size, shelved)
            self._bytes += size
            while self._bytes > self._memory_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def _shelve_once(self, key: str) -> None:
        """Write what somebody needed to the disk, when nothing else is to do."""
        if self._packer is None:
            return
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or kept.shelved:
                return
            kept.shelved = True
        with contextlib.suppress(HistoclickError):  # closing
            job = Job(lambda: self._shelve(key, kept.encoded), Urgency.SHELVE)
            if self._worker.submit(job) is job:  # there is too much to do: another time
                kept.shelved = False

    def _unshelved(self, key: str) -> Any:
        if self._packer is None or self._shelf is None:
            return None
        arrays = self._shelf.get(key)
        if arrays is None:
            return None
        try:
            return self._packer.unpack(arrays)
        except (KeyError, ValueError, RuntimeError):  # of another version, or damaged
            self._shelf.drop(key)
            return None

    def _shelve(self, key: str, encoded: Any) -> None:
        assert self._packer is not None
        assert self._shelf is not None
        self._shelf.put(key, self._packer.pack(encoded))


def nbytes_of(value: Any) -> int:
    """Bytes of all arrays and tensors in a value, wherever in it they are."""
    size = getattr(value, "nbytes", None)
    if isinstance(size, int):
        return size
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return sum(nbytes_of(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return sum(map(nbytes_of, value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return sum(map(nbytes_of, value))
    return 0


def _done(answer: Any) -> Job:
    job = Job(_nothing)
    job.result.set_result(answer)
    return job


def _nothing() -> None:
    """Stands in for the work while the picture is read."""
