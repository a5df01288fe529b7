"""`Interactions`: clean events in row numbers, in the one order that every split uses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.types import IntArray

TIE_RULE = "user row, then time, then order in the source file (row number after quarantine)"
"""Events of one user at one time keep the order of the file. Part of every split's hash."""
UNORDERED_TIE_RULE = "user row, then time, then numeric item id (ids that are no whole numbers come after the numbers, as text)"
"""For sources whose rows carry no meaningful order: shuffling the file changes nothing. Part of the hash in their splits."""

_WHOLE_NUMBER = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class Interactions:
    """Events sorted by `tie_rule`; all arrays (E,), read-only.

    user_nums, item_nums: int64 row numbers.  times: int64 Unix seconds UTC, or a position where a source has no clock.
    tie_rule: `TIE_RULE` or `UNORDERED_TIE_RULE`.
    """

    users: Vocabulary
    items: Vocabulary
    user_nums: IntArray
    item_nums: IntArray
    times: IntArray
    tie_rule: str = TIE_RULE

    def __post_init__(self) -> None:
        if not len(self.user_nums) == len(self.item_nums) == len(self.times):
            raise ValueError("columns of different lengths")
        if len(self.user_nums) and (np.diff(self.user_nums) < 0).any():
            raise ValueError("events are not sorted by user; build them with Interactions.of_frame")
        for array in (self.user_nums, self.item_nums, self.times):
            array.flags.writeable = False

    @classmethod
    def of_frame(cls, frame: pl.DataFrame, items: Vocabulary, users: Vocabulary | None = None, *, ordered: bool = True) -> Interactions:
        """From columns user_id (str), item_id (str), time (int64), in file order. Users keep the order of their first event.

        fine_time: optional column (int64, finer than `time` and in the same order); events are sorted by it in place of `time`.
        ordered: False where the order of the rows means nothing: ties follow `UNORDERED_TIE_RULE`, new users stand in the
            order of their ids.

        Raises:
            UnknownIdError: an item that `items` does not hold, or a user that `users` does not.
        """
        if users is None:
            ids = frame["user_id"].unique(maintain_order=True).to_list()
            users = Vocabulary(ids if ordered else sorted(ids, key=numeric_key))
        user_nums = users.nums(frame["user_id"], noun="user_id")
        item_nums = items.nums(frame["item_id"])
        times = frame["time"].to_numpy().astype(np.int64)
        clock = frame["fine_time"].to_numpy().astype(np.int64) if "fine_time" in frame.columns else times
        # Stable: what ties in all keys stays in file order.
        order = np.lexsort((clock, user_nums) if ordered else (_ranks(items.ids)[item_nums], clock, user_nums))
        return cls(users, items, user_nums[order], item_nums[order], times[order], TIE_RULE if ordered else UNORDERED_TIE_RULE)

    def __len__(self) -> int:
        return len(self.user_nums)

    def sequences(self) -> Sequences:
        """One row a user (also users without events), oldest first."""
        offsets = np.zeros(len(self.users) + 1, dtype=np.int64)
        np.cumsum(np.bincount(self.user_nums, minlength=len(self.users)), out=offsets[1:])
        return Sequences(offsets, self.item_nums.copy())

    def to_frame(self) -> pl.DataFrame:
        users, items = (pl.Series(name, vocabulary.ids, dtype=pl.String) for name, vocabulary in (("user_id", self.users), ("item_id", self.items)))
        return pl.DataFrame([users.gather(self.user_nums), items.gather(self.item_nums), pl.Series("time", self.times)])


def numeric_key(outside_id: str) -> tuple[int, int, str]:
    """Sorts ids that are whole numbers by value, the others after them as text; "7" and "07" stand apart, as text."""
    return (0, int(outside_id), outside_id) if _WHOLE_NUMBER.fullmatch(outside_id) else (1, 0, outside_id)


def _ranks(ids: Sequence[str]) -> IntArray:
    """int64 (n,): the place of each id in the order of `numeric_key`."""
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[sorted(range(len(ids)), key=lambda num: numeric_key(ids[num]))] = np.arange(len(ids))
    return ranks
