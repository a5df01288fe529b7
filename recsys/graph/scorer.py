"""`GraphScorer`: a graph's vectors alone behind a dot product."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from recsys.data.sequences import Sequences
from recsys.errors import DataError
from recsys.types import BoolArray, FloatArray, IntArray, Queries


class GraphScorer:
    """score(u, i) = e_u . e_i + b_i, where b_i is `bonus` for a new item and 0 for others.

    items: float32 (I, d); rows that are not `scorable` are zero.  scorable: bool (I,).  average: float32 (d,), the user that nothing is known of.
    users: float32 (U, d), zero where training had nothing; None in a graph of items.
    history: most recent items of a query that make its user.
    new, bonus: bool (I,), and what such items are given; see `recsys.graph.levelling`.

    A user of the graph is answered with its vector of training, whatever the history of the query. Any other is the mean
    of the items of its history that have a vector; with none left, the average user. A new item needs no training:
    it counts as soon as it has a row.
    """

    def __init__(
        self,
        items: FloatArray,
        scorable: BoolArray,
        average: FloatArray,
        users: FloatArray | None = None,
        *,
        history: int,
        item_digest: str | None = None,
        new: BoolArray | None = None,
        bonus: float = 0.0,
    ) -> None:
        self._items, self._scorable, self._average, self._users, self._history, self.item_digest = items, scorable, average, users, history, item_digest
        self._bonus = None if new is None or not bonus else np.where(new, np.float32(bonus), np.float32(0))
        self._known: BoolArray = (users != 0).any(axis=1) if users is not None else np.zeros(0, dtype=np.bool_)

    @property
    def n_items(self) -> int:
        return len(self._items)

    def scorable_items(self) -> BoolArray:
        return self._scorable

    def items(self) -> FloatArray:
        return self._items

    def represent(self, queries: Queries) -> FloatArray:
        """float32 (B, d). Raises DataError: a history holds a number that is no item_num."""
        states = self._means([history[-self._history :] for history in queries.histories])
        if self._users is not None:
            nums = np.asarray(queries.user_nums, dtype=np.int64)
            inside = (nums >= 0) & (nums < len(self._known))
            known = inside & self._known[np.where(inside, nums, 0)]
            states[known] = self._users[nums[known]]
        return states

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C)."""
        scores: FloatArray = self.represent(queries) @ self._items[item_nums].T
        return scores if self._bonus is None else scores + self._bonus[item_nums]

    def score_into(self, queries: Queries, item_nums: IntArray, out: FloatArray) -> None:
        whole = len(item_nums) == self.n_items and bool((item_nums == np.arange(self.n_items)).all())
        np.matmul(self.represent(queries), (self._items if whole else self._items[item_nums]).T, out=out)
        if self._bonus is not None:
            out += self._bonus[item_nums]

    def _means(self, histories: list[IntArray]) -> FloatArray:
        rows = Sequences.of_rows(histories)
        if len(rows.item_nums) and (rows.item_nums.min() < 0 or rows.item_nums.max() >= self.n_items):
            raise DataError(f"a history holds a number that is no item_num of this model (0..{self.n_items - 1}); leave unknown items out")
        counted = csr_array((self._scorable[rows.item_nums].astype(np.float32), rows.item_nums, rows.offsets), shape=(len(rows), self.n_items))
        totals: FloatArray = np.asarray(counted.sum(axis=1)).reshape(-1, 1)
        means: FloatArray = ((counted @ self._items) / np.maximum(totals, 1.0)).astype(np.float32)
        means[totals[:, 0] == 0] = self._average
        return means
