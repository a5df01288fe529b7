"""From the words of a config to an executor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.executors.base import NO_PROGRESS_SECONDS
from pipelines.executors.local import LocalExecutor
from pipelines.executors.ray_pool import RayExecutor
from recsys.errors import ConfigError


@contextmanager
def make_executor(
    kind: str,
    address: str | None = None,
    workers: int = 1,
    threads: int | None = None,
    *,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
    no_progress_seconds: float = NO_PROGRESS_SECONDS,
) -> Iterator[LocalExecutor | RayExecutor]:
    """ "local" or "ray"; Ray starts with the first content that is missing, and stops at the end."""
    if kind == "local":
        yield LocalExecutor(no_progress_seconds=no_progress_seconds)
    elif kind == "ray":
        executor = RayExecutor(
            address, workers, threads=threads, cpus_per_worker=cpus_per_worker, gpus_per_worker=gpus_per_worker, no_progress_seconds=no_progress_seconds
        )
        try:
            yield executor
        finally:
            executor.close()
    else:
        raise ConfigError(f"unknown executor {kind!r}; known: local, ray")
