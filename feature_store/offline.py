"""Training sets: what was known of users and items at the moment of each event, and nothing later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from feature_store.online_store import open_store, quiet
from feature_store.publish import current_version
from feature_store.tables import EVENT_TIMESTAMP
from recsys.errors import DataError

ROW = "__row"


def training_set(root: Path, events: pl.DataFrame, features: Sequence[str] | str = "ranker_v1") -> pl.DataFrame:
    """Point-in-time join: `events` with the columns of `features`, as they were at each row's `event_timestamp`.

    events: `user_id` str, `item_id` str, `event_timestamp` datetime UTC, and any other columns (labels), which stay.
    features: name of a feature service, or references such as "user_state:recent_item_ids". Null where nothing was known yet; of two
        views with one name for a feature the second is called `feature__view`.

    Raises:
        DataError: nothing is published, or a column of `events` is missing.
    """
    version = current_version(root)
    if version is None:
        raise DataError(f"{root}: no features are published; run the pipeline first")
    missing = [name for name in ("user_id", "item_id", EVENT_TIMESTAMP) if name not in events.columns]
    if missing:
        raise DataError(f"events lack the columns {missing}; found {events.columns}")
    numbered = events.with_row_index(ROW)
    found = numbered
    with quiet():
        store = open_store(root / "versions" / version)
        refs = _refs_of(store, features) if isinstance(features, str) else list(features)
        # A view at a time: Feast leaves out rows that a view knows nothing of yet, and with them what the other views do know.
        for view in dict.fromkeys(ref.partition(":")[0] for ref in refs):
            own = [ref for ref in refs if ref.startswith(f"{view}:")]
            joined = pl.from_arrow(store.get_historical_features(entity_df=numbered.to_pandas(), features=own).to_arrow())
            assert isinstance(joined, pl.DataFrame)
            wanted = joined.select(pl.col(ROW).cast(found.schema[ROW]), *(ref.partition(":")[2] for ref in own))
            found = found.join(wanted, on=ROW, how="left", maintain_order="left", suffix=f"__{view}")
    return found.drop(ROW)


def _refs_of(store: Any, service: str) -> list[str]:
    projections = store.get_feature_service(service).feature_view_projections
    return [f"{projection.name}:{feature.name}" for projection in projections for feature in projection.features]
