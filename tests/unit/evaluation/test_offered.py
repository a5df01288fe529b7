"""Targets among given candidates: worked out by hand, and equal to the evaluator that scores by itself."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.data.split import Cases
from recsys.errors import NonFiniteError
from recsys.evaluation.offered import evaluate_offered


def test_ranks_and_ties_by_hand() -> None:
    row = np.array([0])
    cases = Cases.of_rows([(user, row, row, 1) for user in range(3)])
    found = evaluate_offered("m", cases, np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0], [0.0, 1.0, 2.0]]))
    assert found.values("hit@1").tolist() == [1.0, 0.5, 0.0] and found.n_candidates == 3
    assert found.better.tolist() == [0, 0, 2] and found.tied.tolist() == [1, 2, 1]
    with pytest.raises(NonFiniteError, match="1 of 3"):
        evaluate_offered("m", cases, np.array([[3.0, np.nan], [1.0, 1.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="3 cases"):
        evaluate_offered("m", cases, np.zeros((2, 3)))
