"""`RequestLog`: what was shown to whom, at which place and with which chance, as Parquet files for off-policy evaluation.

One row an item shown: time, request_id, model, version, user (hash, or the id where that was asked for; null without one), step, explored,
item_id, rank, score, propensity. Rows wait in memory until a file is full or old enough; a kill loses those. A full disk loses rows, and
counts them, but never an answer.
"""

from __future__ import annotations

import hashlib
import io
import logging
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy.typing as npt
import polars as pl

from recsys.artifacts.atomic import write_bytes
from recsys.serving.metrics import Metrics
from recsys.serving.person import Person

ROWS, SECONDS, MOST_ROWS = 50_000, 10.0, 500_000
SALT = "salt"
SCHEMA = {
    "time": pl.Float64, "request_id": pl.String, "model": pl.String, "version": pl.String, "user": pl.String, "step": pl.String, "explored": pl.Boolean,
    "item_id": pl.String, "rank": pl.Int32, "score": pl.Float32, "propensity": pl.Float64,
}  # fmt: skip
_log = logging.getLogger(__name__)


class RequestLog:
    """A thread of its own writes. folder: is made where it is missing; its `salt` keeps one hash a user over restarts."""

    def __init__(self, folder: Path, metrics: Metrics, *, ids: bool = False, rows: int = ROWS, seconds: float = SECONDS) -> None:
        self._folder, self._metrics, self._ids, self._limit, self._seconds = folder, metrics, ids, rows, seconds
        self._salt = _salt(folder)
        self._waiting: list[tuple[Any, ...]] = []
        self._lock, self._wake, self._closing = threading.Lock(), threading.Event(), False
        self._writer = threading.Thread(target=self._work, name="request-log", daemon=True)
        self._writer.start()

    def add(
        self, request_id: str, model: str, version: str, person: Person, items: Sequence[Mapping[str, Any]], chances: npt.NDArray[Any], explored: bool
    ) -> None:
        user = None if person.user_id is None else person.user_id if self._ids else self._hashed(person.user_id)
        head = (time.time(), request_id, model, version, user, person.step, explored)
        new = [(*head, item["item_id"], item["rank"], item["score"], chance) for item, chance in zip(items, chances.tolist(), strict=True)]
        with self._lock:
            room = max(0, MOST_ROWS - len(self._waiting))
            self._waiting += new[:room]
            full = len(self._waiting) >= self._limit
        if len(new) > room:
            self._metrics.logged.labels("dropped").inc(len(new) - room)
        if full:
            self._wake.set()

    def flush(self) -> None:
        """Write what waits. An error of the disk is logged and counted."""
        with self._lock:
            rows, self._waiting = self._waiting, []
        if not rows:
            return
        try:
            buffer = io.BytesIO()
            pl.DataFrame(rows, schema=SCHEMA, orient="row").write_parquet(buffer)
            write_bytes(self._folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}.parquet", buffer.getvalue())
        except OSError as error:
            self._metrics.logged.labels("dropped").inc(len(rows))
            _log.error("the request log cannot be written, %d rows are lost: %s", len(rows), error)
        else:
            self._metrics.logged.labels("written").inc(len(rows))

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        self._writer.join(timeout=30)

    def _work(self) -> None:
        while not self._closing:
            self._wake.wait(self._seconds)
            self._wake.clear()
            self.flush()
        self.flush()

    def _hashed(self, user_id: str) -> str:
        return hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), key=self._salt, digest_size=12).hexdigest()


def _salt(folder: Path) -> bytes:
    path = folder / SALT
    if not path.is_file():
        write_bytes(path, secrets.token_bytes(32))
    return path.read_bytes()[:64]
