"""Percentile bootstrap over cases (Efron and Tibshirani, 1993), seeded and in blocks of bounded memory."""

from __future__ import annotations

import numpy as np

from recsys.evaluation.metrics import MetricArray
from recsys.rng import numpy_generator

RESAMPLES = 2000
BLOCK = 4_000_000
"""Drawn indices held at once (32 MB)."""


def resampled_means(values: MetricArray, seed: int, resamples: int = RESAMPLES) -> MetricArray:
    """float64 (resamples,): means of N draws with replacement. The draws follow from seed and N alone, so two arrays
    of the same cases are resampled together (paired)."""
    generator = numpy_generator(seed, "evaluation", "bootstrap")
    n = len(values)
    means = np.empty(resamples, dtype=np.float64)
    step = max(1, BLOCK // n)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        means[start:stop] = values[generator.integers(0, n, size=(stop - start, n))].mean(axis=1)
    return means


def percentile_interval(values: MetricArray, seed: int, *, level: float = 0.95, resamples: int = RESAMPLES) -> tuple[float, float]:
    """(low, high); (NaN, NaN) without values."""
    if not len(values):
        return float("nan"), float("nan")
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(resampled_means(values, seed, resamples), (tail, 1.0 - tail))
    return float(low), float(high)
