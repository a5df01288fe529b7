"""What ItemKNN and EASE share: a history is a binary row, a score is its product with an item-item matrix."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from recsys.data.sequences import Sequences
from recsys.errors import DataError
from recsys.types import BoolArray, FloatArray, IntArray, Queries

_FEW = 4
"""One candidate in so many or fewer: their columns are collected first; else all are multiplied, and the candidates' taken."""


def binary_matrix(rows: Sequences, n_items: int) -> sp.csr_array:
    """float64 (rows, n_items): 1 where a row holds an item, however often."""
    matrix = sp.csr_array((np.ones(len(rows.item_nums)), (rows.row_nums(), rows.item_nums)), shape=(len(rows), n_items))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def multiply(queries: Queries, weights: FloatArray | sp.csc_array, item_nums: IntArray, n_items: int) -> FloatArray:
    """float32 (B, C): sum over the history's distinct items of `weights[history item, candidate]`.

    weights: (n_items, n_items), dense and in C order, or sparse.
    """
    rows = Sequences.of_rows([np.asarray(h, dtype=np.int64) for h in queries.histories])
    if len(rows.item_nums) and (rows.item_nums.min() < 0 or rows.item_nums.max() >= n_items):
        raise DataError(f"a history holds a number that is no item_num of this model (0..{n_items - 1}); leave unknown items out")
    history = binary_matrix(rows, n_items)
    if sp.issparse(weights):
        return np.asarray((history @ weights[:, item_nums]).toarray(), dtype=np.float32)
    # scipy copies a matrix of another dtype or order whole, and so does numpy for chosen columns: hundreds of megabytes a call.
    history = history.astype(weights.dtype)
    if len(item_nums) * _FEW < n_items:
        # Rows of what was met, columns of what is asked for: of one request a small corner of the matrix.
        met = np.unique(history.indices)
        return np.asarray(history[:, met] @ weights[np.ix_(met, item_nums)], dtype=np.float32)
    return np.asarray((history @ weights)[:, item_nums], dtype=np.float32)


def scorable_of(counts: IntArray) -> BoolArray:
    return counts > 0
