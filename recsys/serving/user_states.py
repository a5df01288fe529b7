"""`UserStates`: the last vector of each user, to be used again while the history is the same, and instead of nothing when it cannot be had."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from recsys.types import FloatArray, IntArray


@dataclass(frozen=True)
class UserState:
    """history: int64 item_nums that the vector was made of. vector: float32 (1, d)."""

    history: IntArray
    vector: FloatArray


class UserStates:
    """The least recently used go first. A vector belongs to one fused space: that of another model is never found. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], UserState] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def last(self, space_id: str, user_id: str) -> UserState | None:
        """Whatever the history was."""
        with self._lock:
            found = self._kept.get((space_id, user_id))
            if found is not None:
                self._kept.move_to_end((space_id, user_id))
            return found

    def of_history(self, space_id: str, user_id: str, history: IntArray) -> UserState | None:
        """Only if it was made of this very history: then it is what the model would make."""
        found = self.last(space_id, user_id)
        return found if found is not None and np.array_equal(found.history, history) else None

    def keep(self, space_id: str, user_id: str, state: UserState) -> None:
        with self._lock:
            self._kept[space_id, user_id] = state
            self._kept.move_to_end((space_id, user_id))
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
