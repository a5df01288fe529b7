"""Is a difference between two models on the same cases more than chance? Three paired tests and Holm's correction.

The t-test and the bootstrap agree with a permutation test on retrieval metrics (Smucker, Allan and Carterette, CIKM
2007); Wilcoxon is there for readers who expect it, though it tests the sign-ranked median, not the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from recsys.evaluation.bootstrap import RESAMPLES, resampled_means
from recsys.evaluation.evaluate import Evaluation
from recsys.evaluation.metrics import MetricArray


@dataclass(frozen=True)
class Comparison:
    """`model` minus `baseline` on one metric over the same `count` cases. low, high: 95 % bootstrap interval of the
    difference. p_*: two-sided, uncorrected; holm: `p_bootstrap` corrected over the comparisons made together."""

    model: str
    baseline: str
    metric: str
    count: int
    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_t: float
    p_wilcoxon: float
    holm: float


def compare(evaluations: Mapping[str, Evaluation], model: str, metric: str, *, seed: int = 0, resamples: int = RESAMPLES) -> list[Comparison]:
    """`model` against each other model, corrected together. Without cases all numbers are NaN.

    Raises:
        ValueError: the evaluations are not of the same cases in the same order.
    """
    own = evaluations[model]
    tests: list[tuple[str, MetricArray, tuple[float, float, float]]] = []
    for name, other in evaluations.items():
        if name == model:
            continue
        if not (np.array_equal(own.user_nums, other.user_nums) and np.array_equal(own.targets, other.targets)):
            raise ValueError(f"{model!r} and {name!r} were evaluated on different cases: a paired test needs the same ones in one order")
        difference = own.per_user[metric] - other.per_user[metric]
        tests.append((name, difference, (paired_bootstrap(difference, seed, resamples), paired_t(difference), wilcoxon(difference))))
    corrected = holm([p[0] for _, _, p in tests])
    return [
        Comparison(model, name, metric, len(difference), *_estimate(difference, seed, resamples), *p, adjusted)
        for (name, difference, p), adjusted in zip(tests, corrected, strict=True)
    ]


def paired_bootstrap(difference: MetricArray, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Two-sided p: how often the mean of a resample of the centred differences is as far from 0 as the one observed
    (Efron and Tibshirani, 1993, algorithm 16.2). Never below 1 / (resamples + 1)."""
    if not len(difference):
        return float("nan")
    observed = float(difference.mean())
    means = resampled_means(difference - observed, seed, resamples)
    # Rounding must not make a tie (all differences zero) look rarer than it is.
    return float((1 + (np.abs(means) >= abs(observed) - 1e-15).sum()) / (resamples + 1))


def paired_t(difference: MetricArray) -> float:
    """Two-sided p; 1 where all differences are zero, NaN below two cases."""
    if len(difference) < 2:
        return float("nan")
    if not difference.any():
        return 1.0
    if np.ptp(difference) == 0:
        return 0.0
    return float(stats.ttest_1samp(difference, 0.0).pvalue)


def wilcoxon(difference: MetricArray) -> float:
    """Two-sided signed-rank p, zero differences dropped; 1 where all are zero, NaN without cases."""
    if not len(difference):
        return float("nan")
    return float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0


def holm(p_values: list[float]) -> list[float]:
    """Adjusted p in the order given (Holm, 1979). NaN stays NaN and does not count as a test."""
    order = [i for i in np.argsort(p_values, kind="stable").tolist() if not np.isnan(p_values[i])]
    adjusted, running = list(p_values), 0.0
    for place, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - place) * p_values[i]))
        adjusted[i] = running
    return adjusted


def _estimate(difference: MetricArray, seed: int, resamples: int) -> tuple[float, float, float]:
    if not len(difference):
        return (float("nan"),) * 3
    low, high = np.quantile(resampled_means(difference, seed, resamples), (0.025, 0.975))
    return float(difference.mean()), float(low), float(high)
