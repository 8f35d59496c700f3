"""What clients look at, which is encoded before they click."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from histoclick.geometry import Rect
from histoclick.server.engine import Busy, Engine
from histoclick.server.library import Library, NoSlide
from histoclick.server.sight import Sight
from histoclick.session import Grid
from histoclick.types import HistoclickError

MAX_WINDOWS = 48  # of a view that are encoded ahead
MAX_CLIENTS = 1000  # whose views are remembered


class Views:
    """Thread-safe: ``_lock`` guards the table of views, and nothing is called under it."""

    def __init__(self, library: Library, engine: Engine) -> None:
        self._library = library
        self._engine = engine
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, tuple[int, tuple[str, ...]]] = OrderedDict()  # turn, windows
        self._turns = itertools.count(1)

    def look_ahead(self, slide_id: str, view: Rect, mpp: float, client: str) -> View:
        """What the model would need to answer clicks in a view.

        ``view``: px of level 0. ``mpp``: um/px at which the clicks will work. An earlier view of
        the same client is given up. Raises ``NoSlide`` and ``HistoclickError``.
        """
        entry = self._library.entry(slide_id)
        sight = Sight(self._engine, self._library, entry)
        with self._library.open(slide_id) as slide:
            grid = Grid.of(slide, max(mpp, slide.mpp or 1.0))
        windows = grid.ahead(_clipped(view, grid, sight.window_px), sight.window_px)
        places = tuple(
            (grid.rect0(each), each.width, each.height)
            for each in itertools.islice(windows, MAX_WINDOWS)
        )
        keys = tuple(sight.key(*place) for place in places)
        with self._lock:
            before, known = self._seen.get(client, (0, ()))
            turn = before if known == keys else next(self._turns)
            self._seen[client] = turn, keys
            self._seen.move_to_end(client)
            while len(self._seen) > MAX_CLIENTS:
                self._seen.popitem(last=False)
        if before and turn != before:
            self._engine.give_up(before)
        return View(self, sight, client, turn, places, keys)

    def is_current(self, client: str, turn: int) -> bool:
        """Whether a client still looks at what it looked at in a turn."""
        with self._lock:
            return self._seen.get(client, (0, ()))[0] == turn


@dataclass(frozen=True)
class View:
    """The windows of what one client looks at. ``places``: as (px of level 0, width, height)."""

    views: Views
    sight: Sight
    client: str
    turn: int
    places: tuple[tuple[Rect, int, int], ...]
    keys: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether all of it is encoded."""
        return all(map(self.sight.engine.has, self.keys))

    def encode(self) -> None:
        """Read the windows and have them encoded; ends early when the client looks elsewhere."""
        for rect0, width, height in self.places:
            if not self.views.is_current(self.client, self.turn):
                return
            key = self.sight.key(rect0, width, height)
            picture = partial(self.sight.picture, rect0, width, height)
            try:
                self.sight.engine.ahead(key, picture, self.turn)
            except (HistoclickError, Busy, NoSlide):  # damaged there, or closed: a click will tell
                return


def _clipped(view: Rect, grid: Grid, side: int) -> Rect:
    """The middle of a view that is larger than what is encoded ahead at all."""
    width = min(view.width, MAX_WINDOWS * side * grid.scale_x / 4)
    height = min(view.height, MAX_WINDOWS * side * grid.scale_y / 4)
    x0 = view.x0 + (view.width - width) / 2
    return Rect(x0, view.y0 + (view.height - height) / 2, width, height)
