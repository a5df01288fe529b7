"""The splits: the tie rule, the hash, the cold cases and the absence of leaks."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.interactions import Interactions
from recsys.data.split import Split, SplitConfig, make_split
from recsys.data.vocabulary import Vocabulary
from recsys.errors import DataError


def interactions(events: list[tuple[str, str, int]]) -> Interactions:
    frame = pl.DataFrame(events, schema={"user_id": pl.String, "item_id": pl.String, "time": pl.Int64}, orient="row")
    return Interactions.of_frame(frame, Vocabulary(sorted({item for _, item, _ in events})))


events = st.lists(st.tuples(st.sampled_from("uvwxy"), st.sampled_from("abcdefgh"), st.integers(0, 5)), min_size=12, max_size=60)


def test_leave_last_out_by_hand_with_a_tie_at_the_end() -> None:
    # c and d share the last time: the file order decides, so d is the test target
    split = make_split(SplitConfig(), interactions([("u", "b", 2), ("u", "a", 1), ("u", "c", 9), ("u", "d", 9)]))
    assert split.items.ids_of(split.train[0]) == ["a", "b"]
    assert split.items.ids_of(split.validation.targets) == ["c"]
    assert split.items.ids_of(split.test.targets) == ["d"]
    assert split.items.ids_of(split.test.inputs[0]) == ["a", "b", "c"]


def test_users_with_too_few_events_train_and_are_not_evaluated() -> None:
    split = make_split(SplitConfig(), interactions([("u", "a", 1), ("u", "b", 2), ("v", "a", 1), ("v", "b", 2), ("v", "c", 3)]))
    assert [len(row) for row in split.train] == [2, 1]
    assert split.test.user_nums.tolist() == [1]


def test_nothing_to_evaluate_is_an_error() -> None:
    with pytest.raises(DataError, match="3 events or more"):
        make_split(SplitConfig(), interactions([("u", "a", 1)]))


def test_the_hash_is_a_golden_value() -> None:
    """Two machines must agree: the value was computed once and stands here."""
    split = make_split(SplitConfig(), interactions([("u", "a", 1), ("u", "b", 2), ("u", "c", 3)]))
    assert split.digest == "b89b4a2c9846cd9198ac1a81f804974af208621391f34b8b83d2b110f4f3267d"


@given(events)
@settings(max_examples=60, deadline=None)
def test_shuffling_the_file_changes_nothing_when_no_times_tie(rows: list[tuple[str, str, int]]) -> None:
    rows = [(user, item, position) for position, (user, item, _) in enumerate(rows)]
    try:
        expected = make_split(SplitConfig(), interactions(rows))
    except DataError:
        return
    users = Vocabulary(expected.users.ids)
    frame = pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.String, "time": pl.Int64}, orient="row").sample(fraction=1, shuffle=True, seed=1)
    assert make_split(SplitConfig(), Interactions.of_frame(frame, expected.items, users)).digest == expected.digest


@given(events)
@settings(max_examples=60, deadline=None)
def test_no_target_leaks_into_training(rows: list[tuple[str, str, int]]) -> None:
    """Times are made unique, so that each (user, time) is one event and can be followed."""
    rows = [(user, item, position) for position, (user, item, _) in enumerate(rows)]
    for config in (SplitConfig(), SplitConfig(protocol="held_out_items", held_out_share=0.3)):
        data = interactions(rows)
        try:
            split = make_split(config, data)
        except DataError:
            continue
        for row, user_num in enumerate(split.test.user_nums):
            whole = data.sequences()[user_num]
            warm = whole[~split.held_out[whole]]
            assert split.train[user_num].tolist() == warm[:-2].tolist()
            assert split.validation.inputs[row].tolist() == warm[:-2].tolist()
            assert split.test.inputs[row].tolist() == warm[:-1].tolist()
            assert [split.validation.targets[row], split.test.targets[row]] == warm[-2:].tolist()
        assert not split.held_out[split.train.item_nums].any()
        assert not split.held_out[split.cold.inputs.item_nums].any()
        assert split.held_out[split.cold.targets].all()


def test_held_out_items_do_not_depend_on_row_order() -> None:
    rows = [(f"u{i % 7}", f"i{i % 20:02d}", i) for i in range(200)]
    config = SplitConfig(protocol="held_out_items", held_out_share=0.2, seed=3)
    first = make_split(config, interactions(rows))
    relabelled = Interactions.of_frame(pl.DataFrame(rows, schema=["user_id", "item_id", "time"], orient="row"), Vocabulary(first.items.ids[::-1]))
    second = make_split(config, relabelled)
    assert set(first.items.ids_of(np.flatnonzero(first.held_out))) == set(second.items.ids_of(np.flatnonzero(second.held_out)))
    assert first.held_out.sum() == 4


def test_round_trip(tmp_path: Path) -> None:
    rows = [(f"u{i % 7}", f"i{i % 20:02d}", i) for i in range(200)]
    split = make_split(SplitConfig(protocol="held_out_items"), interactions(rows))
    split.save(tmp_path)
    loaded = Split.load(tmp_path)
    assert loaded.digest == split.digest
    assert loaded.users == split.users and loaded.items == split.items
    for mine, theirs in ((split.test, loaded.test), (split.cold, loaded.cold)):
        assert mine.targets.tolist() == theirs.targets.tolist()
        assert [row.tolist() for row in mine.seen] == [row.tolist() for row in theirs.seen]
