"""`VectorScorer`: scores from user and item vectors that somebody else made."""

from __future__ import annotations

import numpy as np

from recsys.types import BoolArray, FloatArray, IntArray, Queries


class VectorScorer:
    """states: float32 (n_users, d), row r for user_num r.  items: float32 (n_items, d).  scorable: bool (n_items,), None is all."""

    def __init__(self, states: FloatArray, items: FloatArray, scorable: BoolArray | None = None) -> None:
        self._states, self._items = states, items
        self._scorable = np.ones(len(items), dtype=np.bool_) if scorable is None else scorable

    @property
    def n_items(self) -> int:
        return len(self._items)

    def scorable_items(self) -> BoolArray:
        return self._scorable

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        scores: FloatArray = self._states[queries.user_nums] @ self._items[item_nums].T
        return scores

    def score_into(self, queries: Queries, item_nums: IntArray, out: FloatArray) -> None:
        whole = len(item_nums) == self.n_items
        np.matmul(self._states[queries.user_nums], (self._items if whole else self._items[item_nums]).T, out=out)
