"""Is the difference between two models real? Paired over the test cases, each case with its mean over a model's seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from recsys.evaluation.metrics import MetricArray
from recsys.evaluation.run_values import Run, one_split, values_over_seeds
from recsys.evaluation.significance import compare_values, holm
from recsys.evaluation.slices import POPULARITY

LEVEL, POWER = 0.05, 0.8


@dataclass(frozen=True)
class MetricDifference:
    """A minus B over `count` cases. low, high: 95 % bootstrap interval.  relative: of B's mean.
    p_*: two-sided, uncorrected; holm: `p_bootstrap` corrected over the metrics asked for together.
    effect: Cohen's d_z.  better, worse, equal: cases in which A is so.
    detectable: the true difference that a paired test of this size finds 80 % of the time at level 0.05.
    """

    metric: str
    count: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    relative: float
    p_bootstrap: float
    p_t: float
    p_wilcoxon: float
    holm: float
    effect: float
    better: int
    worse: int
    equal: int
    detectable: float


@dataclass(frozen=True)
class SliceDifference:
    """Mean over seeds of a slice's metric for both models; a slice has no paired test, its cases are not in the record."""

    name: str
    metric: str
    count: int
    mean_a: float
    mean_b: float


def compare_runs(a: Sequence[Run], b: Sequence[Run], metrics: Sequence[str], *, seed: int = 0) -> list[MetricDifference]:
    """`a`, `b`: the seeds of one model each; their numbers may differ.

    Raises:
        ConfigError: an unknown metric; lists the known ones.
        DataError: the runs are not of one split; lists the files.
        ArtifactError: ranks that are missing, unreadable or of another run.
    """
    one_split([*a, *b], "comparison")
    of_a, of_b = values_over_seeds(a, metrics), values_over_seeds(b, metrics)
    found = [_difference(metric, of_a[metric], of_b[metric], seed) for metric in dict.fromkeys(metrics)]
    corrected = holm([d.p_bootstrap for d in found])
    return [MetricDifference(**{**vars(d), "holm": p}) for d, p in zip(found, corrected, strict=True)]


def compare_slices(a: Sequence[Run], b: Sequence[Run]) -> list[SliceDifference]:
    """The slices that all runs hold, one row a slice and metric: by popularity, by history length, by category."""
    shared = sorted((name for name in a[0][1].slices if all(name in record.slices for _, record in (*a, *b))), key=_in_order)
    return [
        SliceDifference(name, metric, int(a[0][1].slices[name].get("count") or 0), _slice_mean(a, name, metric), _slice_mean(b, name, metric))
        for name in shared
        for metric in a[0][1].slices[name]
        if metric != "count"
    ]


def verdict(d: MetricDifference, a: str, b: str) -> str:
    """One plain sentence."""
    if not math.isfinite(d.holm):
        return f"{d.metric}: no verdict, there are too few cases ({d.count})"
    if d.holm < LEVEL:
        word = "better" if d.difference > 0 else "worse"
        return f"{a} is {word} than {b} on {d.metric}: {d.difference:+.4f} [{d.low:+.4f}, {d.high:+.4f}], {p_text(d.holm)} after Holm"
    seen = f"; with {d.count:,} cases a difference of about {d.detectable:.4f} would be seen {POWER:.0%} of the time" if d.detectable > 0 else ""
    return f"{a} and {b} cannot be told apart on {d.metric}: {d.difference:+.4f} [{d.low:+.4f}, {d.high:+.4f}], {p_text(d.holm)} after Holm{seen}"


def p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def detectable_difference(difference: MetricArray) -> float:
    """Minimal detectable effect of a two-sided paired test, normal approximation: (z_0.975 + z_0.8) s / sqrt(N)."""
    if len(difference) < 2:
        return math.nan
    factor = float(stats.norm.ppf(1.0 - LEVEL / 2.0) + stats.norm.ppf(POWER))
    return factor * float(difference.std(ddof=1)) / math.sqrt(len(difference))


def _difference(metric: str, a: MetricArray, b: MetricArray, seed: int) -> MetricDifference:
    (found,) = compare_values({"A": a, "B": b}, "A", metric, seed=seed)
    mean_a, mean_b = (float(v.mean()) if len(v) else math.nan for v in (a, b))
    difference = a - b
    return MetricDifference(
        metric=metric,
        count=len(a),
        mean_a=mean_a,
        mean_b=mean_b,
        difference=found.difference,
        low=found.low,
        high=found.high,
        relative=found.difference / mean_b if mean_b else math.nan,
        p_bootstrap=found.p_bootstrap,
        p_t=found.p_t,
        p_wilcoxon=found.p_wilcoxon,
        holm=found.holm,
        effect=found.effect,
        better=int((difference > 0).sum()),
        worse=int((difference < 0).sum()),
        equal=int((difference == 0).sum()),
        detectable=detectable_difference(difference),
    )


def _in_order(name: str) -> tuple[int, int, str]:
    """A record's JSON sorts its keys: "history 11–20" before "history 6–10"."""
    if name in POPULARITY:
        return 0, POPULARITY.index(name), name
    kind, _, lengths = name.partition(" ")
    if kind == "history":
        return 1, int(re.split(r"\D", lengths)[0]), name
    return 2, 0, name


def _slice_mean(runs: Sequence[Run], name: str, metric: str) -> float:
    values = [value for _, record in runs if (value := record.slices[name].get(metric)) is not None]
    return float(np.mean(values)) if values else math.nan
