"""The k best columns of each row, the same on every run and machine."""

from __future__ import annotations

import numpy as np

from recsys.errors import NonFiniteError
from recsys.types import FloatArray, IntArray


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
    if np.isnan(scores).any():
        raise NonFiniteError(f"NaN among the scores of row {int(np.isnan(scores).any(axis=1).argmax())}: nothing can be ranked")
    kept = min(k, columns)
    if kept == 0 or rows == 0:
        return np.zeros((rows, kept), dtype=scores.dtype), np.zeros((rows, kept), dtype=np.int64)
    # A partition alone picks any of the columns that tie at the border; count them off from the left instead.
    border = np.partition(scores, columns - kept, axis=1)[:, columns - kept, None]
    above, at = scores > border, scores == border
    missing = kept - above.sum(axis=1, keepdims=True)
    chosen = above | (at & (np.cumsum(at, axis=1) <= missing))
    found = np.nonzero(chosen)[1].reshape(rows, kept)
    values = np.take_along_axis(scores, found, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(found, order, axis=1).astype(np.int64)
