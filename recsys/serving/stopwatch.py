"""`Stopwatch`: how long each step of one answer took, for the metrics and for callers who ask."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from recsys.serving.metrics import Metrics


class Stopwatch:
    """arrived: by `time.perf_counter`; what passed since then is the step "queue"."""

    def __init__(self, metrics: Metrics, arrived: float | None = None) -> None:
        self._metrics = metrics
        self._seconds: dict[str, float] = {}
        if arrived is not None:
            self._note("queue", time.perf_counter() - arrived)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._note(name, time.perf_counter() - started)

    def milliseconds(self) -> dict[str, float]:
        return {name: round(1000 * seconds, 3) for name, seconds in self._seconds.items()}

    def _note(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        self._metrics.steps.labels(name).observe(seconds)
