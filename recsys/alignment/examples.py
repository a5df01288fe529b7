"""Training examples of alignment: a user's state, the item that came next, and items that it did not meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from recsys.data.split import Split
from recsys.errors import DataError
from recsys.rng import numpy_generator
from recsys.types import BoolArray, IntArray


@dataclass(frozen=True)
class Examples:
    """N places in the training histories.

    user_nums, targets: int64 (N,).  histories: N rows, what precedes the target, never empty: a user with one training item has none.
    met: int64, sorted, user_num * n_items + item_num of all training interactions.
    """

    user_nums: IntArray
    histories: list[IntArray]
    targets: IntArray
    met: IntArray
    n_items: int

    @classmethod
    def of_split(cls, split: Split, positions: Literal["last", "all"], users: IntArray | None = None) -> Self:
        """users: int64, those that train; None: all. Raises DataError: none of them has two training interactions."""
        user_nums, histories, targets = [], [], []
        for user_num in range(len(split.train)) if users is None else users.tolist():
            row = split.train[user_num]
            for place in range(1 if positions == "all" else max(1, len(row) - 1), len(row)):
                user_nums.append(user_num)
                histories.append(row[:place])
                targets.append(int(row[place]))
        if not targets:
            raise DataError("no user has two training interactions: there is no next item to learn from")
        met = np.unique(split.train.row_nums() * split.n_items + split.train.item_nums)
        return cls(np.array(user_nums, dtype=np.int64), histories, np.array(targets, dtype=np.int64), met, split.n_items)

    def __len__(self) -> int:
        return len(self.targets)

    def negatives(self, count: int, candidates: IntArray, seed: int, epoch: int) -> IntArray:
        """int64 (N, count): uniform over the `candidates` that the user did not meet in training, so never the target.

        Raises:
            DataError: a user met them all.
        """
        generator = numpy_generator(seed, "negatives", str(epoch))
        drawn = candidates[generator.integers(len(candidates), size=(len(self), count))]
        rows = np.repeat(self.user_nums[:, None], count, axis=1)
        wrong = self._is_met(rows, drawn)
        for _ in range(200):
            if not wrong.any():
                return drawn
            drawn[wrong] = candidates[generator.integers(len(candidates), size=int(wrong.sum()))]
            wrong = self._is_met(rows, drawn)
        stuck = np.flatnonzero(wrong.any(axis=1))
        for row in stuck.tolist():
            # Whoever met nearly everything is served by search.
            left = np.setdiff1d(candidates, self.met[(self.met // self.n_items) == self.user_nums[row]] % self.n_items)
            if not len(left):
                raise DataError(f"user_num {int(self.user_nums[row])} met every item of training: it has no negative")
            drawn[row] = left[generator.integers(len(left), size=count)]
        return drawn

    def _is_met(self, users: IntArray, items: IntArray) -> BoolArray:
        wanted = users * self.n_items + items
        places = np.minimum(np.searchsorted(self.met, wanted), len(self.met) - 1)
        return np.asarray(self.met[places] == wanted, dtype=np.bool_)
