"""Ranking metrics of one relevant item, exact under ties.

A target stands in a block of `tied` items with equal score (itself included) below `better` items with a higher one.
Each metric is its expectation over all orders of the block, so that a constant scorer gets what chance gives and no
result hangs on how a sort breaks ties (McSherry and Najork, "Computing information retrieval performance measures
efficiently in the presence of tied scores", ECIR 2008).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from recsys.errors import ConfigError
from recsys.types import IntArray

MetricArray = npt.NDArray[np.float64]


def expected_recall(better: IntArray, tied: IntArray, k: int) -> MetricArray:
    """float64 (N,): probability that the target is among the first k.

    >>> expected_recall(np.array([0, 10, 9]), np.array([1, 1, 2]), 10).tolist()  # the last is tied with one other item for place 10
    [1.0, 0.0, 0.5]
    """
    return np.clip((k - better) / tied, 0.0, 1.0)


def expected_ndcg(better: IntArray, tied: IntArray, k: int) -> MetricArray:
    """float64 (N,): gain 1/log2(rank + 1) within k; the ideal gain of one target is 1 (Järvelin and Kekäläinen, 2002)."""
    return _block_mean(1.0 / np.log2(np.arange(2, k + 2)), better, tied)


def expected_mrr(better: IntArray, tied: IntArray, k: int) -> MetricArray:
    """float64 (N,): 1/rank within k."""
    return _block_mean(1.0 / np.arange(1, k + 1), better, tied)


def expected_precision(better: IntArray, tied: IntArray, k: int) -> MetricArray:
    """float64 (N,): share of the first k that is relevant; with one target, recall / k."""
    return expected_recall(better, tied, k) / k


Metric = Callable[[IntArray, IntArray, int], MetricArray]

METRICS: Mapping[str, Metric] = {
    "recall": expected_recall,
    "ndcg": expected_ndcg,
    "mrr": expected_mrr,
    # With one target a hit is a recall of 1, and the average precision is the precision at its own rank.
    "hit": expected_recall,
    "precision": expected_precision,
    "map": expected_mrr,
}


def metric_of(name: str) -> Metric:
    """Raises ConfigError: no such metric; lists the known ones."""
    if name not in METRICS:
        raise ConfigError(f"unknown metric {name!r}; known are: {', '.join(METRICS)}")
    return METRICS[name]


def _block_mean(gains: MetricArray, better: IntArray, tied: IntArray) -> MetricArray:
    """Mean gain over the ranks better+1 .. better+tied; `gains` (k,) holds rank 1..k, later ranks gain nothing."""
    k = len(gains)
    running = np.concatenate(([0.0], np.cumsum(gains)))
    first = np.minimum(better, k)
    # A block of one is read from the table itself: the difference of running sums would lose the last digits.
    alone = np.where(better < k, gains[np.minimum(better, k - 1)], 0.0)
    return np.where(tied == 1, alone, (running[np.minimum(better + tied, k)] - running[first]) / tied)
