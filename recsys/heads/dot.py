"""The dot-product head, and the Scorer made of a backbone and a head."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from recsys.types import Backbone, BoolArray, FloatArray, IntArray, KnowsItems, Queries


class RankingHead(Protocol):
    def score(self, states: FloatArray, items: FloatArray) -> FloatArray:
        """float32 (B, d), (C, d) -> (B, C)."""
        ...


class DotHead:
    def score(self, states: FloatArray, items: FloatArray) -> FloatArray:
        return np.asarray(states @ items.T, dtype=np.float32)

    def score_into(self, states: FloatArray, items: FloatArray, out: FloatArray) -> None:
        """`score`, written into `out` float32 (B, C)."""
        np.matmul(states, items.T, out=out)


class HeadedScorer:
    """Scorer = backbone + head."""

    def __init__(self, backbone: Backbone, head: RankingHead | None = None) -> None:
        self._backbone, self._head = backbone, head or DotHead()

    @property
    def backbone(self) -> Backbone:
        return self._backbone

    @property
    def item_digest(self) -> str | None:
        return self._backbone.item_digest if isinstance(self._backbone, KnowsItems) else None

    @property
    def n_items(self) -> int:
        return self._backbone.n_items

    def scorable_items(self) -> BoolArray:
        return self._backbone.scorable_items()

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        return self._head.score(self._backbone.represent(queries), self._vectors(item_nums))

    def score_into(self, queries: Queries, item_nums: IntArray, out: FloatArray) -> None:
        states, vectors = self._backbone.represent(queries), self._vectors(item_nums)
        if isinstance(self._head, DotHead):
            self._head.score_into(states, vectors, out)
        else:
            out[...] = self._head.score(states, vectors)

    def _vectors(self, item_nums: IntArray) -> FloatArray:
        items = self._backbone.items()
        # The whole catalogue in its order is the common case and needs no copy.
        whole = len(item_nums) == len(items) and bool((item_nums == np.arange(len(items))).all())
        return items if whole else items[item_nums]
