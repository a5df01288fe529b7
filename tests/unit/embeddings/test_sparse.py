from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.embeddings.sparse import SparseVectors
from recsys.errors import ArtifactError, NonFiniteError, SpaceMismatchError

ROWS = [{3: 0.5, 1: 2.0}, {}, {0: 1.0, 4: 0.0}]
Row = st.dictionaries(st.integers(0, 9), st.floats(0.125, 8, width=32), max_size=5)


def test_known_answer() -> None:
    vectors = SparseVectors.of_rows(ROWS, 5, "space")
    assert vectors.starts.tolist() == [0, 2, 2, 3] and vectors.tokens.tolist() == [1, 3, 0] and vectors.weights.tolist() == [2.0, 0.5, 1.0]
    assert vectors.to_csr().toarray().tolist() == [[0, 2, 0, 0.5, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert len(vectors) == 3 and [vectors.row(number) for number in range(3)] == [{1: 2.0, 3: 0.5}, {}, {0: 1.0}]
    assert len(SparseVectors.of_rows([], 5, "space")) == 0


@settings(max_examples=25)
@given(st.lists(Row, max_size=6), st.data())
def test_round_trips(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[int, float]], data: st.DataObject) -> None:
    vectors = SparseVectors.of_rows(rows, 10, "space")
    assert [vectors.row(number) for number in range(len(rows))] == rows
    folder = tmp_path_factory.mktemp("sparse")
    vectors.save(folder)
    loaded = SparseVectors.load(folder)
    assert [loaded.row(number) for number in range(len(rows))] == rows and (loaded.vocabulary_size, loaded.space_id) == (10, "space")
    if rows:
        order = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8)), dtype=np.int64)
        assert [vectors.take(order).row(place) for place in range(len(order))] == [rows[number] for number in order]


@pytest.mark.parametrize(
    ("starts", "tokens", "weights"),
    [([0, 2], [1, 1], [1, 1]), ([0, 2], [2, 1], [1, 1]), ([0, 1], [5], [1]), ([0, 1], [-1], [1]), ([0, 1], [1], [0]), ([0, 2], [1], [1]),
     ([1, 1], [1], [1]), ([0, 2, 1], [1], [1])],
)  # fmt: skip
def test_rows_that_are_none(starts: list[int], tokens: list[int], weights: list[float]) -> None:
    with pytest.raises(ArtifactError):
        SparseVectors(np.array(starts, dtype=np.int64), np.array(tokens, dtype=np.int64), np.array(weights, dtype=np.float32), 5, "space")


def test_tokens_ascend_within_a_row_not_across_rows() -> None:
    SparseVectors(np.array([0, 0, 1, 2, 2]), np.array([4, 1]), np.array([1, 1], dtype=np.float32), 5, "space")


def test_other_kinds_and_other_spaces(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="int64"):
        SparseVectors(np.array([0, 1], dtype=np.int32), np.array([1]), np.array([1], dtype=np.float32), 5, "space")
    with pytest.raises(NonFiniteError):
        SparseVectors.of_rows([{1: float("inf")}], 5, "space")
    with pytest.raises(SpaceMismatchError, match="expected sparse vectors of space other"):
        SparseVectors.of_rows(ROWS, 5, "space").require_space("other")
    with pytest.raises(ArtifactError, match="not readable"):
        SparseVectors.load(tmp_path)
