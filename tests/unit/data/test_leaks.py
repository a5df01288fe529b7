"""Planted leaks of every kind are found, and honest training is left alone."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from recsys.data.interactions import Interactions
from recsys.data.leaks import assert_no_leak, assert_sound_split, find_leaks
from recsys.data.sequences import Sequences
from recsys.data.split import Cases, Split, SplitConfig, make_split
from recsys.data.vocabulary import Vocabulary
from recsys.errors import LeakError, SpaceMismatchError


def pairs_with(split: Split, *more: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The training pairs and some planted ones."""
    users, items = split.train.row_nums(), split.train.item_nums
    return np.append(users, [user for user, _ in more]).astype(np.int64), np.append(items, [item for _, item in more]).astype(np.int64)


def repeats() -> Split:
    """u: a b a c a: `a` stands twice in training and is the test target; v and w: plain."""
    events = [("u", item, time) for time, item in enumerate("abaca")] + [(user, item, time) for user in "vw" for time, item in enumerate("bcda")]
    frame = pl.DataFrame(events, schema=["user_id", "item_id", "time"], orient="row")
    return make_split(SplitConfig(), Interactions.of_frame(frame, Vocabulary("abcd")))


def test_training_itself_is_no_leak(tiny_split: Split, tiny_cold_split: Split) -> None:
    for split in (tiny_split, tiny_cold_split):
        report = find_leaks(split, split.train)
        assert not report.leaked and report.found() == {} and report.examples == ()


def test_a_planted_test_interaction_is_caught(tiny_split: Split) -> None:
    user, target = int(tiny_split.test.user_nums[3]), int(tiny_split.test.targets[3])
    planted = pairs_with(tiny_split, (user, target))
    assert find_leaks(tiny_split, planted).found() == {"test_pairs": 1}
    with pytest.raises(LeakError, match=f"the graph knows what it must not know: 1 test pairs; first: user 'u3' with item 'i{target}'"):
        assert_no_leak(tiny_split, planted, what="the graph")


def test_each_kind_has_its_count(tiny_split: Split, tiny_cold_split: Split) -> None:
    validation = (int(tiny_split.validation.user_nums[0]), int(tiny_split.validation.targets[0]))
    assert find_leaks(tiny_split, pairs_with(tiny_split, validation)).found() == {"validation_pairs": 1}
    # nobody ever met i11
    assert find_leaks(tiny_split, pairs_with(tiny_split, (0, 11))).found() == {"other_pairs": 1}
    cold = (int(tiny_cold_split.cold.user_nums[0]), int(tiny_cold_split.cold.targets[0]))
    assert find_leaks(tiny_cold_split, pairs_with(tiny_cold_split, cold)).found() == {"cold_pairs": 1, "held_out_pairs": 1}


def test_rows_are_judged_like_pairs(tiny_split: Split) -> None:
    rows = Sequences.of_rows([tiny_split.test.inputs[row] for row in range(len(tiny_split.test))])
    assert find_leaks(tiny_split, rows).found() == {"validation_pairs": 8}


def test_a_repeat_is_a_leak_only_beyond_its_count_in_training() -> None:
    split = repeats()
    a, user = split.items.num("a"), split.users.num("u", noun="user_id")
    assert split.test.targets[user] == a and split.train[user].tolist().count(a) == 2
    distinct = np.unique(np.stack([split.train.row_nums(), split.train.item_nums]), axis=1)
    assert not find_leaks(split, split.train).leaked
    assert not find_leaks(split, (distinct[0], distinct[1])).leaked
    assert find_leaks(split, pairs_with(split, (user, a))).found() == {"test_pairs": 1}


def test_edges_need_a_training_user_who_has_both(tiny_cold_split: Split) -> None:
    split = tiny_cold_split
    row = split.train[0]
    fine = np.array([[row[0], row[1]], [row[1], row[0]], [row[0], row[0]]])
    assert not find_leaks(split, split.train, item_edges=fine).leaked
    cold = int(split.cold.targets[0])
    apart = next(int(item) for item in np.flatnonzero(~split.held_out) if not any(item in r and row[0] in r for r in split.train))
    report = find_leaks(split, split.train, item_edges=np.array([[row[0], cold], [row[0], apart]]))
    assert report.found() == {"edges_without_support": 2, "edges_of_held_out_items": 1}
    assert report.examples[0].startswith("edge ")


def with_inputs(cases: Cases, row: int, inputs: np.ndarray) -> Cases:
    return replace(cases, inputs=Sequences.of_rows([inputs if r == row else cases.inputs[r] for r in range(len(cases))]))


def test_a_target_at_the_end_of_its_own_input_is_caught(tiny_split: Split, tiny_cold_split: Split) -> None:
    for name in ("validation", "test"):
        cases = getattr(tiny_split, name)
        broken = replace(tiny_split, **{name: with_inputs(cases, 2, np.append(cases.inputs[2], cases.targets[2]))})
        report = find_leaks(broken, broken.train)
        assert report.found() == {"inputs_beyond_the_past": 1} and report.examples == (f"{name} input of user 'u2'",)
    cold = tiny_cold_split.cold
    broken = replace(tiny_cold_split, cold=with_inputs(cold, 0, np.append(cold.inputs[0], cold.targets[0])))
    assert find_leaks(broken, broken.train).found() == {"inputs_beyond_the_past": 1}


def planted(split: Split, user_num: int, item_num: int) -> Split:
    """The split with one more interaction at the end of a training row, as a bug in its making would leave it."""
    rows = [np.append(row, item_num) if user == user_num else row for user, row in enumerate(split.train)]
    return replace(split, train=Sequences.of_rows(rows))


def test_a_split_whose_training_holds_a_target_is_not_sound(tiny_split: Split, tiny_cold_split: Split) -> None:
    for split in (tiny_split, tiny_cold_split):
        assert_sound_split(split)
        for cases in (split.validation, split.test):
            for row in range(len(cases)):
                with pytest.raises(LeakError, match=rf"{split.protocol}, {split.digest[:12]}\) does not keep its targets apart: [12] inputs beyond the past"):
                    assert_sound_split(planted(split, int(cases.user_nums[row]), int(cases.targets[row])))
    cold = tiny_cold_split.cold
    with pytest.raises(LeakError, match="1 held out pairs"):
        assert_sound_split(planted(tiny_cold_split, int(cold.user_nums[0]), int(cold.targets[0])))


def beyond_one_by_one(split: Split, name: str, cases: Cases) -> list[bool]:
    """The definition, a case at a time."""
    found, validated = [], dict(zip(split.validation.user_nums.tolist(), split.validation.targets.tolist(), strict=True))
    for row, user in enumerate(cases.user_nums.tolist()):
        past = [*split.train[user].tolist(), *([validated[user]] if name == "test" and user in validated else [])]
        given = cases.inputs[row].tolist()
        longer = len(given) > len(past) and not (name == "test" and split.protocol == "global_temporal")
        found.append(given[: len(past)] != past or longer)
    return found


@pytest.mark.parametrize("protocol", ["leave_last_out", "global_temporal"])
def test_inputs_are_judged_as_one_by_one(protocol: str) -> None:
    rng = np.random.default_rng(4)
    events = [
        (f"u{user}", f"i{item}", int(time)) for user in range(30) for item, time in zip(rng.integers(0, 9, 9), np.sort(rng.integers(0, 99, 9)), strict=True)
    ]
    frame = pl.DataFrame(events, schema=["user_id", "item_id", "time"], orient="row")
    split = make_split(SplitConfig(protocol=protocol), Interactions.of_frame(frame, Vocabulary(f"i{k}" for k in range(9))))
    assert_sound_split(split)
    spoilt = 0
    for name in ("validation", "test"):
        cases = getattr(split, name)
        changes = (lambda row: row[:-1], lambda row: np.append(row, 0), lambda row: row[::-1].copy(), lambda row: row)
        rows = [changes[rng.integers(4)](cases.inputs[row]) for row in range(len(cases))]
        other = replace(cases, inputs=Sequences.of_rows(rows))
        expected = beyond_one_by_one(split, name, other)
        report = find_leaks(replace(split, **{name: other}), split.train)
        spoilt += report.inputs_beyond_the_past
        assert report.inputs_beyond_the_past == sum(expected)
        first = [f"{name} input of user {split.users.ids[cases.user_nums[row]]!r}" for row in np.flatnonzero(expected)[:3]]
        assert report.examples == tuple(first)
    assert spoilt > 10


def test_numbers_of_another_vocabulary_are_refused(tiny_split: Split) -> None:
    for users, items in (([0], [99]), ([99], [0]), ([-1], [0])):
        with pytest.raises(SpaceMismatchError, match="came; the split"):
            find_leaks(tiny_split, (np.array(users), np.array(items)))
    with pytest.raises(ValueError, match=r"shape \(M, 2\)"):
        find_leaks(tiny_split, tiny_split.train, item_edges=np.array([1, 2]))
