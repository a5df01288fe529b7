"""The published features are what the online reader returns, before, during and after a publish."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from feature_store.online import FeastOnlineFeatures
from feature_store.online_store import SHARED_METRICS
from feature_store.publish import current_version, publish
from recsys.errors import DataError, RetryableError

USERS: dict[str, list[str]] = {"196": ["c", "a", "b"], "7": ["z"], "empty": []}


def user_state(rows: dict[str, list[str]], timestamp: object = 874_724_710) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": list(rows),
            "recent_item_ids": list(rows.values()),
            "n_interactions": [len(items) for items in rows.values()],
            "last_timestamp": [timestamp] * len(rows),
        },
        schema_overrides={"recent_item_ids": pl.List(pl.String)},
    )


def item_attributes(n: int = 3) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "item_id": [f"i{k}" for k in range(n)],
            "title": [f"Title {k}" for k in range(n)],
            "categories": [["Comedy", "Action"]] * n,
            "n_interactions": list(range(n)),
            "embedding_space": ["0123456789abcdef"] * n,
        }
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("features")
    publish(root, user_state(USERS), item_attributes())
    return root


def feast_store(root: Path) -> Any:
    from feast import FeatureStore

    return FeatureStore(repo_path=str(root / "versions" / (current_version(root) or "")))


def test_round_trip_keeps_the_order(published: Path) -> None:
    features = FeastOnlineFeatures(published)
    assert {user: features.history(user) for user in USERS} == USERS
    assert features.version == current_version(published)


def test_an_unknown_user_is_none_and_not_empty(published: Path) -> None:
    features = FeastOnlineFeatures(published)
    assert features.history("nobody") is None
    assert features.history("") is None
    assert features.history("empty") == []


def test_the_views_and_the_service_are_registered(published: Path) -> None:
    store = feast_store(published)
    views = {"user_state", "item_attributes", "item_popularity", "item_vectors"}
    assert {view.name for view in store.list_feature_views()} == views
    assert {entity.name for entity in store.list_entities()} >= {"user", "item"}
    assert {p.name for p in store.get_feature_service("ranker_v1").feature_view_projections} == views


def test_item_attributes_and_old_timestamps_are_materialised(published: Path) -> None:
    store = feast_store(published)
    names = ["item_attributes:title", "item_attributes:categories", "item_attributes:n_interactions", "item_attributes:embedding_space"]
    row = store.get_online_features(features=names, entity_rows=[{"item_id": "i2"}]).to_dict()
    assert row == {
        "item_id": ["i2"],
        "title": ["Title 2"],
        "categories": [["Comedy", "Action"]],
        "n_interactions": [2],
        "embedding_space": ["0123456789abcdef"],
    }
    state = store.get_online_features(features=["user_state:last_timestamp"], entity_rows=[{"user_id": "196"}]).to_dict()
    assert state["last_timestamp"][0] == datetime.fromtimestamp(874_724_710, UTC)


def test_seconds_and_datetimes_give_the_same_timestamp(tmp_path: Path) -> None:
    publish(tmp_path, user_state({"1": ["a"]}, datetime.fromtimestamp(874_724_710, UTC)), item_attributes())
    state = feast_store(tmp_path).get_online_features(features=["user_state:last_timestamp"], entity_rows=[{"user_id": "1"}]).to_dict()
    assert state["last_timestamp"][0] == datetime.fromtimestamp(874_724_710, UTC)


def test_publishing_again_replaces_users_and_keeps_no_third_version(tmp_path: Path) -> None:
    publish(tmp_path, user_state({"1": ["a"], "2": ["b"]}), item_attributes())
    features = FeastOnlineFeatures(tmp_path)
    assert features.history("2") == ["b"]
    for last in ("c", "d"):
        publish(tmp_path, user_state({"1": ["a", last]}), item_attributes())
        assert features.history("1") == ["a", last]
        assert features.history("2") is None
    assert len(list((tmp_path / "versions").iterdir())) == 2


def test_a_failed_publish_leaves_the_old_version_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, user_state({"1": ["a"]}), item_attributes())
    before = current_version(tmp_path)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("feature_store.publish.pq.write_table", full_disk)
    with pytest.raises(OSError, match="No space"):
        publish(tmp_path, user_state({"1": ["b"]}), item_attributes())
    assert current_version(tmp_path) == before
    assert [folder.name for folder in (tmp_path / "versions").iterdir()] == [before]
    assert FeastOnlineFeatures(tmp_path).history("1") == ["a"]


def test_nothing_is_written_into_the_package(published: Path) -> None:
    import feature_store

    assert not list(Path(feature_store.__file__ or "").parent.rglob("*.db"))


FRESH = """
import os, sys
from pathlib import Path
from feature_store.online import FeastOnlineFeatures
from feature_store.online_store import SHARED_METRICS
from feature_store.publish import publish
from tests.unit.feature_store.test_feature_store import item_attributes, user_state

published, new = map(Path, sys.argv[1:])
if published.is_dir():
    assert FeastOnlineFeatures(published).history("7") == ["z"]
else:
    publish(new, user_state({"1": ["a"]}), item_attributes())
assert "feast.metrics" in sys.modules and not set(SHARED_METRICS) & set(os.environ)
"""


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "publishing"])
def test_the_metrics_of_the_process_are_left_alone(published: Path, tmp_path: Path, reads: bool) -> None:
    """In a process that has done nothing else yet: there Feast imports its metrics now."""
    environment = {name: value for name, value in os.environ.items() if name not in SHARED_METRICS}
    command = [sys.executable, "-c", FRESH, published if reads else tmp_path / "none", tmp_path / "new"]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_output_of_feast(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    publish(tmp_path, user_state({"1": ["a"]}), item_attributes())
    FeastOnlineFeatures(tmp_path).history("1")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("recent_item_ids"), r"missing columns \['recent_item_ids'\]"),
        (lambda f: f.with_columns(pl.lit(None, dtype=pl.String).alias("user_id")), "'user_id' has 3 nulls, the first in row 0"),
        (lambda f: pl.concat([f, f.head(1)]), "user_id '196' occurs more than once"),
        (lambda f: f.head(0), "no rows"),
        (lambda f: f.with_columns(pl.lit("many").alias("n_interactions")), "expected"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        publish(tmp_path, change(user_state(USERS)), item_attributes())
    assert current_version(tmp_path) is None


def test_missing_titles_and_categories_become_empty(tmp_path: Path) -> None:
    frame = item_attributes().with_columns(pl.lit(None, dtype=pl.String).alias("title"), pl.lit(None, dtype=pl.List(pl.String)).alias("categories"))
    publish(tmp_path, user_state({"1": ["a"]}), frame)
    row = feast_store(tmp_path).get_online_features(features=["item_attributes:title"], entity_rows=[{"item_id": "i0"}]).to_dict()
    assert row["title"] == [""]


def test_a_store_that_cannot_be_read_is_retryable(tmp_path: Path) -> None:
    with pytest.raises(RetryableError, match="cannot be read"):
        FeastOnlineFeatures(tmp_path).history("1")
    done = publish(tmp_path, user_state({"1": ["a"]}), item_attributes())
    (done.path / "data" / "online_store.db").write_bytes(b"no database at all" * 300)
    with pytest.raises(RetryableError, match="cannot be read"):
        FeastOnlineFeatures(tmp_path).history("1")
    publish(tmp_path, user_state({"1": ["a"]}), item_attributes())
    assert FeastOnlineFeatures(tmp_path).history("1") == ["a"]


def test_two_publishers_at_once_are_told_apart(tmp_path: Path) -> None:
    from feature_store.publish import _publisher_lock

    with _publisher_lock(tmp_path), pytest.raises(RetryableError, match="another process"):
        publish(tmp_path, user_state({"1": ["a"]}), item_attributes())


def test_readers_during_publishes_see_one_version_whole(tmp_path: Path) -> None:
    """In version k both users hold exactly item k; a reader never meets an error or an older item after a newer one."""

    def rows(k: int) -> dict[str, list[str]]:
        return {"1": [str(k)] * 50, "2": [str(k)] * 50}

    publish(tmp_path, user_state(rows(0)), item_attributes())
    features = FeastOnlineFeatures(tmp_path)
    stop = threading.Event()
    seen: list[list[int]] = [[], []]
    errors: list[Exception] = []

    def read(user: str, into: list[int]) -> None:
        try:
            while not stop.is_set():
                history = features.history(user) or []
                assert len(history) == 50 and len(set(history)) == 1
                into.append(int(history[0]))
                time.sleep(0.0005)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=read, args=(user, into)) for user, into in zip(("1", "2"), seen, strict=True)]
    for thread in threads:
        thread.start()
    try:
        for k in range(1, 5):
            publish(tmp_path, user_state(rows(k)), item_attributes())
        time.sleep(0.2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    for values in seen:
        assert values == sorted(values) and values[-1] == 4


def test_a_whole_data_set_publishes_in_seconds_and_reads_in_milliseconds(tmp_path: Path) -> None:
    rng = random.Random(3)
    rows = {str(k): [str(rng.randrange(1682)) for _ in range(100)] for k in range(943)}
    done = publish(tmp_path, user_state(rows), item_attributes(1682))
    assert (done.n_users, done.n_items) == (943, 1682)
    assert done.seconds < 30  # 0.5 s on two idle cores
    features = FeastOnlineFeatures(tmp_path)
    features.history("0")
    started = time.perf_counter()
    assert all(features.history(user) == rows[user] for user in list(rows)[:200])
    assert (time.perf_counter() - started) / 200 < 0.02  # 0.1 ms on two idle cores
