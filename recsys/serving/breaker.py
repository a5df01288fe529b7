"""`Breaker`: a store that fails again and again is left alone for a while, so that no request waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from recsys.errors import RetryableError

T = TypeVar("T")


class Breaker:
    """After `failures` in a row nothing is asked for `seconds`; then one call tries again. Thread-safe."""

    def __init__(self, failures: int = 3, seconds: float = 1.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._seconds, self._clock = failures, seconds, clock
        self._lock = threading.Lock()
        self._failed, self._until = 0, 0.0

    def call(self, ask: Callable[[], T]) -> T:
        """Raises RetryableError while open; else whatever `ask` raises."""
        with self._lock:
            if self._failed >= self._limit:
                if self._clock() < self._until:
                    raise RetryableError("the store failed repeatedly and is left alone for a moment")
                # This call tries; the others go on waiting until it is known how that went.
                self._until = self._clock() + self._seconds
        try:
            answer = ask()
        except Exception:
            with self._lock:
                self._failed += 1
                self._until = self._clock() + self._seconds
            raise
        with self._lock:
            self._failed = 0
        return answer
