"""Percentile bootstrap over cases (Efron and Tibshirani, 1993), seeded and in blocks of bounded memory."""

from __future__ import annotations

import numpy as np

from recsys.evaluation.metrics import MetricArray
from recsys.rng import numpy_generator

RESAMPLES = 2000
BLOCK = 4_000_000
"""Drawn indices held at once (32 MB)."""


def resampled_means(values: MetricArray, seed: int, resamples: int = RESAMPLES) -> MetricArray:
    """float64 (resamples, ...): means of N draws with replacement of values (N, ...), NaN without any. The draws follow from
    seed and N alone, so two arrays of the same cases are resampled together (paired)."""
    generator = numpy_generator(seed, "evaluation", "bootstrap")
    n = len(values)
    means = np.full((resamples, *values.shape[1:]), np.nan)
    step = max(1, BLOCK // max(n, 1))
    for start in range(0, resamples if n else 0, step):
        stop = min(start + step, resamples)
        # How often each case was drawn, once for all columns: cheaper than to gather their values.
        times = np.stack([np.bincount(drawn, minlength=n) for drawn in generator.integers(0, n, size=(stop - start, n))])
        means[start:stop] = times.astype(np.float64) @ values / n
    return means


def percentile_interval(values: MetricArray, seed: int, *, level: float = 0.95, resamples: int = RESAMPLES) -> tuple[float, float]:
    """(low, high) of values (N,); (NaN, NaN) without any."""
    low, high = percentile_intervals(values[:, None], seed, level=level, resamples=resamples)[0].tolist()
    return low, high


def percentile_intervals(values: MetricArray, seed: int, *, level: float = 0.95, resamples: int = RESAMPLES) -> MetricArray:
    """float64 (M, 2), low and high of each column of values (N, M); NaN without rows."""
    if not len(values):
        return np.full((values.shape[1], 2), np.nan)
    tail = (1.0 - level) / 2.0
    return np.quantile(resampled_means(values, seed, resamples), (tail, 1.0 - tail), axis=0).T
