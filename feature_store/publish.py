"""Publish features: Parquet sources, registry and online store of one version, then one switch.

Layout under `root`: `versions/<name>/` is a whole Feast repository (feature_store.yaml, data/), `current` is a file
that holds the name of the live one. A version never changes once `current` names it, so that a reader sees the old
features or the new ones and no mixture.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import shutil
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.artifacts.atomic import fsync_folder, write_bytes
from recsys.errors import DataError, RetryableError

USER_STATE = pa.schema(
    [
        ("user_id", pa.string()),
        ("recent_item_ids", pa.list_(pa.string())),
        ("n_interactions", pa.int64()),
        ("last_timestamp", pa.timestamp("us", tz="UTC")),
    ]
)
ITEM_ATTRIBUTES = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("n_interactions", pa.int64()),
        ("embedding_space", pa.string()),
    ]
)
EVENT_TIMESTAMP = "event_timestamp"
CURRENT = "current"
# Feast wants a range: before any real event, after any real event. Old data sets must not fall out of it.
BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)
END = datetime(2200, 1, 1, tzinfo=UTC)


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
    """Make a new version under `root` from the two tables, and switch to it.

    user_state: `user_id` str, `recent_item_ids` list[str] (oldest first), `n_interactions` int, `last_timestamp`
        datetime or Unix seconds. One row a user.
    item_attributes: `item_id` str, `title` str, `categories` list[str], `n_interactions` int, `embedding_space` str.
        One row an item. Nulls in `title` and `categories` become empty.

    Raises:
        DataError: a missing column, a null, an id that occurs twice, a wrong type; nothing is published.
        RetryableError: another process is publishing to `root`.
    """
    started = time.perf_counter()
    root = root.absolute()
    users = _users_table(user_state)
    items = _items_table(item_attributes)
    with _publisher_lock(root):
        version = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        path = root / "versions" / version
        previous = current_version(root)
        try:
            _build(path, users, items)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        write_bytes(root / CURRENT, version.encode())
        _remove_versions(root, keep={version, previous})
    return PublishedFeatures(root, version, path, len(users), len(items), time.perf_counter() - started)


def current_version(root: Path) -> str | None:
    """Name of the live version; None before the first publish."""
    try:
        return (root / CURRENT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def _users_table(frame: pl.DataFrame) -> pa.Table:
    _require_columns("user_state", frame, USER_STATE)
    if frame["last_timestamp"].dtype.is_numeric():
        microseconds = (pl.col("last_timestamp").cast(pl.Float64) * 1e6).round().cast(pl.Int64)
        frame = frame.with_columns(microseconds.cast(pl.Datetime("us", "UTC")).alias("last_timestamp"))
    table = _arrow("user_state", frame, USER_STATE, key="user_id")
    return table.append_column(EVENT_TIMESTAMP, table["last_timestamp"])


def _items_table(frame: pl.DataFrame) -> pa.Table:
    _require_columns("item_attributes", frame, ITEM_ATTRIBUTES)
    filled = frame.with_columns(pl.col("title").fill_null(""), pl.col("categories").fill_null(pl.lit([], dtype=pl.List(pl.String))))
    table = _arrow("item_attributes", filled, ITEM_ATTRIBUTES, key="item_id")
    now = pa.array([datetime.now(UTC)] * len(table), type=pa.timestamp("us", tz="UTC"))
    return table.append_column(EVENT_TIMESTAMP, now)


def _require_columns(name: str, frame: pl.DataFrame, schema: pa.Schema) -> None:
    missing = [column for column in schema.names if column not in frame.columns]
    if missing:
        raise DataError(f"{name}: missing columns {missing}; expected {schema.names}, found {frame.columns}")
    if frame.is_empty():
        raise DataError(f"{name}: no rows to publish")


def _arrow(name: str, frame: pl.DataFrame, schema: pa.Schema, *, key: str) -> pa.Table:
    """`frame` with exactly the types of `schema`; no nulls, one row a key."""
    for column in schema.names:
        nulls = frame[column].null_count()
        if nulls:
            row = int(frame[column].is_null().arg_true()[0])
            raise DataError(f"{name}: column {column!r} has {nulls} nulls, the first in row {row}")
    twice = frame[key].filter(frame[key].is_duplicated())
    if len(twice):
        raise DataError(f"{name}: {key} {twice[0]!r} occurs more than once")
    try:
        return frame.select(schema.names).to_arrow().cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise DataError(f"{name}: {error}; expected {_described(schema)}") from None


def _described(schema: pa.Schema) -> Mapping[str, str]:
    return {field.name: str(field.type) for field in schema}


def _build(path: Path, users: pa.Table, items: pa.Table) -> None:
    (path / "data").mkdir(parents=True)
    shutil.copyfile(Path(__file__).with_name("feature_store.yaml"), path / "feature_store.yaml")
    pq.write_table(users, path / "data" / "user_state.parquet")
    pq.write_table(items, path / "data" / "item_attributes.parquet")
    with _quiet():
        from feast import FeatureStore

        from feature_store import definitions

        store: Any = FeatureStore(repo_path=str(path))
        store.apply(
            [
                definitions.user,
                definitions.item,
                definitions.user_state_source,
                definitions.item_attributes_source,
                definitions.user_state,
                definitions.item_attributes,
                definitions.ranker_v1,
            ]
        )
        store.materialize(start_date=BEGINNING, end_date=END)
    for folder in (path / "data", path, path.parent):
        fsync_folder(folder)


def _remove_versions(root: Path, *, keep: set[str | None]) -> None:
    """The version before the live one stays: a reader may be between reading `current` and opening the files."""
    for folder in (root / "versions").iterdir():
        if folder.name not in keep:
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Feast prints what it does, with a progress bar of its own, and warns of pandas and dask internals."""
    chatter = io.StringIO()
    level = logging.getLogger("feast").level
    with warnings.catch_warnings(), contextlib.redirect_stdout(chatter), contextlib.redirect_stderr(chatter):
        warnings.simplefilter("ignore")
        logging.getLogger("feast").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("feast").setLevel(level)
