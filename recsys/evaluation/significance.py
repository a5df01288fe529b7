"""Is a difference between two models on the same cases more than chance? Three paired tests and Holm's correction.

The t-test and the bootstrap agree with a permutation test on retrieval metrics (Smucker, Allan and Carterette, CIKM
2007); Wilcoxon is there for readers who expect it, though it tests the sign-ranked median, not the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from recsys.errors import ConfigError
from recsys.evaluation.bootstrap import RESAMPLES, resampled_means
from recsys.evaluation.evaluate import Evaluation
from recsys.evaluation.metrics import MetricArray


@dataclass(frozen=True)
class Comparison:
    """`model` minus `baseline` on one metric over the same `count` cases. low, high: 95 % bootstrap interval of the
    difference. p_*: two-sided, uncorrected; holm, holm_t, holm_wilcoxon: `p_bootstrap`, `p_t` and `p_wilcoxon`, each corrected
    over the comparisons made together. effect: Cohen's d_z (see `cohen_dz`). better, worse, equal: shares of the cases."""

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
    holm_t: float
    holm_wilcoxon: float
    effect: float
    better: float
    worse: float
    equal: float


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of a metric over `seeds` trainings; the deviation of one is NaN."""

    mean: float
    deviation: float
    seeds: int


def compare(
    evaluations: Mapping[str, Evaluation | Sequence[Evaluation]], model: str, metric: str, *, seed: int = 0, resamples: int = RESAMPLES
) -> list[Comparison]:
    """`model` against each other model, corrected together. Without cases all numbers are NaN. Several evaluations under
    one name are its seeds: each case counts with its mean over them.

    Raises:
        ConfigError: `model` or `metric` was not evaluated.
        ValueError: the evaluations are not of the same cases in the same order.
    """
    seeds = {name: (runs,) if isinstance(runs, Evaluation) else tuple(runs) for name, runs in evaluations.items()}
    if model not in seeds:
        raise ConfigError(f"no model {model!r}; evaluated were: {', '.join(seeds)}")
    for name, runs in seeds.items():
        _refuse_other_cases(model, seeds[model][0], name, runs)
    return compare_values({name: mean_over_seeds(runs, metric) for name, runs in seeds.items()}, model, metric, seed=seed, resamples=resamples)


def compare_values(values: Mapping[str, MetricArray], model: str, metric: str, *, seed: int = 0, resamples: int = RESAMPLES) -> list[Comparison]:
    """`compare` of plain arrays: model -> float64 (N,), equal rows being the same case."""
    differences = {name: values[model] - other for name, other in values.items() if name != model}
    resampled = {name: resampled_means(d, seed, resamples) if len(d) else d for name, d in differences.items()}
    p_values = {name: (_bootstrap_p(d, resampled[name]), paired_t(d), wilcoxon(d)) for name, d in differences.items()}
    corrected = zip(*(holm([p[test] for p in p_values.values()]) for test in range(3)), strict=True)
    comparisons = []
    for (name, d), (by_bootstrap, by_t, by_wilcoxon) in zip(differences.items(), corrected, strict=True):
        estimate, tests, shares = _estimate(d, resampled[name]), p_values[name], _shares(d)
        comparisons.append(Comparison(model, name, metric, len(d), *estimate, *tests, by_bootstrap, by_t, by_wilcoxon, cohen_dz(d), *shares))
    return comparisons


def mean_over_seeds(evaluations: Sequence[Evaluation], metric: str) -> MetricArray:
    """float64 (N,): each case's mean over trainings with different seeds. Seeds are no cases: tests take these means,
    for as many rows as there are seeds would make any difference look certain.

    Raises:
        ValueError: no evaluations, or not of the same cases.
    """
    if not evaluations:
        raise ValueError("the mean over seeds needs an evaluation or more, got none")
    _refuse_other_cases("the first seed", evaluations[0], "another", evaluations[1:])
    mean: MetricArray = np.mean([e.values(metric) for e in evaluations], axis=0)
    return mean


def spread_over_seeds(evaluations: Sequence[Evaluation], metric: str) -> Spread:
    """The metric's mean in each training, described over the trainings."""
    means = np.array([e.mean(metric) for e in evaluations])
    mean = float(means.mean()) if len(means) else float("nan")
    return Spread(mean, float(means.std(ddof=1)) if len(means) > 1 else float("nan"), len(means))


def cohen_dz(difference: MetricArray) -> float:
    """Mean over sample standard deviation of the paired differences (Cohen, 1988; Lakens, Frontiers in Psychology 2013).
    0 where all are zero, infinite where all are equal otherwise, NaN below two cases."""
    if len(difference) < 2:
        return float("nan")
    mean = float(difference.mean())
    if np.ptp(difference) == 0:
        return float(np.copysign(np.inf, mean)) if mean else 0.0
    return mean / float(difference.std(ddof=1))


def paired_bootstrap(difference: MetricArray, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Two-sided p: how often the mean of a resample of the centred differences is as far from 0 as the one observed
    (Efron and Tibshirani, 1993, algorithm 16.2). Never below 1 / (resamples + 1)."""
    if not len(difference):
        return float("nan")
    return _bootstrap_p(difference, resampled_means(difference, seed, resamples))


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


def _bootstrap_p(difference: MetricArray, means: MetricArray) -> float:
    if not len(difference):
        return float("nan")
    observed = float(difference.mean())
    # The mean of a resample of centred differences is that of the same draws, less the mean observed.
    # Rounding must not make a tie (all differences zero) look rarer than it is.
    return float((1 + (np.abs(means - observed) >= abs(observed) - 1e-15).sum()) / (len(means) + 1))


def _estimate(difference: MetricArray, means: MetricArray) -> tuple[float, float, float]:
    if not len(difference):
        return (float("nan"),) * 3
    low, high = np.quantile(means, (0.025, 0.975))
    return float(difference.mean()), float(low), float(high)


def _shares(difference: MetricArray) -> tuple[float, float, float]:
    if not len(difference):
        return (float("nan"),) * 3
    return float((difference > 0).mean()), float((difference < 0).mean()), float((difference == 0).mean())


def _refuse_other_cases(model: str, own: Evaluation, name: str, others: Sequence[Evaluation]) -> None:
    for other in others:
        if not (np.array_equal(own.user_nums, other.user_nums) and np.array_equal(own.targets, other.targets)):
            raise ValueError(f"{model!r} and {name!r} were evaluated on different cases: a paired test needs the same ones in one order")
