"""`evaluate`: one scorer, the whole catalogue ranked for each case, in chunks of bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from recsys.data.split import Cases, Split
from recsys.errors import ConfigError, SpaceMismatchError
from recsys.evaluation.beyond_accuracy import catalogue_coverage
from recsys.evaluation.bootstrap import percentile_intervals
from recsys.evaluation.chunks import model_name, refuse_other_items, scored_chunks
from recsys.evaluation.metrics import METRICS, MetricArray, metric_of
from recsys.ranking.topk import top_k
from recsys.types import UNKNOWN_NUM, BoolArray, FloatArray, IntArray, Scorer


@dataclass(frozen=True)
class Evaluation:
    """One model on N cases.

    per_user: metric such as "ndcg@10" -> float64 (N,), rows in the order of the cases.
    user_nums, targets: int64 (N,) of the cases.  n_candidates: items that were ranked.
    better, tied: int64 (N,), the place of the targets (see `evaluation.metrics`).
    coverage: "coverage@10" -> share of the candidates that stand in the first 10 of at least one case.
    lists: int64 (N, K) item_num, best first, `UNKNOWN_NUM` where nothing is left to recommend; None where not asked for.
    """

    model: str
    user_nums: IntArray
    targets: IntArray
    per_user: Mapping[str, MetricArray]
    n_candidates: int
    better: IntArray
    tied: IntArray
    coverage: Mapping[str, float] = field(default_factory=dict)
    lists: IntArray | None = None

    @cached_property
    def _intervals(self) -> dict[int, dict[str, tuple[float, float]]]:
        """Seed -> metric -> interval, as far as they were asked for."""
        return {}

    @property
    def count(self) -> int:
        return len(self.targets)

    def __len__(self) -> int:
        return self.count

    def values(self, name: str) -> MetricArray:
        """float64 (N,) of a metric such as "ndcg@10". Raises ConfigError: it was not evaluated."""
        if name not in self.per_user:
            raise ConfigError(f"no metric {name!r}; evaluated were: {', '.join(self.per_user)}")
        return self.per_user[name]

    def mean(self, name: str) -> float:
        """NaN when there are no cases."""
        values = self.values(name)
        return float(values.mean()) if len(values) else float("nan")

    def interval(self, name: str, seed: int = 0) -> tuple[float, float]:
        """95 % percentile bootstrap over cases. Equal seed and number of cases draw the same cases for every model."""
        self.values(name)
        if seed not in self._intervals:
            # Most of the work is in the draws, so that all metrics together cost hardly more than one.
            found = percentile_intervals(np.stack(list(self.per_user.values()), axis=1), seed)
            self._intervals[seed] = {each: (float(low), float(high)) for each, (low, high) in zip(self.per_user, found, strict=True)}
        return self._intervals[seed][name]

    def where(self, mask: BoolArray) -> Evaluation:
        """The cases of `mask` bool (N,) alone; coverage belongs to the whole and is left out."""
        per_user = {name: values[mask] for name, values in self.per_user.items()}
        lists = None if self.lists is None else self.lists[mask]
        return Evaluation(self.model, self.user_nums[mask], self.targets[mask], per_user, self.n_candidates, self.better[mask], self.tied[mask], lists=lists)

    def to_json(self, *, seed: int = 0) -> dict[str, Any]:
        """Plain values; what is undefined (no cases) is null."""
        metrics: dict[str, Any] = {}
        for name in self.per_user:
            low, high = self.interval(name, seed)
            metrics[name] = {"mean": _or_none(self.mean(name)), "low": _or_none(low), "high": _or_none(high)}
        return {
            "model": self.model,
            "count": self.count,
            "n_candidates": self.n_candidates,
            "metrics": metrics,
            "coverage": {name: _or_none(value) for name, value in self.coverage.items()},
        }


def evaluate(
    scorer: Scorer,
    cases: Cases,
    *,
    metrics: Sequence[str] = tuple(METRICS),
    ks: Sequence[int] = (5, 10, 20),
    chunk: int | None = None,
    candidates: BoolArray | None = None,
    masked: bool = True,
    lists: bool = True,
    split: Split | None = None,
) -> Evaluation:
    """Rank every item for each case and take the metrics of its target.

    Masked are the items of `cases.seen` except the target. Items that are not scorable rank last; a target among them
    counts 0. Memory is bounded by chunk x n_items. Scores are compared as the scorer gives them: where another chunk or
    number of threads moves the last digit of a float32 sum, only targets that all but tie with an item can move.

    metrics: names of `METRICS`, each cut at all of `ks`.
    chunk: cases ranked at once; None chooses by the size of the catalogue.
    candidates: bool (n_items,): rank these alone (e.g. the cold items); None is all. Each target must be among them.
    masked: False ranks the history too, as RecBole's sequential evaluation does.
    split: of the cases; errors then name users by user_id, and a scorer of another vocabulary of items is refused.
    lists: False leaves out the recommended items and with them coverage: what early stopping needs, in less time.

    Raises:
        ConfigError: an unknown metric.
        NonFiniteError: NaN or infinity for a scorable item; names the model and the user.
        SpaceMismatchError: the cases, or the split, hold other items than the scorer was fitted on.
    """
    if not ks or min(ks) < 1 or (chunk is not None and chunk < 1):
        raise ValueError(f"cutoffs and chunk are positive, got ks = {tuple(ks)}, chunk = {chunk}")
    taken = {name: metric_of(name) for name in metrics}
    model = model_name(scorer)
    if split is not None:
        refuse_other_items(scorer, split)
    ranked = _ranked_items(scorer, cases, candidates, model)
    item_nums = np.flatnonzero(ranked & scorer.scorable_items()).astype(np.int64)
    column_of = np.full(scorer.n_items, -1, dtype=np.int64)
    column_of[item_nums] = np.arange(len(item_nums))
    # A miss until a score says otherwise: no cutoff reaches below the last item.
    better = np.full(len(cases), max(max(ks), scorer.n_items), dtype=np.int64)
    tied = np.ones(len(cases), dtype=np.int64)
    best = np.full((len(cases), max(ks)), UNKNOWN_NUM, dtype=np.int64) if lists else None

    def rank(rows: IntArray, scores: FloatArray) -> None:
        if masked:
            _mask_seen(scores, cases, rows, column_of)
        columns = column_of[cases.targets[rows]]
        scored = np.flatnonzero(columns >= 0)
        of_target = scores[scored, columns[scored]]
        for place, row, score in zip(scored.tolist(), rows[scored].tolist(), of_target, strict=True):
            better[row] = np.count_nonzero(scores[place] > score)
            tied[row] = np.count_nonzero(scores[place] == score)
        if best is not None:
            best_scores, best_columns = top_k(scores, max(ks))
            best[rows, : best_columns.shape[1]] = np.where(best_scores > -np.inf, item_nums[best_columns], UNKNOWN_NUM)

    # One thread: the product of a chunk takes a few milliseconds, and waiting for a second thread takes longer on a busy machine.
    # The ranking of a chunk is a second thread's while the next one is scored; a scorer need not know of threads.
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(max_workers=1) as second:
        ranking: Future[None] | None = None
        for rows, scores in scored_chunks(scorer, cases, item_nums, chunk=chunk, users=split.users if split else None, buffers=2):
            if ranking is not None:
                ranking.result()
            ranking = second.submit(rank, rows, scores)
        if ranking is not None:
            ranking.result()
    per_user = {f"{name}@{k}": metric(better, tied, k) for k in ks for name, metric in taken.items()}
    n_candidates = int(ranked.sum())
    coverage = {} if best is None else {f"coverage@{k}": catalogue_coverage(best[:, :k], n_candidates) for k in ks}
    return Evaluation(model, cases.user_nums, cases.targets, per_user, n_candidates, better, tied, coverage, best)


def _ranked_items(scorer: Scorer, cases: Cases, candidates: BoolArray | None, model: str) -> BoolArray:
    highest = max((int(nums.max()) for nums in (cases.targets, cases.seen.item_nums, cases.inputs.item_nums) if len(nums)), default=-1)
    if highest >= scorer.n_items:
        raise SpaceMismatchError(f"{model} was fitted on {scorer.n_items} items; the cases hold item_num {highest}: fit and evaluate on one split")
    if candidates is None:
        return np.ones(scorer.n_items, dtype=np.bool_)
    if candidates.shape != (scorer.n_items,) or candidates.dtype != np.bool_:
        raise SpaceMismatchError(f"candidates are {candidates.dtype} {candidates.shape}; {model} needs bool ({scorer.n_items},)")
    outside = cases.targets[~candidates[cases.targets]]
    if len(outside):
        raise ValueError(f"{len(outside)} targets are not among the candidates (first: item_num {outside[0]}): restrict the cases too")
    return candidates


def _mask_seen(scores: FloatArray, cases: Cases, rows: IntArray, column_of: IntArray) -> None:
    seen = [cases.seen[row] for row in rows.tolist()]
    places, item_nums = np.repeat(np.arange(len(rows)), [len(items) for items in seen]), np.concatenate(seen)
    columns = column_of[item_nums]
    masked = (columns >= 0) & (item_nums != cases.targets[rows][places])
    scores[places[masked], columns[masked]] = -np.inf


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
