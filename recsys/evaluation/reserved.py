"""What a list with reserved slots finds (`recsys.ranking.reserved`), from the ranks within the known and within the new items."""

from __future__ import annotations

from recsys.evaluation.metrics import MetricArray, expected_recall
from recsys.ranking.reserved import reserved_count
from recsys.types import IntArray

Ranks = tuple[IntArray, IntArray]
"""(better, tied), int64 (N,): see `evaluation.metrics`."""


def reserved_recall(known: Ranks, new: Ranks, k: int, share: float) -> tuple[MetricArray, MetricArray]:
    """Recall@k of the cases whose target is known, float64 (N,), and of those whose target is new, (N',).

    known: place of the target among known items alone, in the ranking of the model for them.  new: likewise.
    """
    reserved = reserved_count(k, share)
    of_known = expected_recall(*known, k - reserved) if reserved < k else expected_recall(*known, 1) * 0.0
    of_new = expected_recall(*new, reserved) if reserved else expected_recall(*new, 1) * 0.0
    return of_known, of_new
