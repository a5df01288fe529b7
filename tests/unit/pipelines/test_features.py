"""The counts of events in the windows that end at a moment, for every item of the catalogue."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from pipelines.features import FeaturesConfig, item_popularity
from pipelines.ingest import Ingested
from recsys.data.catalog import ItemCatalog
from recsys.data.interactions import Interactions

DAY = 86_400
TIMES = {"a": [0, 35 * DAY, 39 * DAY + 7, 40 * DAY], "c": [12 * DAY]}


@pytest.fixture
def data() -> Ingested:
    """Nobody has seen "b"."""
    catalog = ItemCatalog(pl.DataFrame({"item_id": ["b", "c", "a"]}))
    events = pl.DataFrame([("u", item, time) for item, times in TIMES.items() for time in times], schema=["user_id", "item_id", "time"], orient="row")
    return Ingested(Interactions.of_frame(events, catalog.items), catalog)


def test_an_item_that_nobody_has_seen_counts_zero_in_every_window(data: Ingested) -> None:
    found = item_popularity(FeaturesConfig(), data)
    assert found.select("item_id", "n_1d", "n_7d", "n_30d").rows() == [("b", 0, 0, 0), ("c", 0, 0, 1), ("a", 2, 3, 3)]


def test_moments_of_the_past_count_what_was_before_them(data: Ingested) -> None:
    found = item_popularity(FeaturesConfig(history_days=10), data)
    expected = []
    for item, at in found.select("item_id", "event_timestamp").rows():
        age = [(at - datetime.fromtimestamp(time, UTC)).total_seconds() for time in TIMES.get(item, [])]
        expected.append((item, *(sum(0 < a <= days * DAY for a in age) for days in (1, 7, 30))))
    assert found.select("item_id", "n_1d", "n_7d", "n_30d").rows() == expected
    assert len(found) == 3 + 2  # two days of "a" lie within the last ten
