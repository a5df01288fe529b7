"""The best of each row against a plain sort, in blocks and at once."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from recsys.graph.edges import Edges, top_of_blocks, top_of_rows


def test_the_best_of_each_row_by_hand() -> None:
    matrix = sp.csr_array(np.array([[9.0, 1.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0], [1.0, 4.0, 8.0, -5.0]]))
    assert top_of_rows(matrix, 2).toarray().tolist() == [[0, 0, 3, 2], [0, 0, 0, 0], [1, 4, 0, 0]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 40))
def test_blocks_give_what_the_whole_gives(seed: int, k: int, at_once: int) -> None:
    generator = np.random.default_rng(seed)
    dense = generator.integers(0, 4, size=(9, 9)).astype(np.float32)  # many ties
    matrix = sp.csr_array(dense)
    top = top_of_rows(matrix, k, at_once=at_once)
    np.testing.assert_array_equal(top.toarray(), top_of_rows(matrix, k).toarray())
    other = sp.csr_array(generator.random((9, 5)).astype(np.float32))
    product = sp.csr_array(other @ other.T)
    blocks = top_of_blocks(lambda low, high: sp.csr_array(other[low:high] @ other.T), np.full(9, 9), 9, k, at_once=at_once)
    np.testing.assert_allclose(blocks.toarray(), top_of_rows(product, k).toarray(), rtol=1e-6)
    np.fill_diagonal(dense, 0)
    for row, kept in zip(dense, top.toarray(), strict=True):
        # The values are those of a sort; which of equal ones is a matter of the hash.
        assert sorted(kept[kept > 0]) == sorted(np.sort(row[row > 0])[::-1][:k].tolist())
        assert (kept[kept > 0] == row[kept > 0]).all()


def test_a_tie_favours_no_number() -> None:
    n = 200
    top = top_of_rows(sp.csr_array(np.ones((n, n), dtype=np.float32)), 5)
    taken = np.bincount(top.indices, minlength=n)
    assert taken.sum() == 5 * n and taken.max() < 20
    assert abs(np.corrcoef(np.arange(n), taken)[0, 1]) < 0.3


def test_both_ways() -> None:
    edges = Edges(np.array([2, 0, 1]), np.array([0, 2, 2]), np.array([0.5, 0.25, 1.0], dtype=np.float32)).both_ways(3)
    assert list(zip(edges.sources.tolist(), edges.targets.tolist(), edges.weights.tolist(), strict=True)) == [
        (0, 2, 0.5),
        (1, 2, 1.0),
        (2, 0, 0.5),
        (2, 1, 1.0),
    ]
    assert len(Edges.none().both_ways(4)) == 0
    with pytest.raises(ValueError, match="different lengths"):
        Edges(np.zeros(1, dtype=np.int64), np.zeros(2, dtype=np.int64), np.zeros(1, dtype=np.float32))
