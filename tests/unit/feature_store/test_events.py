"""Live events change the next answer, and are in every version that is published before a batch holds them; training sets see no future."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from feature_store.journal import Journal
from feature_store.offline import training_set
from feature_store.online import FeastOnlineFeatures
from feature_store.publish import activate, current_version, prepare, publish, with_vectors
from feature_store.tables import FeatureTables, ItemVectors
from feature_store.verify import live_space, require_same_space, verify
from recsys.errors import DataError, RetryableError, SpaceMismatchError
from recsys.serving.features import Event, TakesEvents

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def at(hours: float) -> float:
    return (NOON + timedelta(hours=hours)).timestamp()


def users(**rows: tuple[list[str], float]) -> pl.DataFrame:
    """user_id=(items, hour of the last one)."""
    last = [NOON + timedelta(hours=hours) for _, hours in rows.values()]
    items = [items for items, _ in rows.values()]
    columns = {"user_id": list(rows), "recent_item_ids": items, "n_interactions": [len(each) for each in items], "last_timestamp": last}
    return pl.DataFrame(columns, schema_overrides={"recent_item_ids": pl.List(pl.String)})


def items(n: int = 3) -> pl.DataFrame:
    ids = [f"i{k}" for k in range(n)]
    return pl.DataFrame({"item_id": ids, "title": ids, "categories": [["x"]] * n, "n_interactions": [1] * n, "embedding_space": ["words=s"] * n})


def vectors(space: str, n: int = 3) -> ItemVectors:
    return ItemVectors([f"i{k}" for k in range(n)], np.arange(2 * n, dtype=np.float32).reshape(n, 2), space)


def test_a_pushed_event_is_in_the_next_answer(tmp_path: Path) -> None:
    publish(tmp_path, users(u=(["a"], 0)), items())
    features = FeastOnlineFeatures(tmp_path)
    assert isinstance(features, TakesEvents)
    features.push([Event("u", "b", at(1)), Event("new", "c", at(1)), Event("u", "a", at(1))])
    features.push([Event("u", "d", at(1))])
    assert (features.history("u"), features.history("new")) == (["a", "b", "a", "d"], ["c"])
    assert FeastOnlineFeatures(tmp_path).history("u") == ["a", "b", "a", "d"]


def test_a_new_version_keeps_events_that_its_batch_does_not_hold(tmp_path: Path) -> None:
    publish(tmp_path, users(u=(["a"], 0)), items())
    features = FeastOnlineFeatures(tmp_path)
    features.push([Event("u", "b", at(1)), Event("u", "c", at(3)), Event("new", "z", at(3))])
    publish(tmp_path, users(u=(["a", "b"], 1), v=(["q"], 1)), items())
    assert [features.history(user) for user in ("u", "v", "new")] == [["a", "b", "c"], ["q"], ["z"]]
    publish(tmp_path, users(u=(["a", "b", "c"], 3), new=(["z"], 3)), items())
    assert [features.history(user) for user in ("u", "v", "new")] == [["a", "b", "c"], None, ["z"]]
    assert Journal(tmp_path).events() == []


def test_activating_again_changes_nothing(tmp_path: Path) -> None:
    publish(tmp_path, users(u=(["a"], 0)), items())
    FeastOnlineFeatures(tmp_path).push([Event("u", "b", at(1))])
    done = prepare(tmp_path, FeatureTables(users(u=(["a"], 0)), items()))
    staged = FeastOnlineFeatures(tmp_path, done.version)
    assert staged.history("u") == ["a"] and current_version(tmp_path) != done.version
    for _ in range(3):
        activate(tmp_path, done.version)
        assert FeastOnlineFeatures(tmp_path).history("u") == ["a", "b"]
    with pytest.raises(DataError, match="read only"):
        staged.push([Event("u", "c", at(2))])
    with pytest.raises(DataError, match="no such version"):
        activate(tmp_path, "20990101T000000-00000000")


def test_a_torn_line_of_the_journal_costs_one_event(tmp_path: Path) -> None:
    publish(tmp_path, users(u=(["a"], 0)), items())
    FeastOnlineFeatures(tmp_path).push([Event("u", "b", at(1))])
    with (tmp_path / "pushed.jsonl").open("a") as file:
        file.write('["u", "to')
    FeastOnlineFeatures(tmp_path).push([Event("u", "c", at(2))])
    publish(tmp_path, users(u=(["a"], 0)), items())
    assert FeastOnlineFeatures(tmp_path).history("u") == ["a", "b", "c"]


def test_events_of_many_threads_are_all_there(tmp_path: Path) -> None:
    publish(tmp_path, users(u=([], 0)), items())
    readers = [FeastOnlineFeatures(tmp_path) for _ in range(2)]

    def send(number: int) -> None:
        for k in range(5):
            readers[number % 2].push([Event("u", f"{number}-{k}", at(number + k / 10))])

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = readers[0].history("u") or []
    assert sorted(history) == sorted(f"{n}-{k}" for n in range(4) for k in range(5))
    for n in range(4):
        assert [item for item in history if item.startswith(f"{n}-")] == [f"{n}-{k}" for k in range(5)]


def test_events_before_the_first_publish_ask_to_be_sent_again(tmp_path: Path) -> None:
    with pytest.raises(RetryableError, match="cannot be read or written"):
        FeastOnlineFeatures(tmp_path).push([Event("u", "b", at(1))])
    FeastOnlineFeatures(tmp_path).push([])


def test_training_sets_do_not_see_the_future(tmp_path: Path) -> None:
    """The state after the event to be predicted, and a popularity of the day after, are planted; the join must not take them."""
    past = pl.concat([users(u=(["a"], -30)), users(u=(["a", "b"], -2)), users(u=(["a", "b", "FUTURE"], 0))])
    popularity = pl.DataFrame(
        {"item_id": ["i1"] * 2, "n_1d": [1, 99], "n_7d": [2, 99], "n_30d": [3, 99], "event_timestamp": [NOON - timedelta(hours=12), NOON + timedelta(hours=12)]}
    )
    activate(tmp_path, prepare(tmp_path, FeatureTables(past, items(), popularity)).version)
    moments = [NOON - timedelta(hours=31), NOON - timedelta(hours=2), NOON - timedelta(hours=1), NOON, NOON + timedelta(hours=1)]
    asked = pl.DataFrame({"user_id": ["u"] * 5, "item_id": ["i1"] * 5, "label": range(5), "event_timestamp": moments})
    refs = ["user_state:recent_item_ids", "user_state:n_interactions", "item_popularity:n_7d"]
    found = training_set(tmp_path, asked, refs)
    assert found["label"].to_list() == [0, 1, 2, 3, 4]
    assert [None if row is None else list(row) for row in found["recent_item_ids"].to_list()] == [None, ["a"], ["a", "b"], ["a", "b"], ["a", "b", "FUTURE"]]
    assert found["n_7d"].to_list() == [None, 2, 2, 2, 2]
    assert FeastOnlineFeatures(tmp_path).history("u") == ["a", "b", "FUTURE"]
    everything = training_set(tmp_path, asked)
    assert everything["n_interactions"].to_list() == [None, 1, 2, 2, 3] and everything["n_interactions__item_attributes"].null_count() == 5
    with pytest.raises(DataError, match=r"lack the columns \['event_timestamp'\]"):
        training_set(tmp_path, asked.drop("event_timestamp"), refs)


def problems(root: Path, space: str | None) -> list[str]:
    return [check.problem for check in verify(root, space) if check.problem]


def test_verify_compares_spaces_states_and_definitions(tmp_path: Path) -> None:
    assert "holds no features" in problems(tmp_path, None)[0]
    tables = FeatureTables(users(u=(["a"], 0)), items(), item_vectors=vectors("space-1"), ranker="ranker_space-1", spaces={"fused": "space-1"})
    activate(tmp_path, prepare(tmp_path, tables).version)
    FeastOnlineFeatures(tmp_path).push([Event("u", "b", at(1))])
    assert problems(tmp_path, "space-1") == []
    assert "the snapshot scores in space space-2, the store holds space-1" in problems(tmp_path, "space-2")[0]
    with pytest.raises(SpaceMismatchError, match="publish again"):
        require_same_space(tmp_path, "space-2")
    with_vectors(tmp_path, vectors("space-2"))
    assert live_space(tmp_path) == "space-2" and problems(tmp_path, "space-2") == []
    assert FeastOnlineFeatures(tmp_path).history("u") == ["a", "b"]
    require_same_space(tmp_path, "space-2")


def test_a_service_of_each_ranker_version(tmp_path: Path) -> None:
    from feature_store.online_store import open_store

    done = prepare(tmp_path, FeatureTables(users(u=(["a"], 0)), items(), item_vectors=vectors("s1"), ranker="ranker_s1", spaces={"fused": "s1", "words": "w"}))
    service = open_store(done.path).get_feature_service("ranker_s1")
    assert service.tags == {"space.fused": "s1", "space.words": "w"}
    answer = open_store(done.path).get_online_features(features=["item_vectors:vector"], entity_rows=[{"item_id": "i2"}]).to_dict()
    assert answer["vector"] == [[4.0, 5.0]]
