"""The tables that are published: what stands in them, checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import DataError
from recsys.types import FloatArray

TIMESTAMP = pa.timestamp("us", tz="UTC")
USER_STATE = pa.schema(
    [
        ("user_id", pa.string()),
        ("recent_item_ids", pa.list_(pa.string())),
        ("n_interactions", pa.int64()),
        ("last_timestamp", TIMESTAMP),
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
ITEM_POPULARITY = pa.schema([("item_id", pa.string()), ("n_1d", pa.int64()), ("n_7d", pa.int64()), ("n_30d", pa.int64()), ("event_timestamp", TIMESTAMP)])
ITEM_VECTORS = pa.schema([("item_id", pa.string()), ("vector", pa.list_(pa.float32())), ("embedding_space_id", pa.string()), ("event_timestamp", TIMESTAMP)])
EVENT_TIMESTAMP = "event_timestamp"


@dataclass(frozen=True)
class ItemVectors:
    """values: float32 (n, d), row r of item_ids[r], in the space `space_id`."""

    item_ids: Sequence[str]
    values: FloatArray
    space_id: str


@dataclass(frozen=True)
class FeatureTables:
    """user_state: `user_id` str, `recent_item_ids` list[str] (oldest first), `n_interactions` int, `last_timestamp` datetime or Unix
        seconds. One row a user, or several at different times: then the last one is served, the others are its past.
    item_attributes: `item_id` str, `title` str, `categories` list[str], `n_interactions` int, `embedding_space` str. One row an item.
    item_popularity: `item_id` str, `n_1d`, `n_7d`, `n_30d` int, `event_timestamp` datetime.
    ranker: name of the version that these features are for, made a feature service; "": none.  spaces: signal -> space id.
    """

    user_state: pl.DataFrame
    item_attributes: pl.DataFrame
    item_popularity: pl.DataFrame | None = None
    item_vectors: ItemVectors | None = None
    ranker: str = ""
    spaces: Mapping[str, str] = field(default_factory=dict)

    def arrow(self) -> dict[str, pa.Table]:
        """View -> its table, with `event_timestamp`. Raises DataError: a missing column, a null, a key that occurs twice, a wrong type."""
        return {
            "user_state": users_table(self.user_state),
            "item_attributes": items_table(self.item_attributes),
            "item_popularity": _popularity_table(self.item_popularity),
            "item_vectors": vectors_table(self.item_vectors),
        }


def users_table(frame: pl.DataFrame) -> pa.Table:
    _require_columns("user_state", frame, USER_STATE)
    if frame["last_timestamp"].dtype.is_numeric():
        microseconds = (pl.col("last_timestamp").cast(pl.Float64) * 1e6).round().cast(pl.Int64)
        frame = frame.with_columns(microseconds.cast(pl.Datetime("us", "UTC")).alias("last_timestamp"))
    table = _arrow("user_state", frame, USER_STATE, key=["user_id", "last_timestamp"])
    # From the next second on: whoever asks for the state at the moment of an event must not find that event in it.
    return table.append_column(EVENT_TIMESTAMP, pc.add(table["last_timestamp"], pa.scalar(timedelta(seconds=1), type=pa.duration("us"))))


def items_table(frame: pl.DataFrame) -> pa.Table:
    _require_columns("item_attributes", frame, ITEM_ATTRIBUTES)
    filled = frame.with_columns(pl.col("title").fill_null(""), pl.col("categories").fill_null(pl.lit([], dtype=pl.List(pl.String))))
    table = _arrow("item_attributes", filled, ITEM_ATTRIBUTES, key=["item_id"])
    return table.append_column(EVENT_TIMESTAMP, _now(len(table)))


def vectors_table(vectors: ItemVectors | None) -> pa.Table:
    if vectors is None:
        return ITEM_VECTORS.empty_table()
    n, d = vectors.values.shape
    if n != len(vectors.item_ids):
        raise DataError(f"item_vectors: {n} vectors of {len(vectors.item_ids)} items")
    flat = pa.array(vectors.values.reshape(-1), type=pa.float32())
    rows = pa.ListArray.from_arrays(pa.array(range(0, n * d + 1, d), type=pa.int32()), flat) if d else pa.array([[]] * n, type=pa.list_(pa.float32()))
    columns = [pa.array(list(vectors.item_ids), type=pa.string()), rows, pa.array([vectors.space_id] * n, type=pa.string()), _now(n)]
    return pa.Table.from_arrays(columns, schema=ITEM_VECTORS)


def _popularity_table(frame: pl.DataFrame | None) -> pa.Table:
    if frame is None:
        return ITEM_POPULARITY.empty_table()
    _require_columns("item_popularity", frame, ITEM_POPULARITY)
    return _arrow("item_popularity", frame, ITEM_POPULARITY, key=["item_id", EVENT_TIMESTAMP])


def _now(count: int) -> pa.Array:
    return pa.array([datetime.now(UTC)] * count, type=TIMESTAMP)


def _require_columns(name: str, frame: pl.DataFrame, schema: pa.Schema) -> None:
    missing = [column for column in schema.names if column not in frame.columns]
    if missing:
        raise DataError(f"{name}: missing columns {missing}; expected {schema.names}, found {frame.columns}")
    if frame.is_empty():
        raise DataError(f"{name}: no rows to publish")


def _arrow(name: str, frame: pl.DataFrame, schema: pa.Schema, *, key: list[str]) -> pa.Table:
    """`frame` with exactly the types of `schema`; no nulls, one row a key."""
    for column in schema.names:
        nulls = frame[column].null_count()
        if nulls:
            row = int(frame[column].is_null().arg_true()[0])
            raise DataError(f"{name}: column {column!r} has {nulls} nulls, the first in row {row}")
    twice = frame.filter(frame.select(key).is_duplicated())[key[0]]
    if len(twice):
        raise DataError(f"{name}: {key[0]} {twice[0]!r} occurs more than once{' at one time' if len(key) > 1 else ''}")
    try:
        return frame.select(schema.names).to_arrow().cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        expected = {each.name: str(each.type) for each in schema}
        raise DataError(f"{name}: {error}; expected {expected}") from None
