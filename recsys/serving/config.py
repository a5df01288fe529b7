"""Options of the scoring service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from recsys.config import Config


class Limits(Config):
    """What a caller may ask for. Beyond the hard limits of the schemas a request is refused before it is read."""

    body_bytes: Annotated[int, Field(ge=1)] = 2_000_000
    nesting: Annotated[int, Field(ge=2)] = 16
    """Brackets within brackets of a JSON body."""
    batch_pairs: Annotated[int, Field(ge=1)] = 200_000
    """Candidates of all requests of a batch together."""
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    """Of one client address, with bursts of as many; null: no limit."""
    new_items: Annotated[int, Field(ge=1)] = 100_000
    """Items that the overlay may hold."""


class ServiceConfig(Config):
    limits: Limits = Limits()
    workers: Annotated[int, Field(ge=0)] | None = None
    """Threads that score. 0: the event loop itself, which spares each request two changes of threads, the dearest part of a small answer. Null: 0
    where histories are held in memory, 1 where a store is asked for them, which may keep the loop waiting. More than the cores that are free for
    them only make requests wait for each other."""
    queue: Annotated[int, Field(ge=1)] = 64
    """Requests that may wait for a worker; the next is answered 503."""
    deadline_ms: Annotated[float, Field(gt=0)] = 1000.0
    """From arrival to answer, where the request does not state its own. What can still be reached in time is answered: see `degrade`."""
    degrade: bool = True
    """Answer from the user's last vector, then from popularity, when the feature store fails or the deadline is near; each answer names
    its step. False: 503."""
    cached_users: Annotated[int, Field(ge=0)] = 100_000
    """User vectors that are kept."""
    token: Annotated[str, Field(min_length=16)] | None = Field(default=None, repr=False)
    """Callers send `Authorization: Bearer TOKEN`; null: no authentication, and loopback alone."""
    hosts: tuple[str, ...] = ()
    """Values of the Host header that are answered; empty: any."""
    ids_in_logs: bool = False
    """Write user_ids into the log, and into the request log in place of their hash."""
    request_log: Path | None = None
    """Folder of Parquet files with what was shown and how likely that was, for off-policy evaluation; null: none."""
    explore: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the recommendations whose order is drawn at random from the best 2k items; logged with the chance of each place."""
    drain_seconds: Annotated[float, Field(ge=0)] = 0.0
    """After SIGTERM: /readyz says no for so long, while requests are still answered; then the service stops."""
