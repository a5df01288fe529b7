"""Calibration: do the categories of a list stand in the proportions of the user's history? (Steck, "Calibrated
recommendations", RecSys 2018.)"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from recsys.data.sequences import Sequences
from recsys.errors import SpaceMismatchError
from recsys.evaluation.metrics import MetricArray
from recsys.types import UNKNOWN_NUM, IntArray

ALPHA = 0.01
"""Share of the history's distribution that is mixed into the list's, so that the divergence stays finite; the paper's value."""
CHUNK = 1024


class CategoryShares:
    """p(category | item): 1 / m for each of the m distinct categories of an item. Items without any are left out of all
    distributions. categories: one row an item_num, as `ItemCatalog.categories()` gives them."""

    def __init__(self, categories: Sequence[Sequence[str]]) -> None:
        distinct = [sorted(set(names)) for names in categories]
        self.names = sorted({name for names in distinct for name in names})
        column_of = {name: column for column, name in enumerate(self.names)}
        indptr = np.concatenate(([0], np.cumsum([len(names) for names in distinct])))
        columns = np.array([column_of[name] for names in distinct for name in names], dtype=np.int64)
        shares = np.repeat([1.0 / max(len(names), 1) for names in distinct], np.diff(indptr))
        self._shares = sp.csr_array((shares, columns, indptr), shape=(len(distinct), len(self.names)))

    @property
    def n_items(self) -> int:
        return int(self._shares.shape[0])

    def distributions(self, rows: Sequences) -> MetricArray:
        """float64 (N, G): the mean share of each category over the items of a row; all zero where none has a category."""
        if len(rows.item_nums) and rows.item_nums.max() >= self.n_items:
            raise SpaceMismatchError(f"item_num {rows.item_nums.max()} has no categories: {self.n_items} items are known; take both from one split")
        taken = sp.csr_array((np.ones(len(rows.item_nums)), rows.item_nums, rows.offsets), shape=(len(rows), self.n_items))
        weights: MetricArray = np.asarray((taken @ self._shares).toarray(), dtype=np.float64)
        totals = weights.sum(axis=1, keepdims=True)
        shares: MetricArray = np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0)
        return shares


def miscalibration(lists: IntArray, histories: Sequences, shares: CategoryShares, *, alpha: float = ALPHA) -> MetricArray:
    """float64 (N,): KL(p || (1 - alpha) q + alpha p) in nats, p the history's distribution over categories and q the
    list's. 0 is perfectly calibrated; NaN where history or list has no category at all.

    lists: int64 (N, k) item_num, `UNKNOWN_NUM` where a list is shorter.  histories: N rows aligned with them.
    """
    if len(lists) != len(histories):
        raise ValueError(f"{len(lists)} lists but {len(histories)} histories")
    found = np.full(len(lists), np.nan)
    for start in range(0, len(lists), CHUNK):
        part = lists[start : start + CHUNK]
        p = shares.distributions(histories[start : start + CHUNK])
        q = shares.distributions(Sequences.of_rows([row[row != UNKNOWN_NUM] for row in part]))
        known = (p.sum(axis=1) > 0) & (q.sum(axis=1) > 0)
        mixed = (1.0 - alpha) * q + alpha * p
        ratio = np.divide(p, mixed, out=np.ones_like(p), where=p > 0)
        found[start : start + CHUNK] = np.where(known, (p * np.log(ratio)).sum(axis=1), np.nan)
    return found
