import numpy as np
import pytest

from recsys.errors import NonFiniteError
from recsys.models.text_nearest import TextNearest
from recsys.types import Queries, Scorer

VALUES = np.array([[2, 0], [0, 3], [-1, 0], [0, -5]], dtype=np.float32) + 0.0


def queries(*rows: list[int]) -> Queries:
    return Queries(np.full(len(rows), -1, dtype=np.int64), tuple(np.array(r, dtype=np.int64) for r in rows))


def test_cosine_by_hand():
    values = np.array([[2, 0], [0, 3], [-2, 0], [0, -3]], dtype=np.float32)  # the mean is zero
    model = TextNearest(values, "t")
    assert isinstance(model, Scorer)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(model.score(queries([0], [0, 1], []), np.arange(4)), [[1, 0, -1, 0], [half, half, -half, -half], [0, 0, 0, 0]], atol=1e-6)


def test_a_common_component_changes_nothing():
    shifted = TextNearest(VALUES + 100, "t").score(queries([0, 3]), np.arange(4))
    np.testing.assert_allclose(shifted, TextNearest(VALUES, "t").score(queries([0, 3]), np.arange(4)), atol=1e-4)


def test_zero_rows_cannot_be_scored_and_move_no_centre():
    model = TextNearest(np.vstack([VALUES, np.zeros((1, 2), dtype=np.float32)]), "t")
    assert model.scorable_items().tolist() == [True] * 4 + [False]
    np.testing.assert_allclose(model.score(queries([1]), np.arange(4)), TextNearest(VALUES, "t").score(queries([1]), np.arange(4)), atol=1e-6)


def test_centre_on_keeps_other_rows_out_of_the_mean():
    kept = np.array([True, True, True, False])
    moved = VALUES.copy()
    moved[3] *= 50
    one, other = (TextNearest(v, "t", centre_on=kept).score(queries([0, 1]), np.arange(3)) for v in (VALUES, moved))
    np.testing.assert_array_equal(one, other)


def test_nan_names_the_embedding():
    with pytest.raises(NonFiniteError, match="'mini'.*item_num 0"):
        TextNearest(VALUES * np.nan, "mini")
