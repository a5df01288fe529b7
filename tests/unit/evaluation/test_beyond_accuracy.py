import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.sequences import Sequences
from recsys.errors import NonFiniteError, SpaceMismatchError
from recsys.evaluation.beyond_accuracy import beyond_accuracy, catalogue_coverage, gini, intra_list_diversity, novelty, popularity_lift
from recsys.evaluation.calibration import CategoryShares, miscalibration
from recsys.types import UNKNOWN_NUM

LISTS = np.array([[0, 1], [0, 2], [0, UNKNOWN_NUM]])
NOTHING = np.full((2, 3), UNKNOWN_NUM)
COUNTS = np.array([8, 4, 0, 4])


def rows(*histories: list[int]) -> Sequences:
    return Sequences.of_rows([np.array(history, dtype=np.int64) for history in histories])


def test_coverage_by_hand():
    assert catalogue_coverage(LISTS, 4) == 3 / 4
    assert catalogue_coverage(NOTHING, 4) == 0
    assert math.isnan(catalogue_coverage(LISTS[:0], 4))


def test_novelty_by_hand():
    """16 interactions: p = 1/2, 1/4, and 1/16 for the item never seen, so 1, 2 and 4 bits."""
    assert novelty(LISTS, COUNTS) == (1 + 2 + 1 + 4 + 1) / 5


def test_popularity_lift_by_hand():
    """GAP of the lists: (8 + 4) / 2 = 6, (8 + 0) / 2 = 4. GAP of the histories: 4, 4 -> (6 + 4) / 8 - 1 = 0.25. The third user read nothing."""
    assert popularity_lift(LISTS, rows([1, 3, 3], [0, 2], []), COUNTS) == 0.25
    assert popularity_lift(np.array([[0, 1]]), rows([1, 0]), COUNTS) == 0
    assert math.isnan(popularity_lift(LISTS[2:], rows([]), COUNTS))
    with pytest.raises(ValueError, match="3 lists but 1 histories"):
        popularity_lift(LISTS, rows([1]), COUNTS)


def test_gini_by_hand():
    """Counts ascending 0, 1, 1, 3: (-3*0 - 1*1 + 1*1 + 3*3) / (4 * 5)."""
    assert gini(LISTS, 4) == pytest.approx(9 / 20)
    assert gini(np.array([[0, 1], [2, 3]]), 4) == 0
    assert gini(np.array([[2], [2]]), 4) == 3 / 4


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_gini_is_the_mean_absolute_difference(items: list[int]):
    """The definition: sum over all pairs of |x_i - x_j| / (2 n sum x)."""
    x = np.bincount(items, minlength=6)
    assert gini(np.array([items]), 6) == pytest.approx(np.abs(x[:, None] - x).sum() / (2 * 6 * x.sum()), abs=1e-12)


def test_diversity_by_hand():
    vectors = np.array([[1, 0], [0, 2], [3, 3], [0, 0], [-1, 0]], dtype=np.float32)
    half = math.sqrt(0.5)
    assert intra_list_diversity(np.array([[0, 1, 2]]), vectors) == pytest.approx(((1 - 0) + 2 * (1 - half)) / 3, abs=1e-12)
    assert intra_list_diversity(np.array([[0, 4]]), vectors) == pytest.approx(2)
    # Item 3 has no vector; the second list then holds one item and says nothing.
    assert intra_list_diversity(np.array([[0, 3, 1], [3, 2, UNKNOWN_NUM]]), vectors) == pytest.approx(1)
    vectors[4, 0] = np.nan
    assert intra_list_diversity(np.array([[0, 1]]), vectors) == pytest.approx(1)
    with pytest.raises(NonFiniteError, match="item_num 4"):
        intra_list_diversity(np.array([[0, 4]]), vectors)


def test_diversity_equals_all_pairs():
    generator = np.random.default_rng(0)
    vectors, lists = generator.standard_normal((50, 7)), np.stack([generator.permutation(50)[:6] for _ in range(20)])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    slow = [1 - unit[row[i]] @ unit[row[j]] for row in lists for i in range(6) for j in range(i)]
    assert intra_list_diversity(lists, vectors) == pytest.approx(np.mean(slow), abs=1e-12)


def test_calibration_by_hand():
    """History: 3 of 4 comedy. A list of comedy alone: p = (3/4, 1/4), q = (1, 0), mixed with alpha = 0.01."""
    shares = CategoryShares([["comedy"], ["drama"], ["drama", "comedy", "comedy"], []])
    assert shares.names == ["comedy", "drama"]
    expected = 0.75 * math.log(0.75 / (0.99 + 0.0075)) + 0.25 * math.log(0.25 / 0.0025)
    found = miscalibration(np.array([[0, UNKNOWN_NUM], [1, 2], [3, 0], [3, 3]]), rows([0, 2, 3], [1, 2], [0, 0], [0]), shares)
    np.testing.assert_allclose(found, [expected, 0, 0, np.nan], atol=1e-15)


def test_nothing_recommended_is_nan_and_another_catalogue_an_error():
    assert math.isnan(novelty(NOTHING, COUNTS))
    assert math.isnan(gini(NOTHING, 4))
    assert math.isnan(intra_list_diversity(NOTHING, np.ones((4, 2), dtype=np.float32)))
    with pytest.raises(SpaceMismatchError, match="item_num 2, the table has 2 rows"):
        novelty(LISTS, COUNTS[:2])
    with pytest.raises(SpaceMismatchError, match="item_num 2 has no categories"):
        miscalibration(LISTS, rows([0], [0], [0]), CategoryShares([["a"], ["b"]]))


def test_all_figures_at_a_cutoff():
    histories = rows([1, 3, 3], [0, 2], [])
    shares = CategoryShares([["a"], ["a"], ["b"], ["b"]])
    found = beyond_accuracy(LISTS, 1, n_candidates=4, histories=histories, item_counts=COUNTS, vectors=np.eye(4, dtype=np.float32), shares=shares)
    assert list(found) == [f"{name}@1" for name in ("coverage", "novelty", "popularity_lift", "gini", "diversity", "miscalibration")]
    assert (found["coverage@1"], found["novelty@1"], found["popularity_lift@1"], found["gini@1"]) == (0.25, 1, 1, 0.75)
    assert math.isnan(found["diversity@1"])
    assert found["miscalibration@1"] == pytest.approx(np.nanmean(miscalibration(LISTS[:, :1], histories, shares)))
    with pytest.raises(ValueError, match="lists of 2 items cannot be judged at 3"):
        beyond_accuracy(LISTS, 3, n_candidates=4, histories=histories, item_counts=COUNTS)
