"""The steps of every object there ever was, and who may take which of them back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from histoclick.session.asking import Step
from histoclick.types import HistoclickError

FRESH = 16  # objects whose pixels are kept, since somebody may go on with them


@dataclass(frozen=True)
class Deed:
    """Something that can be taken back: the steps that it added to objects, and the last ones
    before those."""

    client: str
    user: str
    steps: Mapping[int, Step]
    bases: Mapping[int, Step | None]


class Deeds:
    """``steps``: of every object by its id, the last one at the end."""

    def __init__(self) -> None:
        self.steps: dict[int, list[Step]] = {}
        self._done: list[Deed] = []  # the last one at the end
        self._undone: dict[str, list[Deed]] = {}  # by client
        self._fresh: OrderedDict[int, None] = OrderedDict()  # objects, last worked on at the end

    @property
    def next_id(self) -> int:
        """Of a new object."""
        return max(self.steps, default=0) + 1

    def top(self, id_: int) -> Step | None:
        """The last step of an object."""
        line = self.steps.get(id_)
        return line[-1] if line else None

    def add(self, client: str, user: str, steps: Mapping[int, Step]) -> None:
        """Do something; what this client took back before cannot be done again after it."""
        bases = {id_: self.top(id_) for id_ in steps}
        self._done.append(Deed(client, user, steps, bases))
        self._undone.pop(client, None)
        self._push(steps)

    def undo(self, client: str, user: str) -> Mapping[int, Step]:
        """Take back what ``undoable`` says; returns the steps that are gone."""
        deed = self.undoable(client, user)
        self._done.remove(deed)
        self._undone.setdefault(client, []).append(deed)
        for id_ in deed.steps:
            self.steps[id_].pop()
        return deed.steps

    def redo(self, client: str) -> Mapping[int, Step]:
        """Do again what ``redoable`` says; returns the steps that are there again."""
        deed = self.redoable(client)
        self._undone[client].pop()
        self._done.append(deed)
        self._push(deed.steps)
        return deed.steps

    def can_undo(self, client: str, user: str) -> bool:
        """Whether there is something that ``undo`` would take back."""
        deed = self._last(client, user)
        return deed is not None and self._is_last(deed)

    def can_redo(self, client: str) -> bool:
        """Whether there is something that ``redo`` would do again."""
        return bool(self._undone.get(client))

    def undoable(self, client: str, user: str) -> Deed:
        """What is taken back next. Raises ``HistoclickError`` if there is nothing."""
        deed = self._last(client, user)
        if deed is None:
            raise HistoclickError("there is nothing to take back")
        if not self._is_last(deed):
            raise HistoclickError(
                "somebody else worked on this object since; it cannot be taken back any more"
            )
        return deed

    def redoable(self, client: str) -> Deed:
        """What is done again next. Raises ``HistoclickError`` if there is nothing."""
        undone = self._undone.get(client)
        if not undone:
            raise HistoclickError("there is nothing to do again")
        deed = undone[-1]
        if any(self.top(id_) is not base for id_, base in deed.bases.items()):
            raise HistoclickError(
                "somebody else worked on this object since; it cannot be done again"
            )
        return deed

    def _push(self, steps: Mapping[int, Step]) -> None:
        for id_, step in steps.items():
            line = self.steps.setdefault(id_, [])
            line.append(step)
            if len(line) > 2 and (old := line[-3].item) is not None:
                old.forget()
            self._fresh[id_] = None
            self._fresh.move_to_end(id_)
        while len(self._fresh) > FRESH:
            self._rest(self._fresh.popitem(last=False)[0])

    def _rest(self, id_: int) -> None:
        """Keep of an object what is shown of it; the rest can be made again."""
        line = self.steps.get(id_, [])[-2:]
        for step in line:
            if step.item is not None:
                step.item.forget(shape=step is not line[-1])

    def _last(self, client: str, user: str) -> Deed | None:
        """The last of this client, or of this user, if named, in an earlier one."""
        for deed in reversed(self._done):
            if deed.client == client:
                return deed
        if user:
            return next((deed for deed in reversed(self._done) if deed.user == user), None)
        return None

    def _is_last(self, deed: Deed) -> bool:
        return all(self.top(id_) is step for id_, step in deed.steps.items())
