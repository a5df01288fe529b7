"""The newest window tests and trains nothing; every event in it is a case with all that came before."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from pipelines.window import WindowConfig, window_cases, window_split, window_users
from recsys.data.catalog import ItemCatalog
from recsys.data.interactions import Interactions
from recsys.data.leaks import assert_sound_split
from recsys.errors import DataError

ITEMS = ItemCatalog(pl.DataFrame({"item_id": [f"i{n}" for n in range(9)]})).items
EVENTS = [
    ("a", "i0", 10), ("a", "i1", 20), ("a", "i2", 95), ("a", "i3", 101), ("a", "i4", 102),
    ("b", "i5", 11), ("b", "i6", 96), ("b", "i7", 100),
    ("new", "i8", 103),
]  # fmt: skip


def interactions() -> Interactions:
    return Interactions.of_frame(pl.DataFrame(EVENTS, schema=["user_id", "item_id", "time"], orient="row"), ITEMS)


def test_training_ends_before_validation_and_validation_before_the_window() -> None:
    split = window_split(WindowConfig(start=100, validation_share=0.4), interactions())
    assert_sound_split(split)
    assert [row.tolist() for row in split.train] == [[0, 1], [5], []]
    assert split.validation.targets.tolist() == [2, 6]
    assert split.test.targets.tolist() == [3, 7]


def test_every_event_of_the_window_is_a_case_with_all_before_it() -> None:
    users = window_users(interactions(), 100)
    assert users.tolist() == [0, 1]
    cases = window_cases(interactions(), 100, users, most=20)
    assert cases.user_nums.tolist() == [0, 0, 1] and cases.targets.tolist() == [3, 4, 7]
    assert [row.tolist() for row in cases.inputs] == [[0, 1, 2], [0, 1, 2, 3], [5, 6]]
    assert window_cases(interactions(), 100, users[1:], most=1).targets.tolist() == [7]


def test_the_share_does_not_fall_beside_the_window_for_any_size() -> None:
    """The split is asked for by shares of events: for no number of them may the window begin an event early or late."""
    for before in range(20, 400, 7):
        times = np.arange(before + 5)
        frame = pl.DataFrame({"user_id": ["a", "b"] * len(times), "item_id": ["i0", "i1"] * len(times), "time": np.repeat(times, 2) * 2})
        split = window_split(WindowConfig(start=2 * before), Interactions.of_frame(frame, ITEMS))
        assert [len(row) for row in split.test.inputs] == [before, before]


@pytest.mark.parametrize(("start", "message"), [(200, "no event at or after 200"), (10, "0 events before 10"), (11, "1 events before 11")])
def test_an_empty_window_and_an_empty_past(start: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        window_split(WindowConfig(start=start), interactions())
