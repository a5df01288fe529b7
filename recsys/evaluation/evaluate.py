"""`evaluate`: one scorer, the whole catalogue ranked for each case, in chunks of bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recsys.data.split import Cases
from recsys.errors import NonFiniteError, SpaceMismatchError
from recsys.evaluation.bootstrap import percentile_interval
from recsys.evaluation.metrics import METRICS, MetricArray
from recsys.ranking.topk import top_k
from recsys.types import BoolArray, FloatArray, IntArray, Scorer


@dataclass(frozen=True)
class Evaluation:
    """One model on N cases.

    per_user: metric such as "ndcg@10" -> float64 (N,), rows in the order of the cases.
    user_nums, targets: int64 (N,) of the cases.  n_candidates: items that were ranked.
    coverage: "coverage@10" -> share of the candidates that stand in the first 10 of at least one case.
    """

    model: str
    user_nums: IntArray
    targets: IntArray
    per_user: Mapping[str, MetricArray]
    n_candidates: int
    coverage: Mapping[str, float] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.targets)

    def __len__(self) -> int:
        return self.count

    def mean(self, name: str) -> float:
        """NaN when there are no cases."""
        values = self._values(name)
        return float(values.mean()) if len(values) else float("nan")

    def interval(self, name: str, seed: int = 0) -> tuple[float, float]:
        """95 % percentile bootstrap over cases. Equal seed and number of cases draw the same cases for every model."""
        return percentile_interval(self._values(name), seed)

    def where(self, mask: BoolArray) -> Evaluation:
        """The cases of `mask` bool (N,) alone; coverage belongs to the whole and is left out."""
        return Evaluation(self.model, self.user_nums[mask], self.targets[mask], {k: v[mask] for k, v in self.per_user.items()}, self.n_candidates)

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

    def _values(self, name: str) -> MetricArray:
        if name not in self.per_user:
            raise KeyError(f"no metric {name!r}; evaluated were: {', '.join(self.per_user)}")
        return self.per_user[name]


def evaluate(scorer: Scorer, cases: Cases, *, ks: Sequence[int] = (5, 10, 20), chunk: int = 256, candidates: BoolArray | None = None) -> Evaluation:
    """Rank every item for each case and take the metrics of its target.

    Masked are the items of `cases.seen` except the target. Items that are not scorable rank last; a target among them
    counts 0. Memory is bounded by chunk x n_items.

    candidates: bool (n_items,): rank these alone (e.g. the cold items); None is all. Each target must be among them.

    Raises:
        NonFiniteError: NaN or infinity for a scorable item; names the model and the user.
        SpaceMismatchError: the cases hold items that the scorer was not fitted on.
    """
    if not ks or min(ks) < 1 or chunk < 1:
        raise ValueError(f"cutoffs and chunk are positive, got ks = {tuple(ks)}, chunk = {chunk}")
    model = model_name(scorer)
    ranked = _ranked_items(scorer, cases, candidates, model)
    item_nums = np.flatnonzero(ranked & scorer.scorable_items()).astype(np.int64)
    column_of = np.full(scorer.n_items, -1, dtype=np.int64)
    column_of[item_nums] = np.arange(len(item_nums))
    # A miss until a score says otherwise: no cutoff reaches below the last item.
    better = np.full(len(cases), max(max(ks), scorer.n_items), dtype=np.int64)
    tied = np.ones(len(cases), dtype=np.int64)
    shown = {k: np.zeros(len(item_nums), dtype=np.bool_) for k in ks}
    queries = cases.queries()
    for start in range(0, len(cases) if len(item_nums) else 0, chunk):
        stop = min(start + chunk, len(cases))
        scores = _scores(scorer, cases, start, stop, item_nums, queries.slice(start, stop), model)
        targets = cases.targets[start:stop]
        _mask_seen(scores, cases, start, stop, column_of)
        scored = np.flatnonzero(column_of[targets] >= 0)
        of_target = scores[scored, column_of[targets[scored]]][:, None]
        better[start + scored] = (scores[scored] > of_target).sum(axis=1)
        tied[start + scored] = (scores[scored] == of_target).sum(axis=1)
        best_scores, best = top_k(scores, max(ks))
        for k, columns in shown.items():
            columns[best[:, :k][np.isfinite(best_scores[:, :k])]] = True
    per_user = {f"{name}@{k}": metric(better, tied, k) for k in ks for name, metric in METRICS.items()}
    n_candidates = int(ranked.sum())
    coverage = {f"coverage@{k}": float(columns.sum() / n_candidates) if len(cases) and n_candidates else float("nan") for k, columns in shown.items()}
    return Evaluation(model, cases.user_nums, cases.targets, per_user, n_candidates, coverage)


def model_name(scorer: Scorer) -> str:
    """Class name, and the scorer's own name where it has one."""
    own = getattr(scorer, "name", None)
    return f"{type(scorer).__name__} {own!r}" if isinstance(own, str) else type(scorer).__name__


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


def _scores(scorer: Scorer, cases: Cases, start: int, stop: int, item_nums: IntArray, queries: Any, model: str) -> FloatArray:
    """A writable copy (B, C), checked for shape and finite values."""
    scores = np.array(scorer.score(queries, item_nums))
    if scores.shape != (stop - start, len(item_nums)):
        raise ValueError(f"{model} returned scores of shape {scores.shape} for {stop - start} queries and {len(item_nums)} items")
    finite = np.isfinite(scores)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise NonFiniteError(
            f"{model} scored {scores[row, column]} for user_num {cases.user_nums[start + row]}, item_num {item_nums[column]} "
            f"({int((~finite).sum())} such values in this chunk): scores of scorable items are finite"
        )
    return scores


def _mask_seen(scores: FloatArray, cases: Cases, start: int, stop: int, column_of: IntArray) -> None:
    seen = cases.seen[start:stop]
    rows, columns = seen.row_nums(), column_of[seen.item_nums]
    masked = (columns >= 0) & (seen.item_nums != cases.targets[start:stop][rows])
    scores[rows[masked], columns[masked]] = -np.inf


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
