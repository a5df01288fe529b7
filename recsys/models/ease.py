"""EASE (Steck 2019, arXiv 1905.03375): a linear item-item model in closed form."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
import scipy.linalg
from pydantic import Field

from recsys.config import Config
from recsys.data.split import Split
from recsys.models._item_item import binary_matrix, multiply, scorable_of
from recsys.types import BoolArray, FloatArray, IntArray, Queries


class EaseConfig(Config):
    regularisation: Annotated[float, Field(gt=0)] = 300.0
    """lambda of eq. 1: the ridge penalty."""


class Ease:
    """B = I - P diag(1 / diag P) with P = (X'X + lambda I)^-1 (eq. 8); score = history @ B."""

    def __init__(self, weights: FloatArray, counts: IntArray) -> None:
        self._weights, self._counts = weights, counts

    @classmethod
    def fit(cls, config: EaseConfig, split: Split) -> Self:
        n_items = len(split.items)
        X = binary_matrix(split.train, n_items)
        gram = (X.T @ X).toarray()
        gram[np.diag_indices(n_items)] += config.regularisation
        # float64: the inverse of a matrix whose condition number grows with the data.
        P = scipy.linalg.cho_solve(scipy.linalg.cho_factor(gram, lower=True), np.eye(n_items))
        B = -P / np.diag(P)
        B[np.diag_indices(n_items)] = 0.0
        return cls(B.astype(np.float32), split.item_counts())

    @property
    def n_items(self) -> int:
        return len(self._counts)

    def scorable_items(self) -> BoolArray:
        return scorable_of(self._counts)

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C)."""
        return multiply(queries, self._weights, item_nums, self.n_items)
