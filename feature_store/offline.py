"""Training sets: what was known of users and items at the moment of each event, and nothing later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from feature_store.online_store import open_store, quiet
from feature_store.publish import current_version
from feature_store.tables import EVENT_TIMESTAMP
from recsys.errors import DataError


def training_set(root: Path, events: pl.DataFrame, features: Sequence[str] | str = "ranker_v1") -> pl.DataFrame:
    """Point-in-time join: `events` with the columns of `features`, as they were at each row's `event_timestamp`.

    events: `user_id` str, `item_id` str, `event_timestamp` datetime UTC, and any other columns (labels), which stay.
    features: name of a feature service, or references such as "user_state:recent_item_ids".

    Raises:
        DataError: nothing is published, or a column of `events` is missing.
    """
    version = current_version(root)
    if version is None:
        raise DataError(f"{root}: no features are published; run the pipeline first")
    missing = [name for name in ("user_id", "item_id", EVENT_TIMESTAMP) if name not in events.columns]
    if missing:
        raise DataError(f"events lack the columns {missing}; found {events.columns}")
    with quiet():
        store = open_store(root / "versions" / version)
        wanted = store.get_feature_service(features) if isinstance(features, str) else list(features)
        numbered = events.with_row_index("__row").to_pandas()
        joined = store.get_historical_features(entity_df=numbered, features=wanted).to_arrow()
    found = pl.from_arrow(joined)
    assert isinstance(found, pl.DataFrame)
    return found.sort("__row").drop("__row")
