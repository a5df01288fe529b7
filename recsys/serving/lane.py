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
    """At most `workers` jobs at a time, at most `queue` waiting. Use from one event loop.

    workers: 0 runs jobs in the event loop itself, one after the other: to wake a thread costs more than a small job does.
    """

    def __init__(self, workers: int, queue: int, name: str = "scoring") -> None:
        self._limit, self._pending = max(workers, 1) + queue, 0
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix=name) if workers else None

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
        if self._executor is not None:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._work, job, deadline)
        try:
            # All that has arrived by now is let in first, and counts: the queue stays bounded.
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._leave()
            raise
        return self._work(job, deadline)

    def _work(self, job: Callable[[], T], deadline: float) -> T:
        try:
            if time.perf_counter() >= deadline:
                raise BusyError("the deadline passed before a worker was free; try again, or give more time", "deadline")
            return job()
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._pending -= 1

    def close(self) -> None:
        """Waits for what was taken in."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)
