"""How a stage is tried: within its time, again when that may help, and stopped cleanly on SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pipelines.nightly_config import AttemptConfig
from pipelines.progress import Reporter
from pipelines.stage import Step
from recsys.artifacts.artifact import Artifact
from recsys.errors import RetryableError

GRACE_SECONDS = 60.0
EXIT_RETRY = 75
Told = Callable[[str, int, float, str], None]


class Stopped(BaseException):
    """SIGTERM came. Not an Exception: no library's handler may swallow it."""


class Attempts:
    """Runs a step as its configuration allows. told: (step, try number from 1, seconds, error or "") after each try."""

    def __init__(self, config: AttemptConfig, reporter: Reporter, told: Told, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._config, self._reporter, self._told, self._sleep = config, reporter, told, sleep

    def __call__(self, step: Step, run: Callable[[], Artifact]) -> Artifact:
        limit = self._config.timeouts.get(step.stage, self._config.timeout)
        for number in range(1, self._config.retries + 2):
            started = time.monotonic()
            try:
                with within(limit, f"stage {step.name}"):
                    artifact = run()
            except (RetryableError, ConnectionError) as error:
                self._told(step.name, number, time.monotonic() - started, str(error))
                if number > self._config.retries:
                    raise
                wait = self._config.wait * 2 ** (number - 1)
                self._reporter.say(f"  [yellow]{step.name}: {error}; try {number + 1} of {self._config.retries + 1} in {wait:g} s[/]")
                self._sleep(wait)
            except BaseException as error:
                self._told(step.name, number, time.monotonic() - started, f"{type(error).__name__}: {error}")
                raise
            else:
                self._told(step.name, number, time.monotonic() - started, "")
                return artifact
        raise AssertionError("unreachable")


@contextmanager
def within(seconds: float, what: str, *, grace: float = GRACE_SECONDS) -> Iterator[None]:
    """Raises RetryableError in the block when it takes longer. A block that hangs in a library and does not come back within `grace`
    ends the process with exit code 75; what is done is stored. In another thread than the main one there is no limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def alarm(number: int, frame: FrameType | None) -> None:
        raise RetryableError(f"{what} took longer than {seconds:g} s; what is done is stored, the next try goes on from there")

    before = signal.signal(signal.SIGALRM, alarm)
    last_resort = threading.Timer(seconds + grace, os._exit, (EXIT_RETRY,))
    last_resort.daemon = True
    last_resort.start()
    started = time.monotonic()
    waiting, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if waiting:  # somebody else's alarm goes on
            signal.setitimer(signal.ITIMER_REAL, max(waiting - (time.monotonic() - started), 0.001), interval)
        last_resort.cancel()


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM raises `Stopped` in the block; a second one while that unwinds is not heard."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Stopped("stopped by SIGTERM; the same command goes on from here")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
