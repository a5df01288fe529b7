"""Scorers whose evaluation is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recsys.rng import numpy_generator
from recsys.types import BoolArray, FloatArray, IntArray, Queries


class MatrixScorer:
    """Scores given outright: float32 (n_users, n_items), row r for user_num r."""

    def __init__(self, scores: FloatArray, *, scorable: BoolArray | None = None) -> None:
        self._scores: FloatArray = np.asarray(scores, dtype=np.float32)
        self._scorable = np.ones(self.n_items, dtype=np.bool_) if scorable is None else scorable

    @property
    def n_items(self) -> int:
        return int(self._scores.shape[1])

    def scorable_items(self) -> BoolArray:
        return self._scorable

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        scores: FloatArray = self._scores[queries.user_nums][:, item_nums]
        return scores


class ConstantScorer:
    """The same score for everything: all items tie, so recall@k is k / (items ranked)."""

    def __init__(self, n_items: int, *, value: float = 0.0, scorable: BoolArray | None = None) -> None:
        self._n_items, self._value = n_items, value
        self._scorable = np.ones(n_items, dtype=np.bool_) if scorable is None else scorable

    @property
    def n_items(self) -> int:
        return self._n_items

    def scorable_items(self) -> BoolArray:
        return self._scorable

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        return np.full((len(queries), len(item_nums)), self._value, dtype=np.float32)


class OracleScorer:
    """1 for the user's target, 0 for all else: every metric is 1. targets: user_num -> item_num."""

    def __init__(self, n_items: int, targets: Mapping[int, int]) -> None:
        self._n_items, self._targets = n_items, dict(targets)

    @property
    def n_items(self) -> int:
        return self._n_items

    def scorable_items(self) -> BoolArray:
        return np.ones(self._n_items, dtype=np.bool_)

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        wanted = np.array([self._targets[user_num] for user_num in queries.user_nums.tolist()], dtype=np.int64)
        scores: FloatArray = (item_nums[None, :] == wanted[:, None]).astype(np.float32)
        return scores


class RandomScorer:
    """Uniform scores that follow from seed and user_num alone: chunks, order and candidates change nothing."""

    def __init__(self, n_items: int, seed: int = 0) -> None:
        self._n_items, self._seed = n_items, seed

    @property
    def n_items(self) -> int:
        return self._n_items

    def scorable_items(self) -> BoolArray:
        return np.ones(self._n_items, dtype=np.bool_)

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        rows = [
            numpy_generator(self._seed, "testing", str(user_num)).random(self._n_items, dtype=np.float32)[item_nums] for user_num in queries.user_nums.tolist()
        ]
        scores: FloatArray = np.stack(rows) if rows else np.zeros((0, len(item_nums)), dtype=np.float32)
        return scores
