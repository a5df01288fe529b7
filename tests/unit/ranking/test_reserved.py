"""Lists with reserved slots, by hand and beside what is counted from ranks alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation.reserved import reserved_recall
from recsys.ranking.reserved import reserved_count, with_reserved_slots
from recsys.types import UNKNOWN_NUM

NONE = UNKNOWN_NUM


def test_by_hand() -> None:
    known = np.array([[1, 2, 3, 4, 5], [1, 2, NONE, NONE, NONE], [1, 2, 3, 4, 5]])
    new = np.array([[10, 11], [10, 11], [NONE, NONE]])
    assert with_reserved_slots(known, new, 5, 0.2).tolist() == [[1, 2, 3, 4, 10], [1, 2, 10, 11, NONE], [1, 2, 3, 4, 5]]
    assert with_reserved_slots(known, new, 3, 0.0).tolist() == [[1, 2, 3], [1, 2, 10], [1, 2, 3]]


def test_a_slot_in_ten() -> None:
    assert [reserved_count(10, share) for share in (0, 0.1, 0.11, 0.3, 1)] == [0, 1, 2, 3, 10]
    assert [reserved_count(k, 0.1) for k in (5, 10, 20)] == [1, 1, 2]
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        reserved_count(10, 1.1)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]))
def test_recall_from_ranks_is_that_of_the_lists(seed: int, k: int, share: float) -> None:
    """Twelve known items and sixteen new ones, ranked anew for each of 28 cases, one for each target."""
    rng = np.random.default_rng(seed)
    known = np.array([rng.permutation(12) for _ in range(28)])
    new = np.array([rng.permutation(np.arange(12, 28)) for _ in range(28)])
    targets = np.arange(28)
    lists = with_reserved_slots(known, new, k, share)
    found = (lists == targets[:, None]).any(axis=1)
    of_known, of_new = reserved_recall(_ranks(known[:12], targets[:12]), _ranks(new[12:], targets[12:]), k, share)
    assert found.tolist() == [*of_known.astype(bool), *of_new.astype(bool)]


def _ranks(lists: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (lists == targets[:, None]).argmax(axis=1), np.ones(len(targets), dtype=np.int64)
