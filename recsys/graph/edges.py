"""`Edges`: weighted edges as three columns, and the best few of each row of a sparse matrix."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsys.types import BoolArray, FloatArray, IntArray

AT_ONCE = 8_000_000
"""Entries of a sparse product that are held and sorted together: some 400 MB."""


@dataclass(frozen=True)
class Edges:
    """sources, targets: int64 (E,).  weights: float32 (E,), positive."""

    sources: IntArray
    targets: IntArray
    weights: FloatArray

    def __post_init__(self) -> None:
        if not len(self.sources) == len(self.targets) == len(self.weights):
            raise ValueError("columns of different lengths")

    def __len__(self) -> int:
        return len(self.sources)

    @classmethod
    def none(cls) -> Edges:
        return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))

    @classmethod
    def of_matrix(cls, matrix: sp.csr_array) -> Edges:
        """Row to column."""
        rows = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
        return cls(rows, matrix.indices.astype(np.int64), matrix.data.astype(np.float32))

    def both_ways(self, n_nodes: int) -> Edges:
        """Each edge in both directions, sorted by (source, target); of two weights of one edge the larger."""
        matrix = sp.csr_array((self.weights, (self.sources, self.targets)), shape=(n_nodes, n_nodes))
        return Edges.of_matrix(sp.csr_array(matrix.maximum(matrix.T)))


def top_of_rows(matrix: sp.csr_array, k: int, *, at_once: int = AT_ONCE) -> sp.csr_array:
    """The k largest positive entries of each row, the diagonal left out. At a tie a hash of the two decides, so that no column is favoured by its number."""

    def rows(low: int, high: int) -> sp.csr_array:
        return sp.csr_array(matrix[low:high])

    return top_of_blocks(rows, np.diff(matrix.indptr).astype(np.int64), matrix.shape[1], k, at_once=at_once)


def top_of_blocks(rows: Callable[[int, int], sp.csr_array], costs: IntArray, n_columns: int, k: int, *, at_once: int = AT_ONCE) -> sp.csr_array:
    """`top_of_rows` of a matrix that is never held as a whole: rows(low, high) makes those rows of it.

    costs: int64 (n,), entries that a row takes at most; blocks take at most `at_once`, or one row.
    """
    kept = [_top_of_block(rows(low, high), low, k) for low, high in _blocks(costs, at_once)]
    if not kept:
        return sp.csr_array(np.zeros((0, n_columns), dtype=np.float32))
    return sp.csr_array(sp.vstack(kept, format="csr"))


def _top_of_block(block: sp.csr_array, first_row: int, k: int) -> sp.csr_array:
    rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
    columns, weights = block.indices, block.data
    fine = (weights > 0) & (columns != rows + first_row)
    rows, columns, weights = rows[fine], columns[fine], weights[fine].astype(np.float32)
    near = _near_the_top(rows, weights, block.shape[0], k)
    rows, columns, weights = rows[near], columns[near], weights[near]
    order = np.lexsort((_hashed(rows + first_row, columns), -weights, rows))
    rows, columns, weights = rows[order], columns[order], weights[order]
    starts = np.searchsorted(rows, np.arange(block.shape[0]))
    kept = np.arange(len(rows)) - starts[rows] < k
    top = sp.csr_array((weights[kept], (rows[kept], columns[kept])), shape=block.shape)
    top.sort_indices()
    return top


def _near_the_top(rows: npt.NDArray[np.integer], weights: FloatArray, n_rows: int, k: int) -> BoolArray:
    """bool (M,): not below the k-th weight of its row. One sort of plain numbers is ten times faster than a sort of all columns."""
    # The bits of positive floats are in their order.
    keys = (rows.astype(np.uint64) << np.uint64(32)) | (np.uint64(0xFFFFFFFF) - weights.view(np.uint32).astype(np.uint64))
    ends = np.bincount(rows, minlength=n_rows).cumsum()
    last = np.minimum(np.concatenate([[0], ends[:-1]]) + k, ends) - 1
    limits = np.sort(keys)[last] if len(keys) else keys
    near: BoolArray = keys <= limits[rows] if len(keys) else np.zeros(0, dtype=np.bool_)
    return near


def _hashed(rows: npt.NDArray[np.integer], columns: npt.NDArray[np.integer]) -> npt.NDArray[np.uint32]:
    """uint32, the same for (a, b) and (b, a)."""
    low, high = np.minimum(rows, columns).astype(np.uint64), np.maximum(rows, columns).astype(np.uint64)
    mixed = (low * np.uint64(0x9E3779B97F4A7C15)) ^ (high * np.uint64(0xC2B2AE3D27D4EB4F))
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    upper: npt.NDArray[np.uint32] = (mixed >> np.uint64(32)).astype(np.uint32)
    return upper


def _blocks(costs: IntArray, at_once: int) -> Iterator[tuple[int, int]]:
    running, cuts = np.cumsum(costs), [0]
    while cuts[-1] < len(costs):
        before = running[cuts[-1] - 1] if cuts[-1] else 0
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(running, before + at_once, side="right"))))
    return itertools.pairwise(cuts)
