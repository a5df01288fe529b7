"""`LastItems`: a scorer that is shown the end of each history alone."""

from __future__ import annotations

from recsys.types import BoolArray, FloatArray, IntArray, Queries, Scorer


class LastItems:
    """count: items of a history, the newest, that `scorer` reads."""

    def __init__(self, scorer: Scorer, count: int) -> None:
        if count < 1:
            raise ValueError(f"at least one item of a history is read, got {count}")
        self._scorer, self._count = scorer, count

    @property
    def n_items(self) -> int:
        return self._scorer.n_items

    def scorable_items(self) -> BoolArray:
        return self._scorer.scorable_items()

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C)."""
        return self._scorer.score(Queries(queries.user_nums, [history[-self._count :] for history in queries.histories]), item_nums)
