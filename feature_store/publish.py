"""Publish features: Parquet sources, registry and online store of one version, then one switch.

Layout under `root`: `versions/<name>/` is a whole Feast repository (feature_store.yaml, data/), `current` is a file
that holds the name of the live one. A batch is written once, before `current` names it, so that a reader sees the old
features or the new ones and no mixture; only live events change the live version's user state after that.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.journal import Journal, Pushed
from feature_store.online_store import RedisStore, SqliteStore, forget, open_store, quiet, repository
from feature_store.tables import EVENT_TIMESTAMP, FeatureTables, ItemVectors, vectors_table
from recsys.artifacts.atomic import crash_point, fsync_folder, write_bytes
from recsys.errors import DataError, RetryableError

CURRENT = "current"
# Feast wants a range: before any real event. Old data sets must not fall out of it.
BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)
STAMP = timedelta(seconds=1)
"""Feast tells the times of what it holds in whole seconds."""


@dataclass(frozen=True)
class PublishedFeatures:
    """What was published. `path` is the version's own Feast repository."""

    root: Path
    version: str
    path: Path
    n_users: int
    n_items: int
    seconds: float


def publish(root: Path, user_state: pl.DataFrame, item_attributes: pl.DataFrame) -> PublishedFeatures:
    """`prepare` and `activate` of these two tables alone."""
    done = prepare(root, FeatureTables(user_state, item_attributes))
    activate(root, done.version)
    return done


def prepare(root: Path, tables: FeatureTables, store: SqliteStore | RedisStore | None = None) -> PublishedFeatures:
    """Make a new version under `root`. Nobody reads it before `activate`. store: None is SQLite.

    Raises:
        DataError: a missing column, a null, an id that occurs twice, a wrong type; nothing is left behind.
        RetryableError: another process is publishing to `root`.
    """
    started = time.perf_counter()
    root = root.absolute()
    arrow = tables.arrow()
    with _publisher_lock(root):
        version = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        path = root / "versions" / version
        crash_point("build features")
        try:
            _build(path, arrow, repository(store or SqliteStore(), version), tables)
        except BaseException:
            forget(path)
            shutil.rmtree(path, ignore_errors=True)
            raise
        crash_point("features built")
    n_users = len(pc.unique(arrow["user_state"]["user_id"]))
    return PublishedFeatures(root, version, path, n_users, len(arrow["item_attributes"]), time.perf_counter() - started)


def activate(root: Path, version: str) -> None:
    """Switch to a prepared version, with the live events that its batch does not hold yet. Doing it again changes nothing.

    Raises:
        DataError: there is no such version.
    """
    root = root.absolute()
    path = root / "versions" / version
    if not (path / "feature_store.yaml").is_file():
        raise DataError(f"{path}: no such version of the features; publish again")
    journal = Journal(root)
    with _publisher_lock(root), journal.lock():
        previous = current_version(root)
        journal.keep(replay(path, journal.events()))
        write_bytes(root / CURRENT, version.encode())
        _remove_versions(root, keep={version, previous})


def replay(path: Path, events: list[Pushed]) -> list[Pushed]:
    """Write the state of each user with events after its batch: what the batch says, then these. Gives the events that are still needed.

    From the batch, not from the store: a repetition writes the same.
    """
    batch = pl.from_arrow(pq.read_table(path / "data" / "user_state.parquet"))
    assert isinstance(batch, pl.DataFrame)
    users = {event.user_id for event in events}
    last = batch.filter(pl.col("user_id").is_in(list(users))).sort(EVENT_TIMESTAMP).unique("user_id", keep="last", maintain_order=True)
    states = {row["user_id"]: row for row in last.iter_rows(named=True)}
    needed = [e for e in events if e.user_id not in states or e.time > states[e.user_id]["last_timestamp"].timestamp()]
    of_user: dict[str, list[Pushed]] = {}
    for event in needed:
        of_user.setdefault(event.user_id, []).append(event)
    rows = [grown_state(user_id, states.get(user_id), own) for user_id, own in of_user.items()]
    if rows:
        write_states(open_store(path), rows)
    return needed


def grown_state(user_id: str, state: dict[str, Any] | None, events: list[Pushed]) -> dict[str, Any]:
    """The row of `user_state` after more events. state: the row before; None: the user is new."""
    latest = datetime.fromtimestamp(max(event.time for event in events), UTC)
    before = state or {"recent_item_ids": [], "n_interactions": 0, "last_timestamp": latest, EVENT_TIMESTAMP: BEGINNING}
    last = max(latest, before["last_timestamp"])
    return {
        "user_id": user_id,
        "recent_item_ids": [*(before["recent_item_ids"] or []), *(event.item_id for event in events)],
        "n_interactions": before["n_interactions"] + len(events),
        "last_timestamp": last,
        # Later than that of the row before in any case: Redis keeps the newest.
        EVENT_TIMESTAMP: max(last + timedelta(seconds=1), before[EVENT_TIMESTAMP] + STAMP),
    }


def write_states(store: Any, rows: list[dict[str, Any]]) -> None:
    import pandas as pd

    with quiet():
        store.push("user_events", pd.DataFrame(rows))


def with_vectors(root: Path, vectors: ItemVectors) -> PublishedFeatures:
    """A new live version that differs from the live one in its item vectors alone: what a rollback of the model needs.

    Raises:
        DataError: nothing is published yet.
    """
    started = time.perf_counter()
    root = root.absolute()
    live = current_version(root)
    if live is None:
        raise DataError(f"{root}: no features are published; run the pipeline first")
    before = root / "versions" / live
    arrow = {view: pq.read_table(before / "data" / f"{view}.parquet") for view in ("user_state", "item_attributes", "item_popularity")}
    arrow["item_vectors"] = vectors_table(vectors)
    with _publisher_lock(root):
        version = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        path = root / "versions" / version
        document = (before / "feature_store.yaml").read_text(encoding="utf-8")
        _build(path, arrow, document.replace(live.replace("-", "_"), version.replace("-", "_")), None)
    activate(root, version)
    return PublishedFeatures(root, version, path, len(arrow["user_state"]), len(arrow["item_attributes"]), time.perf_counter() - started)


def current_version(root: Path) -> str | None:
    """Name of the live version; None before the first publish."""
    try:
        return (root / CURRENT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def _build(path: Path, arrow: dict[str, pa.Table], repository_file: str, tables: FeatureTables | None) -> None:
    (path / "data").mkdir(parents=True)
    (path / "feature_store.yaml").write_text(repository_file, encoding="utf-8")
    for view, table in arrow.items():
        pq.write_table(table, path / "data" / f"{view}.parquet")
    with quiet():
        from feature_store import definitions
        from feature_store.feature_services import of_ranker

        store = open_store(path)
        services = [of_ranker(tables.ranker, tables.spaces)] if tables is not None and tables.ranker else []
        store.apply([*definitions.ALL, *services])
        newest = max(pc.max(table[EVENT_TIMESTAMP]).as_py() for table in arrow.values() if len(table))
        store.materialize(start_date=BEGINNING, end_date=newest + STAMP, feature_views=[view for view, table in arrow.items() if len(table)])
    for folder in (path / "data", path, path.parent):
        fsync_folder(folder)


def _remove_versions(root: Path, *, keep: set[str | None]) -> None:
    """The version before the live one stays: a reader may be between reading `current` and opening the files."""
    for folder in (root / "versions").iterdir():
        if folder.name not in keep:
            forget(folder)
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _publisher_lock(root: Path) -> Iterator[None]:
    """One publisher at a time; the lock goes with its process."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RetryableError(f"another process is publishing features to {root}; try again when it is done") from None
        yield
