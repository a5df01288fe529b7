"""Popularity: the number of training interactions, equal for all users."""

from __future__ import annotations

from typing import Self

import numpy as np

from recsys.data.split import Split
from recsys.types import BoolArray, FloatArray, IntArray, Queries


class Popularity:
    def __init__(self, counts: IntArray, *, item_digest: str | None = None) -> None:
        self._counts, self.item_digest = counts, item_digest

    @classmethod
    def fit(cls, split: Split) -> Self:
        return cls(split.item_counts(), item_digest=split.items.digest)

    @property
    def n_items(self) -> int:
        return len(self._counts)

    def scorable_items(self) -> BoolArray:
        return self._counts > 0

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C)."""
        return np.tile(self._counts[item_nums].astype(np.float32), (len(queries), 1))
