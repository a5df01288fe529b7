"""The k best columns of each row, the same on every run and machine."""

from __future__ import annotations

import numpy as np

from recsys.errors import NonFiniteError
from recsys.types import FloatArray, IntArray

GROUPS = 16
"""Columns that share one maximum in the first, coarse pass."""


def top_k(scores: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
    """Best first: (scores (B, m), columns int64 (B, m)) with m = min(k, C); equal scores go by the lower column.

    scores: float (B, C). -inf marks masked columns: they come last and are the caller's to drop where a row has fewer
    than m others.

    Raises:
        NonFiniteError: a NaN, which has no place in an order.
    """
    if scores.ndim != 2 or k < 0:
        raise ValueError(f"scores (B, C) and k >= 0 are needed, got shape {scores.shape} and k = {k}")
    rows, columns = scores.shape
    kept = min(k, columns)
    if kept == 0 or rows == 0:
        _refuse_nan(scores, scores)
        return np.zeros((rows, kept), dtype=scores.dtype), np.zeros((rows, kept), dtype=np.int64)
    bound = _bound(scores, kept)
    chosen = scores >= bound
    counts = np.fromiter(map(np.count_nonzero, chosen), dtype=np.int64, count=rows)
    for row in np.flatnonzero(counts > 2 * kept + GROUPS).tolist():
        chosen[row] = False
        chosen[row, _exactly(scores[row], bound[row, 0], kept)] = True
        counts[row] = kept
    row_nums, found = np.divmod(np.flatnonzero(chosen), columns)
    values = scores[row_nums, found]
    # Found from left to right in each row, and the sort is stable.
    order = np.lexsort((-values, row_nums))
    first = order[(np.cumsum(counts) - counts)[:, None] + np.arange(kept)]
    return values[first], found[first]


def _bound(scores: FloatArray, kept: int) -> FloatArray:
    """(B, 1): no higher than the kept-th best of each row, and close to it. Each of the kept best maxima of disjoint
    groups of columns is a score of its own, so at least `kept` scores reach the least of them."""
    rows, columns = scores.shape
    width = max(-(-columns // GROUPS), min(2 * kept, columns))
    full = columns // width
    maxima = np.maximum.reduce(scores[:, : full * width].reshape(rows, full, width), axis=1)
    rest = scores[:, full * width :]
    np.maximum(maxima[:, : rest.shape[1]], rest, out=maxima[:, : rest.shape[1]])
    _refuse_nan(maxima, scores)
    bound: FloatArray = np.partition(maxima, width - kept, axis=1)[:, width - kept, None]
    return bound


def _exactly(row: FloatArray, bound: np.floating, kept: int) -> IntArray:
    """The `kept` best columns of a row (C,), in no order. A partition alone picks any of those that tie at the border;
    here they are counted off from the left."""
    # No higher than the border: with fewer than `kept` above it, it is the border. Long blocks of ties end here.
    border = bound if np.count_nonzero(row > bound) < kept else np.partition(row, len(row) - kept)[len(row) - kept]
    above = np.flatnonzero(row > border)
    return np.concatenate([above, np.flatnonzero(row == border)[: kept - len(above)]])


def _refuse_nan(maxima: FloatArray, scores: FloatArray) -> None:
    """A maximum over a NaN is NaN, so the maxima speak for all scores."""
    if np.isnan(maxima).any():
        raise NonFiniteError(f"NaN among the scores of row {int(np.isnan(scores).any(axis=1).argmax())}: nothing can be ranked")
