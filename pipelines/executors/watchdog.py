"""`watched`: an iterator whose items must not take too long."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from recsys.errors import RetryableError

T = TypeVar("T")


def watched(items: Iterator[T], patience: float, why: Callable[[], str] | None = None) -> Iterator[T]:
    """The same items, each computed in another thread when it is asked for; nothing is computed ahead.

    Raises:
        RetryableError: an item took longer than `patience` seconds; with what `why()` finds out, if it is quick. The thread is
        left behind: what hangs in a library cannot be stopped from outside.
    """
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        while wanted.get():
            try:
                finished.put((next(items), None))
            except BaseException as error:
                finished.put((None, error))
                return
        if close := getattr(items, "close", None):
            close()

    threading.Thread(target=work, name="embedding", daemon=True).start()
    try:
        while True:
            wanted.put(True)
            try:
                item, error = finished.get(timeout=patience)
            except queue.Empty:
                reason = _in_time(why) if why else ""
                raise RetryableError(f"stalled: no batch was finished for {patience:.0f} s{reason}; what is done is stored, run again") from None
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]  # without an error there is an item
    finally:
        wanted.put(False)


def _in_time(why: Callable[[], str], seconds: float = 5.0) -> str:
    """What hangs may also hang whoever asks it why."""
    found: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found.put(why())
        except Exception as error:
            found.put(f"{type(error).__name__}: {error}")

    threading.Thread(target=ask, name="embedding-why", daemon=True).start()
    try:
        return f" ({found.get(timeout=seconds)})"
    except queue.Empty:
        return " (and it does not answer why)"
