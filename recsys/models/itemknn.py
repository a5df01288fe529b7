"""ItemKNN: cosine of item columns with shrinkage, nearest neighbours only (Deshpande & Karypis 2004, TOIS 22(1))."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from recsys.config import Config
from recsys.data.split import Split
from recsys.models._item_item import binary_matrix, multiply, scorable_of
from recsys.types import BoolArray, FloatArray, IntArray, Queries


class ItemKNNConfig(Config):
    neighbours: Annotated[int, Field(ge=1)] = 100
    """Most similar items kept for each item."""
    shrinkage: Annotated[float, Field(ge=0)] = 10.0
    """Added to the cosine's denominator: similarities that rest on few users shrink."""


class ItemKNN:
    """score(history, i) = sum over j in history of sim(j, i), j among the neighbours of i."""

    def __init__(self, similarities: sp.csc_array, counts: IntArray, *, item_digest: str | None = None) -> None:
        self._similarities, self._counts, self.item_digest = similarities, counts, item_digest

    @classmethod
    def fit(cls, config: ItemKNNConfig, split: Split) -> Self:
        n_items = len(split.items)
        X = binary_matrix(split.train, n_items)
        overlap = (X.T @ X).tocsc()
        overlap.setdiag(0)
        overlap.eliminate_zeros()
        norms = np.sqrt(np.asarray(X.sum(axis=0)).ravel())
        columns = np.repeat(np.arange(n_items), np.diff(overlap.indptr))
        overlap.data = overlap.data / (norms[overlap.indices] * norms[columns] + config.shrinkage)
        for item in range(n_items):
            values = overlap.data[overlap.indptr[item] : overlap.indptr[item + 1]]
            if len(values) > config.neighbours:
                # Stable: of equal similarities the lower item_num stays.
                values[np.argsort(-values, kind="stable")[config.neighbours :]] = 0.0
        overlap.eliminate_zeros()
        return cls(overlap, split.item_counts(), item_digest=split.items.digest)

    @property
    def n_items(self) -> int:
        return len(self._counts)

    def scorable_items(self) -> BoolArray:
        return scorable_of(self._counts)

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C)."""
        return multiply(queries, self._similarities, item_nums, self.n_items)
