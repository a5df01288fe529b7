"""Cases by how often training saw their target."""

from __future__ import annotations

import numpy as np

from recsys.evaluation.evaluate import Evaluation
from recsys.types import BoolArray, IntArray

FEW = 5
HEAD_SHARE = 0.2
"""Head: the most popular fifth of the items beyond few-shot (ties at the border belong to it); the tail is the rest."""


def popularity_slices(targets: IntArray, item_counts: IntArray) -> dict[str, BoolArray]:
    """Disjoint masks bool (N,) that cover all cases: cold (0 training interactions), few-shot (1-5), tail, head.

    item_counts: int64 (n_items,), training interactions of each item.
    """
    counts = item_counts[targets]
    known = item_counts[item_counts > FEW]
    border = np.quantile(known, 1.0 - HEAD_SHARE, method="higher") if len(known) else np.inf
    return {
        "cold": counts == 0,
        "few-shot": (counts > 0) & (counts <= FEW),
        "tail": (counts > FEW) & (counts < border),
        "head": (counts > FEW) & (counts >= border),
    }


def sliced(evaluation: Evaluation, item_counts: IntArray) -> dict[str, Evaluation]:
    """The evaluation of each slice; an empty slice has count 0 and NaN means."""
    return {name: evaluation.where(mask) for name, mask in popularity_slices(evaluation.targets, item_counts).items()}


def bucket_masks(targets: IntArray, item_counts: IntArray, edges: tuple[int, ...] = (0, 5, 20, 50, 100, 200)) -> dict[str, BoolArray]:
    """Finer buckets for plots: label such as "6-20" -> mask bool (N,). Edges are inclusive upper ends; the last bucket is open."""
    counts = item_counts[targets]
    masks: dict[str, BoolArray] = {}
    low = 0
    for edge in edges:
        masks[str(edge) if low == edge else f"{low}–{edge}"] = (counts >= low) & (counts <= edge)
        low = edge + 1
    return {**masks, f"{low}+": counts >= low}
