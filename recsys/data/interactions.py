"""`Interactions`: clean events in row numbers, in the one order that every split uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.types import IntArray

TIE_RULE = "user row, then time, then order in the source file (row number after quarantine)"
"""Events of one user at one time keep the order of the file. Part of every split's hash."""


@dataclass(frozen=True)
class Interactions:
    """Events sorted by `TIE_RULE`; all arrays (E,), read-only.

    user_nums, item_nums: int64 row numbers.  times: int64 Unix seconds UTC, or a position where a source has no clock.
    """

    users: Vocabulary
    items: Vocabulary
    user_nums: IntArray
    item_nums: IntArray
    times: IntArray

    def __post_init__(self) -> None:
        if not len(self.user_nums) == len(self.item_nums) == len(self.times):
            raise ValueError("columns of different lengths")
        if len(self.user_nums) and (np.diff(self.user_nums) < 0).any():
            raise ValueError("events are not sorted by user; build them with Interactions.of_frame")
        for array in (self.user_nums, self.item_nums, self.times):
            array.flags.writeable = False

    @classmethod
    def of_frame(cls, frame: pl.DataFrame, items: Vocabulary, users: Vocabulary | None = None) -> Interactions:
        """From columns user_id (str), item_id (str), time (int64), in file order. Users keep the order of their first event.

        Raises:
            UnknownIdError: an item that `items` does not hold.
        """
        users = users or Vocabulary(frame["user_id"].unique(maintain_order=True).to_list())
        user_nums = users.nums(frame["user_id"].to_list(), noun="user_id")
        item_nums = items.nums(frame["item_id"].to_list())
        times = frame["time"].to_numpy().astype(np.int64)
        order = np.lexsort((np.arange(len(frame)), times, user_nums))
        return cls(users, items, user_nums[order], item_nums[order], times[order])

    def __len__(self) -> int:
        return len(self.user_nums)

    def sequences(self) -> Sequences:
        """One row a user (also users without events), oldest first."""
        offsets = np.zeros(len(self.users) + 1, dtype=np.int64)
        np.cumsum(np.bincount(self.user_nums, minlength=len(self.users)), out=offsets[1:])
        return Sequences(offsets, self.item_nums.copy())

    def to_frame(self) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "user_id": pl.Series(self.users.ids_of(self.user_nums), dtype=pl.String),
                "item_id": pl.Series(self.items.ids_of(self.item_nums), dtype=pl.String),
                "time": self.times,
            }
        )
