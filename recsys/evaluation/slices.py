"""Cases by how often training saw their target, by the length of their history and by the category of their target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from recsys.evaluation.evaluate import Evaluation
from recsys.types import BoolArray, IntArray

FEW = 5
HEAD_SHARE = 0.2
"""Head: the most popular fifth of the items beyond few-shot (ties at the border belong to it); the tail is the rest."""
POPULARITY = ("cold", "few-shot", "tail", "head")
"""Of `popularity_slices`, rarest targets first."""
NO_CATEGORY = "no category"


def popularity_slices(targets: IntArray, item_counts: IntArray) -> dict[str, BoolArray]:
    """Disjoint masks bool (N,) that cover all cases: cold (0 training interactions), few-shot (1-5), tail, head.

    item_counts: int64 (n_items,), training interactions of each item.
    """
    counts = item_counts[targets]
    known = item_counts[item_counts > FEW]
    border = np.quantile(known, 1.0 - HEAD_SHARE, method="higher") if len(known) else np.inf
    masks = (counts == 0, (counts > 0) & (counts <= FEW), (counts > FEW) & (counts < border), (counts > FEW) & (counts >= border))
    return dict(zip(POPULARITY, masks, strict=True))


def history_slices(lengths: IntArray, edges: tuple[int, ...] = (0, 5, 10, 20, 50)) -> dict[str, BoolArray]:
    """Disjoint masks bool (N,) that cover all cases, such as "6–10" -> mask. lengths: int64 (N,), `cases.inputs.lengths`."""
    return _buckets(lengths, edges)


def category_slices(targets: IntArray, categories: Sequence[Sequence[str]]) -> dict[str, BoolArray]:
    """category -> bool (N,), in the order of their names; `NO_CATEGORY` for targets without any. A target of several
    categories counts in each: these slices overlap.

    categories: one row an item_num, as `ItemCatalog.categories()` gives them.
    """
    rows_of: dict[str, list[int]] = {name: [] for name in sorted({name for names in categories for name in names})}
    rows_of[NO_CATEGORY] = []
    for row, target in enumerate(targets.tolist()):
        for name in set(categories[target]) or (NO_CATEGORY,):
            rows_of[name].append(row)
    masks = {name: np.zeros(len(targets), dtype=np.bool_) for name in rows_of}
    for name, rows in rows_of.items():
        masks[name][rows] = True
    return masks


def parts_of(evaluation: Evaluation, masks: Mapping[str, BoolArray]) -> dict[str, Evaluation]:
    """The evaluation of each slice; an empty slice has count 0 and NaN means."""
    return {name: evaluation.where(mask) for name, mask in masks.items()}


def sliced(evaluation: Evaluation, item_counts: IntArray) -> dict[str, Evaluation]:
    """`parts_of` the popularity slices."""
    return parts_of(evaluation, popularity_slices(evaluation.targets, item_counts))


def bucket_masks(targets: IntArray, item_counts: IntArray, edges: tuple[int, ...] = (0, 5, 20, 50, 100, 200)) -> dict[str, BoolArray]:
    """Finer buckets of popularity for plots: label such as "6–20" -> mask bool (N,)."""
    return _buckets(item_counts[targets], edges)


def _buckets(values: IntArray, edges: tuple[int, ...]) -> dict[str, BoolArray]:
    """Edges are inclusive upper ends; the last bucket is open."""
    masks: dict[str, BoolArray] = {}
    low = 0
    for edge in edges:
        masks[str(edge) if low == edge else f"{low}–{edge}"] = (values >= low) & (values <= edge)
        low = edge + 1
    return {**masks, f"{low}+": values >= low}
