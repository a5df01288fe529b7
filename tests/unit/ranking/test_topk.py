import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import NonFiniteError
from recsys.ranking.topk import top_k


@given(st.lists(st.lists(st.integers(-3, 3), min_size=7, max_size=7), min_size=1, max_size=5), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_equals_a_full_stable_sort(rows: list[list[int]], k: int):
    scores = np.array(rows, dtype=np.float32)
    scores[scores == -3] = -np.inf
    values, columns = top_k(scores, k)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(columns, order)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, order, axis=1))


@pytest.mark.parametrize("distinct", [1, 3, 40, 2000])
@pytest.mark.parametrize("columns", [15, 16, 17, 100, 1003])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_equals_a_full_stable_sort_of_many_columns(distinct: int, columns: int, k: int):
    """Few distinct values tie at the border in every row, many never; the rows mix both."""
    generator = np.random.default_rng(columns)
    scores = generator.integers(0, distinct, (9, columns)).astype(np.float32)
    scores[::3] = generator.standard_normal((3, columns))
    scores[4, generator.random(columns) < 0.99] = -np.inf
    values, found = top_k(scores, k)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found, order)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, order, axis=1))


def test_nan_and_wrong_shapes_are_errors():
    with pytest.raises(NonFiniteError, match="row 1"):
        top_k(np.array([[1, 2], [np.nan, 1]], dtype=np.float32), 1)
    behind = np.zeros((2, 500), dtype=np.float32)
    behind[1, 499] = np.nan
    with pytest.raises(NonFiniteError, match="row 1"):
        top_k(behind, 3)
    with pytest.raises(ValueError, match="shape"):
        top_k(np.zeros(3, dtype=np.float32), 1)
