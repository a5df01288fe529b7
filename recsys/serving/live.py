"""`LiveModel`: the model that answers, and the one before it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from recsys.errors import DataError
from recsys.serving.recommender import Recommender


class LiveModel:
    """Readers take `pinned()` once a request and never wait; a swap is one assignment. Thread-safe."""

    def __init__(self, model: Recommender) -> None:
        self._pair: tuple[Recommender, Recommender | None] = (model, None)
        self._writing = threading.RLock()
        self._told: list[Callable[[Recommender], None]] = []

    @property
    def current(self) -> Recommender:
        return self._pair[0]

    @property
    def previous(self) -> Recommender | None:
        """Kept in memory, so that going back takes no time."""
        return self._pair[1]

    @property
    def writing(self) -> threading.RLock:
        """Held by whoever changes the model: nobody swaps it while items are taken in, and the other way round."""
        return self._writing

    def pinned(self) -> Recommender:
        """What one request answers from: neither a swap nor new items show in it."""
        return self.current.pinned()

    def swap(self, model: Recommender) -> None:
        with self._writing:
            self._pair = (model, self._pair[0])
        self.changed()

    def rollback(self) -> Recommender:
        """The previous model answers again; the present one becomes the previous.

        Raises:
            DataError: there was none before.
        """
        with self._writing:
            current, previous = self._pair
            if previous is None:
                raise DataError(f"nothing to go back to: {current.name} {current.version} is the first model of this process")
            self._pair = (previous, current)
        self.changed()
        return previous

    def on_change(self, tell: Callable[[Recommender], None]) -> None:
        """`tell(model)` after each swap, and whenever the model took in items."""
        self._told.append(tell)

    def changed(self) -> None:
        for tell in self._told:
            tell(self.current)
