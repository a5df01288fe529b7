"""From clean interactions and a published bundle to the tables of the feature store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import Field

from feature_store.tables import FeatureTables, ItemVectors
from pipelines.ingest import Ingested
from recsys.config import Config
from recsys.serving.bundle import Bundle

LATEST = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp())
WINDOWS = (1, 7, 30)


class FeaturesConfig(Config):
    history_days: Annotated[int, Field(ge=0)] = 0
    """Days before the newest one whose states are kept offline too, for point-in-time joins; 0: the newest state of each user alone."""


def feature_tables(config: FeaturesConfig, data: Ingested, spaces: Mapping[str, str], bundle: Bundle) -> FeatureTables:
    """spaces: signal -> space id of the texts' vectors.  bundle: the model whose item vectors are published beside them."""
    return FeatureTables(
        user_state=user_state(config, data),
        item_attributes=item_attributes(data, spaces),
        item_popularity=item_popularity(config, data),
        item_vectors=vectors_of(bundle),
        ranker=f"ranker_{bundle.space_id}",
        spaces={**bundle.ranker.spaces, "fused": bundle.space_id},
    )


def vectors_of(bundle: Bundle) -> ItemVectors:
    return ItemVectors(bundle.catalog.items.ids, bundle.ranker.items(), bundle.space_id)


def user_state(config: FeaturesConfig, data: Ingested) -> pl.DataFrame:
    """One row a user, and one for each day with events among the last `history_days`: the state after the last of them."""
    events = data.interactions.to_frame()
    grouped = events.group_by("user_id", maintain_order=True)
    state = grouped.agg(recent_item_ids=pl.col("item_id"), n_interactions=pl.len().cast(pl.Int64), last=pl.col("time").max())
    if config.history_days:
        state = pl.concat([_past(events, config.history_days), state]).unique(["user_id", "last"], keep="last", maintain_order=True)
    return state.with_columns(last_timestamp=_as_datetime(pl.col("last"))).drop("last")


def _past(events: pl.DataFrame, days: int) -> pl.DataFrame:
    placed = events.with_columns(day=pl.col("time") // 86_400, place=pl.int_range(1, pl.len() + 1).over("user_id"))
    newest = placed["day"].max()
    ends = placed.group_by("user_id", "day", maintain_order=True).agg(n=pl.col("place").max(), last=pl.col("time").max())
    ends = ends.filter(pl.col("day") >= newest - days)  # type: ignore[operator]
    all_items = events.group_by("user_id", maintain_order=True).agg(all=pl.col("item_id"))
    joined = ends.join(all_items, on="user_id", how="left")
    return joined.select("user_id", recent_item_ids=pl.col("all").list.head(pl.col("n")), n_interactions=pl.col("n").cast(pl.Int64), last="last")


def item_attributes(data: Ingested, spaces: Mapping[str, str]) -> pl.DataFrame:
    counts = data.interactions.sequences().counts(len(data.catalog))
    return pl.DataFrame(
        {
            "item_id": list(data.catalog.items.ids),
            "title": data.catalog.titles(),
            "categories": pl.Series(data.catalog.categories(), dtype=pl.List(pl.String)),
            "n_interactions": counts,
            "embedding_space": [",".join(f"{name}={space}" for name, space in sorted(spaces.items()))] * len(data.catalog),
        }
    )


def item_popularity(config: FeaturesConfig, data: Ingested) -> pl.DataFrame:
    """Interactions of the last 1, 7 and 30 days: of every item at the end of the data, and of those with events on a day at that day's end."""
    events = data.interactions.to_frame().select("item_id", "time")
    end = min(int(data.interactions.times.max()), LATEST - 1) + 1
    ids = pl.DataFrame({"item_id": list(data.catalog.items.ids)})
    moments = [ids.with_columns(moment=pl.lit(end, dtype=pl.Int64))]
    if config.history_days:
        days = events.select("item_id", moment=(pl.col("time") // 86_400 + 1) * 86_400).unique(maintain_order=True)
        moments.append(days.filter((pl.col("moment") < end) & (pl.col("moment") >= end - config.history_days * 86_400)))
    asked = pl.concat(moments)
    # An item without events keeps a row, with a null: its counts are 0.
    joined = asked.with_row_index("row").join(events, on="item_id", how="left")
    age = pl.col("moment") - pl.col("time")
    counted = joined.group_by("row").agg(*(((age > 0) & (age <= days * 86_400)).sum().cast(pl.Int64).alias(f"n_{days}d") for days in WINDOWS))
    timed = asked.with_columns(event_timestamp=_as_datetime(pl.col("moment"))).drop("moment")
    return pl.concat([timed, counted.sort("row").drop("row")], how="horizontal")


def _as_datetime(seconds: pl.Expr) -> pl.Expr:
    """UTC. A source without a clock counts positions: they become seconds of 1970, which keeps their order."""
    return pl.from_epoch(seconds.clip(0, LATEST), time_unit="s").dt.replace_time_zone("UTC").cast(pl.Datetime("us", "UTC"))


def features_root(root: Path) -> Path:
    return root / "feature_store"
