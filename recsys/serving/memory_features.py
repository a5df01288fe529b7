"""User state in this process: for a service without a feature store, and for tests."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from recsys.serving.features import Event

USERS, EVENTS = 100_000, 1_000


class MemoryFeatures:
    """Satisfies `OnlineFeatures` and `TakesEvents`. What was pushed is lost with the process; the users least recently written to go first.

    base: the history that a user's events are appended to; None for a user that it does not know.
    """

    def __init__(self, base: Callable[[str], list[str] | None] = lambda user_id: None) -> None:
        self._base = base
        self._lock = threading.Lock()
        self._pushed: OrderedDict[str, list[str]] = OrderedDict()

    def events(self, user_id: str) -> list[str]:
        """item_ids of what was pushed alone, oldest first."""
        with self._lock:
            return list(self._pushed.get(user_id, ()))

    def history(self, user_id: str) -> list[str] | None:
        before, events = self._base(user_id), self.events(user_id)
        return before if not events else [*(before or []), *events]

    def push(self, events: Sequence[Event]) -> None:
        with self._lock:
            for event in events:
                kept = self._pushed.setdefault(event.user_id, [])
                kept.append(event.item_id)
                del kept[:-EVENTS]
                self._pushed.move_to_end(event.user_id)
            while len(self._pushed) > USERS:
                self._pushed.popitem(last=False)
