"""`Lane`: a bounded queue in front of the threads that score."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from recsys.errors import RetryableError

T = TypeVar("T")


class BusyError(RetryableError):
    """The request was turned away unread. reason: "queue_full", "deadline", "draining" or "rate"."""

    def __init__(self, message: str, reason: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.reason, self.retry_after = reason, retry_after


class Lane:
    """At most `workers` jobs at a time, at most `queue` waiting. Use from one event loop."""

    def __init__(self, workers: int, queue: int, name: str = "scoring") -> None:
        self._limit, self._pending = workers + queue, 0
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix=name)

    @property
    def pending(self) -> int:
        """Jobs that wait or are under way."""
        return self._pending

    async def run(self, job: Callable[[], T], *, deadline: float) -> T:
        """`job()` in a worker. deadline: by `time.perf_counter`; a job that has not begun by then never does.

        Raises:
            BusyError: the queue is full, or the deadline passed while waiting.
        """
        with self._lock:
            if self._pending >= self._limit:
                raise BusyError(f"{self._limit} requests are waiting or under way, the service takes no more; try again", "queue_full")
            self._pending += 1

        def work() -> T:
            try:
                if time.perf_counter() >= deadline:
                    raise BusyError("the deadline passed before a worker was free; try again, or give more time", "deadline")
                return job()
            finally:
                with self._lock:
                    self._pending -= 1

        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        """Waits for what was taken in."""
        self._executor.shutdown(wait=True)
