"""`Chance`: all items alike. Metrics count ties by expectation, so this is what a random order finds."""

from __future__ import annotations

import numpy as np

from recsys.types import BoolArray, FloatArray, IntArray, Queries


class Chance:
    def __init__(self, n_items: int) -> None:
        self._n_items = n_items

    @property
    def n_items(self) -> int:
        return self._n_items

    def scorable_items(self) -> BoolArray:
        return np.ones(self._n_items, dtype=np.bool_)

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C), zeros."""
        return np.zeros((len(queries), len(item_nums)), dtype=np.float32)
