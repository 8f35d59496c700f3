"""One model for everybody: what it does is done one at a time, the most urgent first.

Threads. Any thread may call the engine; the model itself runs in one worker thread, so that clicks
do not fight for processors and accelerators. Pictures are read in the thread that asks, before the
model is needed. ``_lock`` guards the queue, the table of embeddings that are being made and the
ones that are kept; it is never held while something is read, computed, packed or written, and no
other lock is taken under it.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import platformdirs
from numpy.typing import NDArray

import histoclick
from histoclick.models.card import Card
from histoclick.server.shelf import Shelf
from histoclick.types import RGB8, HistoclickError, Prediction, Prompt, Segmenter

DEFAULT_WINDOW = 448  # px, of models that take pictures of any size
LARGEST_WINDOW = 1024
CLICK, AHEAD, SHELVE = range(3)  # order of urgency
MAX_WAITING = 64  # clicks and encodings for clicks
MAX_AHEAD = 12  # windows to be encoded when nobody waits; the oldest ones are given up


class Busy(Exception):
    """More clicks wait than can be answered soon; try again a little later."""


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


@dataclasses.dataclass(eq=False)
class _Job:
    """Something for the worker. ``urgency`` may rise while it waits.

    ``key``: of the embedding that it makes, if it makes one.
    """

    work: Callable[[], Any]
    urgency: int
    key: str | None = None
    waits: bool = False  # in the queue, not begun
    result: Future[Any] = dataclasses.field(default_factory=Future)


class Engine:
    """Encodes and predicts for all sessions.

    ``model``: id and hash. ``window_px``: side of the pictures that this model likes, at most 1024.
    ``boxes``: whether it understands boxes. ``memory_bytes``: of
    embeddings that are kept; on the device of the model, where they are needed. ``shelf``: where
    they are kept beyond that, for models that can pack them.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        card: Card,
        *,
        memory_bytes: int = 1 << 30,
        shelf: Shelf | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.card = card
        self.model = f"{card.id}@{card.sha256[:12]}" if card.sha256 else card.id
        self.boxes = bool(getattr(segmenter, "boxes", False))
        self.window_px = min(card.input_size or DEFAULT_WINDOW, LARGEST_WINDOW)
        self._segmenter = segmenter
        self._memory_bytes = memory_bytes
        self._shelf = shelf
        self._packer = segmenter if isinstance(segmenter, Packs) and shelf is not None else None
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._something = threading.Condition(self._lock)
        self._queue: list[tuple[int, int, _Job]] = []  # a heap; newer windows ahead come first
        self._numbers = itertools.count()
        self._making: dict[str, _Job] = {}  # embeddings that somebody reads or encodes
        self._kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()  # least recently used first
        self._bytes = 0
        self._closed = False
        self._worker = threading.Thread(target=self._run, name="engine", daemon=True)
        self._worker.start()

    @property
    def nbytes(self) -> int:
        """Bytes of the embeddings in memory."""
        return self._bytes

    def embedding(self, key: str, picture: Callable[[], RGB8]) -> Any:
        """The embedding of a picture, from memory, disk or the model.

        ``key``: names the picture for good. ``picture``: reads it, (H, W, 3) uint8 RGB; called in
        this thread and only if needed. Asked for twice at once it is encoded once. Raises ``Busy``,
        and what ``picture`` raises.
        """
        with self._lock:
            if (kept := self._recall(key)) is not None:
                return kept
            job = self._making.get(key)
            mine = job is None
            if job is None:
                job = self._promise(key, CLICK)
            else:
                self._hurry(job)
        if mine:
            self._make(key, job, picture)
        return job.result.result()

    def ahead(self, key: str, picture: Callable[[], RGB8]) -> bool:
        """Have an embedding made when nothing else is to do; whether it is there already.

        ``picture`` is read in this thread, now.
        """
        with self._lock:
            if self._recall(key) is not None:
                return True
            if key in self._making or self._closed:
                return False
            job = self._promise(key, AHEAD)
        self._make(key, job, picture)
        return False

    def has(self, key: str) -> bool:
        """Whether an embedding is in memory."""
        with self._lock:
            return key in self._kept

    def predict(self, encoded: Any, prompt: Prompt, previous: Prediction | None) -> Prediction:
        """The model's answer. Raises ``Busy``, and ``ValueError`` as ``Segmenter.predict``."""
        job = _Job(lambda: self._segmenter.predict(encoded, prompt, previous), CLICK)
        with self._lock:
            self._submit(job)
        answer: Prediction = job.result.result()
        return answer

    def close(self) -> None:
        """Finish what is being computed and answer all others with an error."""
        with self._lock:
            self._closed = True
            waiting = [job for _, _, job in self._queue if job.waits]
            for job in waiting:
                job.waits = False
            self._queue.clear()
            self._making.clear()
            self._something.notify_all()
        for job in waiting:
            job.result.set_exception(_closing())
        self._worker.join()

    # Everything down to the next comment is called with the lock held.

    def _recall(self, key: str) -> Any:
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def _promise(self, key: str, urgency: int) -> _Job:
        """An embedding that will be made."""
        job = self._making[key] = _Job(lambda: None, urgency, key)
        return job

    def _submit(self, job: _Job) -> None:
        if self._closed:
            raise _closing()
        if job.urgency == CLICK and len(self._waiting(CLICK)) >= self._max_waiting:
            raise Busy
        if job.urgency != CLICK and len(places := self._waiting(job.urgency)) >= MAX_AHEAD:
            *_, oldest = max(places) if job.urgency == AHEAD else min(places)
            oldest.waits = False
            oldest.result.cancel()
            self._making.pop(oldest.key or "", None)
        job.waits = True
        self._push(job)

    def _waiting(self, urgency: int) -> list[tuple[int, int, _Job]]:
        return [place for place in self._queue if place[2].waits and place[2].urgency == urgency]

    def _push(self, job: _Job) -> None:
        number = next(self._numbers)
        # Clicks in the order in which they came; ahead, the view of now before those of earlier.
        order = -number if job.urgency == AHEAD else number
        heapq.heappush(self._queue, (job.urgency, order, job))
        self._something.notify()

    def _hurry(self, job: _Job) -> None:
        """Somebody waits now for what was to be made ahead."""
        if job.urgency == CLICK:
            return
        job.urgency = CLICK
        if job.waits:
            self._queue = [place for place in self._queue if place[2] is not job]
            heapq.heapify(self._queue)
            self._push(job)

    def _keep(self, key: str, encoded: Any) -> None:
        self._making.pop(key, None)
        size = nbytes_of(encoded)
        self._kept[key] = encoded, size
        self._bytes += size
        while self._bytes > self._memory_bytes and len(self._kept) > 1:
            _, (_, dropped) = self._kept.popitem(last=False)
            self._bytes -= dropped

    # Below, the lock is free.

    def _make(self, key: str, job: _Job, picture: Callable[[], RGB8]) -> None:
        """Keep a promise: from the shelf, else let the worker encode."""
        try:
            encoded = self._unshelved(key)
            if encoded is not None:
                with self._lock:
                    self._keep(key, encoded)
                job.result.set_result(encoded)
                return
            pixels = picture()
            job.work = lambda: self._encode(key, pixels)
            with self._lock:
                self._submit(job)
        except BaseException as error:
            self._break(job, error)
            raise

    def _break(self, job: _Job, error: BaseException) -> None:
        """Tell all who wait that it failed; the next one who asks tries again."""
        with self._lock:
            self._making.pop(job.key or "", None)
        job.result.set_exception(error)

    def _encode(self, key: str, pixels: RGB8) -> Any:
        """The worker's part of an embedding."""
        encoded = self._segmenter.encode(pixels)
        with self._lock:
            self._keep(key, encoded)
            if self._packer is not None and not self._closed:
                self._submit(_Job(lambda: self._shelve(key, encoded), SHELVE))
        return encoded

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

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._queue and not self._closed:
                    self._something.wait()
                if self._closed:
                    return
                *_, job = heapq.heappop(self._queue)
                if not job.waits:  # given up, or done already from a better place
                    continue
                job.waits = False
            try:
                answer = job.work()
            except BaseException as error:  # noqa: BLE001  # it belongs to who asked
                self._break(job, error)
            else:
                job.result.set_result(answer)


def shelf_of(card: Card, device: str) -> Shelf | None:
    """Where embeddings of a model are kept; none for a model without weights to know it by."""
    if not card.sha256:
        return None
    place = Path(platformdirs.user_cache_dir("histoclick")) / "embeddings"
    return Shelf(place / f"{card.sha256[:16]}-{device.partition(':')[0]}-{histoclick.__version__}")


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


def _closing() -> HistoclickError:
    return HistoclickError("the server is closing; nothing is computed any more")
