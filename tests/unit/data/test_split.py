"""The splits: the tie rules, the hash, equality with a plain loop, what is counted, and the absence of leaks."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.interactions import TIE_RULE, UNORDERED_TIE_RULE, Interactions
from recsys.data.leaks import assert_no_leak
from recsys.data.split import MIN_EVENTS, Cases, Split, SplitConfig, make_split
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ArtifactError, ConfigError, DataError, SpaceMismatchError
from recsys.types import IntArray


def interactions(events: list[tuple[str, str, int]], *, ordered: bool = True) -> Interactions:
    frame = pl.DataFrame(events, schema={"user_id": pl.String, "item_id": pl.String, "time": pl.Int64}, orient="row")
    return Interactions.of_frame(frame, Vocabulary(sorted({item for _, item, _ in events})), ordered=ordered)


Row = tuple[int, IntArray, IntArray, int]


def split_by_loop(events: Interactions, held_out: np.ndarray) -> tuple[list[IntArray], list[Row], list[Row], list[Row]]:
    """Leave-last-out and held-out items as a plain loop over users: train, validation, test, cold."""
    train: list[IntArray] = []
    validation: list[Row] = []
    test: list[Row] = []
    cold: list[Row] = []
    for user_num, whole in enumerate(events.sequences()):
        warm_at = np.flatnonzero(~held_out[whole])
        warm = whole[warm_at]
        train.append(warm if len(warm) < MIN_EVENTS else warm[:-2])
        if len(warm) >= MIN_EVENTS:
            for cases, position in ((validation, -2), (test, -1)):
                cases.append((user_num, warm[:position], whole[: warm_at[position]], int(warm[position])))
        cold_at = np.flatnonzero(held_out[whole])
        if len(cold_at):
            before = whole[: cold_at[-1]]
            if (~held_out[before]).any():
                cold.append((user_num, before[~held_out[before]], before, int(whole[cold_at[-1]])))
    return train, validation, test, cold


def temporal_by_loop(rows: list[tuple[str, str, int]], validation_from: float, test_from: float) -> tuple[list[list[str]], list[tuple], list[tuple]]:
    """Train rows by user, and (user, inputs, target) of validation and test, in ids."""
    times = sorted(time for _, _, time in rows)
    first, second = times[int(validation_from * len(times))], times[int(test_from * len(times))]
    train, cases = [], ([], [])
    for user in dict.fromkeys(user for user, _, _ in rows):
        mine = sorted(((item, time) for u, item, time in rows if u == user), key=lambda event: event[1])
        train.append([item for item, time in mine if time < first])
        for found, low, high in ((cases[0], first, second), (cases[1], second, 10**9)):
            at = next((place for place, (_, time) in enumerate(mine) if low <= time < high), None)
            if at:
                found.append((user, [item for item, _ in mine[:at]], mine[at][0]))
    return train, *cases


def in_ids(split: Split, cases: Cases) -> list[tuple]:
    return [
        (split.users.ids[user_num], split.items.ids_of(cases.inputs[row]), split.items.ids[cases.targets[row]]) for row, user_num in enumerate(cases.user_nums)
    ]


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
        assert_no_leak(split, split.train)
        assert not split.held_out[split.train.item_nums].any()
        assert not split.held_out[split.cold.inputs.item_nums].any()
        assert split.held_out[split.cold.targets].all()


@given(events)
@settings(max_examples=80, deadline=None)
def test_the_split_equals_a_loop_over_users(rows: list[tuple[str, str, int]]) -> None:
    for config in (SplitConfig(), SplitConfig(protocol="held_out_items", held_out_share=0.3)):
        data = interactions(rows)
        try:
            split = make_split(config, data)
        except DataError:
            continue
        train, *expected = split_by_loop(data, split.held_out)
        assert [row.tolist() for row in split.train] == [row.tolist() for row in train]
        for cases, wanted in zip((split.validation, split.test, split.cold), map(Cases.of_rows, expected), strict=True):
            assert cases.user_nums.tolist() == wanted.user_nums.tolist() and cases.targets.tolist() == wanted.targets.tolist()
            for mine, theirs in ((cases.inputs, wanted.inputs), (cases.seen, wanted.seen)):
                assert mine.offsets.tolist() == theirs.offsets.tolist() and mine.item_nums.tolist() == theirs.item_nums.tolist()


def test_every_user_is_evaluated_or_counted() -> None:
    # v has too few events; d is a validation target that training never saw; u ends with a repeat of b
    rows = [("u", i, t) for t, i in enumerate("abcdb")] + [("v", "a", 0), ("v", "b", 1)] + [("w", i, t) for t, i in enumerate("xab")]
    split = make_split(SplitConfig(), interactions(rows))
    assert split.counts == {
        "users": 3,
        "users_without_events": 0,
        "users_with_too_few_events": 1,
        "cold_users_without_history": 0,
        "train_interactions": 6,
        "train_repeats": 0,
        "items_without_training": 1,
        "validation_cases": 2,
        "validation_targets_unseen_in_training": 1,
        "validation_targets_repeated": 0,
        "validation_users_unseen_in_training": 0,
        "test_cases": 2,
        "test_targets_unseen_in_training": 0,
        "test_targets_repeated": 1,
        "test_users_unseen_in_training": 0,
        "cold_cases": 0,
        "cold_targets_unseen_in_training": 0,
        "cold_targets_repeated": 0,
        "cold_users_unseen_in_training": 0,
    }


@given(events)
@settings(max_examples=60, deadline=None)
def test_counts_add_up(rows: list[tuple[str, str, int]]) -> None:
    data = interactions(rows)
    for config in (SplitConfig(), SplitConfig(protocol="held_out_items", held_out_share=0.3), SplitConfig(protocol="global_temporal", validation_from=0.5)):
        try:
            split = make_split(config, data)
        except DataError:
            continue
        counts = split.counts
        if config.protocol == "global_temporal":
            for name in ("validation", "test"):
                lost = counts[f"users_without_{name}_event"] + counts[f"{name}_users_without_history"]
                assert counts[f"{name}_cases"] + lost + counts["users_without_events"] == counts["users"]
        else:
            assert counts["test_cases"] + counts["users_with_too_few_events"] + counts["users_without_events"] == counts["users"]
            with_cold = len(np.unique(data.user_nums[split.held_out[data.item_nums]]))
            assert counts["cold_cases"] + counts["cold_users_without_history"] == with_cold
        repeated = sum(split.test.targets[row] in split.test.seen[row] for row in range(len(split.test)))
        assert counts["test_targets_repeated"] == repeated


def test_global_temporal_by_hand() -> None:
    # ten events at times 0..9: validation from time 5, test from time 8
    rows = [
        ("u", "a", 0),
        ("u", "b", 1),
        ("v", "a", 2),
        ("w", "b", 3),
        ("u", "c", 4),
        ("u", "a", 5),
        ("u", "d", 6),
        ("x", "a", 7),
        ("u", "b", 8),
        ("x", "e", 9),
    ]
    split = make_split(SplitConfig(protocol="global_temporal", validation_from=0.5, test_from=0.8), interactions(rows))
    assert [split.items.ids_of(row) for row in split.train] == [["a", "b", "c"], ["a"], ["b"], []]
    # d is no target: only the first event of a window is
    assert in_ids(split, split.validation) == [("u", ["a", "b", "c"], "a")]
    assert in_ids(split, split.test) == [("u", ["a", "b", "c", "a", "d"], "b"), ("x", ["a"], "e")]
    assert len(split.cold) == 0 and not split.held_out.any()
    counts = {name: count for name, count in split.counts.items() if count and "cases" not in name}
    assert counts == {
        "users": 4,
        "users_without_validation_event": 2,
        "validation_users_without_history": 1,
        "users_without_test_event": 2,
        "train_interactions": 5,
        "items_without_training": 2,
        "validation_targets_repeated": 1,
        "test_targets_unseen_in_training": 1,
        "test_targets_repeated": 1,
        "test_users_unseen_in_training": 1,
    }


@given(events)
@settings(max_examples=80, deadline=None)
def test_global_temporal_equals_a_loop_and_keeps_the_future_out(rows: list[tuple[str, str, int]]) -> None:
    config = SplitConfig(protocol="global_temporal", validation_from=0.4, test_from=0.7)
    data = interactions(rows)
    try:
        split = make_split(config, data)
    except DataError:
        return
    train, validation, test = temporal_by_loop(rows, 0.4, 0.7)
    assert [split.items.ids_of(row) for row in split.train] == train
    assert in_ids(split, split.validation) == validation and in_ids(split, split.test) == test
    assert_no_leak(split, split.train)


def test_global_temporal_refuses_positions_and_empty_windows() -> None:
    positions = [(user, item, position) for user in "uvw" for position, item in enumerate("abcd")]
    config = SplitConfig(protocol="global_temporal")
    with pytest.raises(DataError, match="positions within each user's history"):
        make_split(config, interactions(positions))
    with pytest.raises(DataError, match="no user has an event in the validation window"):
        make_split(config, interactions([(f"u{time}", "a", time) for time in range(20)]))
    with pytest.raises(ConfigError, match=r"validation_from \(0\.9\) must be below"):
        SplitConfig.parse({"validation_from": 0.9})


def test_without_file_order_the_numeric_item_id_decides_ties() -> None:
    rows = [("7", item, 5) for item in ("b", "10", "9", "a", "007", "7")]
    split = make_split(SplitConfig(), interactions(rows, ordered=False))
    # numbers by value, equal values as text, then the rest as text
    assert split.items.ids_of(split.test.inputs[0]) == ["007", "7", "9", "10", "a"]
    assert split.items.ids_of(split.test.targets) == ["b"]
    assert split.made_with["tie_rule"] == UNORDERED_TIE_RULE


@given(events, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_without_file_order_shuffling_the_file_changes_nothing(rows: list[tuple[str, str, int]], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    try:
        digest = make_split(SplitConfig(), interactions(rows, ordered=False)).digest
    except DataError:
        return
    assert make_split(SplitConfig(), interactions(shuffled, ordered=False)).digest == digest


def test_the_tie_rule_is_part_of_the_hash() -> None:
    rows = [("u", "1", 1), ("u", "2", 2), ("u", "3", 3)]
    ordered, unordered = (make_split(SplitConfig(), interactions(rows, ordered=ordered)) for ordered in (True, False))
    assert ordered.test.targets.tolist() == unordered.test.targets.tolist()
    assert ordered.made_with["tie_rule"] == TIE_RULE and ordered.digest != unordered.digest


def test_times_of_another_protocol_leave_the_hash_alone() -> None:
    data = interactions([("u", item, time) for time, item in enumerate("abcdefgh")] + [("v", item, time + 2) for time, item in enumerate("hgfe")])
    assert make_split(SplitConfig(), data).digest == make_split(SplitConfig(test_from=0.95), data).digest
    first, second = (make_split(SplitConfig(protocol="global_temporal", validation_from=0.4, test_from=share), data) for share in (0.6, 0.601))
    assert first.test.targets.tolist() == second.test.targets.tolist() and first.digest != second.digest


def test_duplicates_in_one_history_stay_events() -> None:
    split = make_split(SplitConfig(), interactions([("u", "a", 1), ("u", "a", 2), ("u", "a", 3), ("u", "a", 4)]))
    assert len(split.train[0]) == 2
    assert (split.counts["train_repeats"], split.counts["test_targets_repeated"]) == (1, 1)


def test_a_split_of_other_vocabularies_is_refused(tmp_path: Path) -> None:
    split = make_split(SplitConfig(), interactions([("u", item, time) for time, item in enumerate("abcd")]))
    more = Vocabulary((*split.items.ids, "new"))
    split.require_vocabularies(split.users, more, what="the catalog")
    with pytest.raises(SpaceMismatchError, match=r"the catalog: its items \(4 ids.*make both from one ingest"):
        split.require_vocabularies(split.users, Vocabulary("abdc"), what="the catalog")
    split.save(tmp_path)
    facts = json.loads((tmp_path / "split.json").read_text())
    (tmp_path / "split.json").write_text(json.dumps(facts | {"items": ["b", "a", "c", "d"]}))
    with pytest.raises(SpaceMismatchError, match="belong to other users, items or settings"):
        Split.load(tmp_path)
    (tmp_path / "split.json").write_text(json.dumps({name: value for name, value in facts.items() if name != "made_with"}))
    with pytest.raises(ArtifactError, match="older version"):
        Split.load(tmp_path)
    with pytest.raises(ArtifactError, match="no saved split"):
        Split.load(tmp_path / "nowhere")


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
    assert loaded.digest == split.digest and loaded.counts == split.counts and loaded.made_with == split.made_with
    assert loaded.users == split.users and loaded.items == split.items
    for mine, theirs in ((split.test, loaded.test), (split.cold, loaded.cold)):
        assert mine.targets.tolist() == theirs.targets.tolist()
        assert [row.tolist() for row in mine.seen] == [row.tolist() for row in theirs.seen]


def held_out_targets_by_loop(events: Interactions, held_out: np.ndarray) -> tuple[list[IntArray], list[Row], list[Row], list[Row]]:
    train: list[IntArray] = []
    cases: dict[str, list[Row]] = {"validation": [], "test": [], "cold": []}
    for user_num, whole in enumerate(events.sequences()):
        known = whole if len(whole) < MIN_EVENTS else whole[:-2]
        train.append(known[~held_out[known]])
        for position in (-2, -1) if len(whole) >= MIN_EVENTS else ():
            before, target = whole[:position], int(whole[position])
            kind = {(-2, False): "validation", (-1, False): "test", (-1, True): "cold"}.get((position, bool(held_out[target])))
            if kind and len(train[-1]):
                cases[kind].append((user_num, before[~held_out[before]], before, target))
    return train, cases["validation"], cases["test"], cases["cold"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=7), min_size=1, max_size=8), st.floats(0.05, 0.6), st.integers(0, 3))
def test_held_out_targets_equal_a_plain_loop(rows: list[list[int]], share: float, seed: int) -> None:
    events = interactions([(f"u{user}", f"i{item}", time) for user, row in enumerate(rows) for time, item in enumerate(row)])
    if max(map(len, rows)) < MIN_EVENTS:
        with pytest.raises(DataError, match="nothing can be evaluated"):
            make_split(SplitConfig(protocol="held_out_targets"), events)
        return
    split = make_split(SplitConfig(protocol="held_out_targets", held_out_share=share, seed=seed), events)
    targets = {int(row[-1]) for row in events.sequences() if len(row) >= MIN_EVENTS}
    assert split.held_out.sum() == math.ceil(share * len(targets)) and set(np.flatnonzero(split.held_out).tolist()) <= targets
    train, *cases = held_out_targets_by_loop(events, split.held_out)
    assert [row.tolist() for row in split.train] == [row.tolist() for row in train]
    for found, expected in zip((split.validation, split.test, split.cold), cases, strict=True):
        assert found.targets.tolist() == [row[3] for row in expected] and found.user_nums.tolist() == [row[0] for row in expected]
        assert [row.tolist() for row in found.inputs] == [row[1].tolist() for row in expected]
        assert [row.tolist() for row in found.seen] == [row[2].tolist() for row in expected]
    assert_no_leak(split, split.train)
    assert split.digest != make_split(SplitConfig(), events).digest
