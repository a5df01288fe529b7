from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.embeddings.sparse import SparseVectors
from recsys.errors import ArtifactError, SpaceMismatchError
from recsys.ranking.hybrid import HybridIndex
from recsys.ranking.index import ItemIndex
from recsys.types import FloatArray

SPACE = "space"


def index(dense: FloatArray, rows: list[dict[int, float]], **options: float) -> HybridIndex:
    return HybridIndex(ItemIndex.build(dense, SPACE), SparseVectors.of_rows(rows, 6, SPACE), **options)  # type: ignore[arg-type]


def slow(
    dense: FloatArray, rows: list[dict[int, float]], query: FloatArray, words: dict[int, float], k: int, alpha: float, depth: int
) -> list[tuple[float, int]]:
    """PromptReps' fusion with dictionaries, as the paper's text has it."""
    runs = [{item: float(vector @ query) for item, vector in enumerate(dense)}]
    runs.append({item: score for item, row in enumerate(rows) if (score := sum(row[token] * weight for token, weight in words.items() if token in row)) > 0})
    fused = dict.fromkeys(range(len(rows)), 0.0)
    for run, weight in zip(runs, (alpha, 1 - alpha), strict=True):
        best = dict(sorted(run.items(), key=lambda pair: (-pair[1], pair[0]))[:depth])
        if best:
            low, high = min(best.values()), max(best.values())
            for item, score in best.items():
                fused[item] += weight * ((score - low) / (high - low) if high > low else 1.0)
    return [(score, item) for item, score in sorted(fused.items(), key=lambda pair: (-pair[1], pair[0]))[:k]]


def test_known_answer() -> None:
    """Dense scores 4, 2, 0 -> 1, 0.5, 0; sparse scores none, 1, 3 -> 0, 0 (the least), 1."""
    built = index(np.array([[4], [2], [0]], dtype=np.float32), [{5: 9.0}, {0: 1.0}, {0: 1.0, 1: 1.0}])
    scores, items = built.search(np.array([[1]], dtype=np.float32), SparseVectors.of_rows([{0: 1.0, 1: 2.0}], 6, SPACE), 3)
    assert items.tolist() == [[0, 2, 1]] and scores.tolist() == [[0.5, 0.5, 0.25]]


def test_a_single_hit_counts_in_full_and_no_words_leave_the_dense_half() -> None:
    built = index(np.array([[4], [2], [0]], dtype=np.float32), [{}, {}, {0: 0.1}])
    scores, items = built.search(np.ones((2, 1), dtype=np.float32), SparseVectors.of_rows([{0: 1.0}, {}], 6, SPACE), 3)
    assert items.tolist() == [[0, 2, 1], [0, 1, 2]] and scores.tolist() == [[0.5, 0.5, 0.25], [0.5, 0.25, 0.0]]


Weights = st.dictionaries(st.integers(0, 5), st.integers(1, 8).map(float), max_size=4)


Alpha = st.sampled_from([0.0, 0.3, 0.5, 1.0])
Count = st.integers(1, 14)


@given(
    st.integers(0, 10_000), st.lists(Weights, min_size=1, max_size=12), st.lists(Weights, min_size=1, max_size=3), st.integers(1, 14), Alpha, st.integers(1, 14)
)
def test_equals_the_slow_fusion(seed: int, rows: list[dict[int, float]], words: list[dict[int, float]], k: int, alpha: float, depth: int) -> None:
    # Small integers: all products are exact, so that both sides tie alike.
    generator = np.random.default_rng(seed)
    # Distinct scores: faiss breaks ties at the border of its run as it likes.
    dense = (generator.permutation(len(rows) * 4)[: len(rows), None] - 3).astype(np.float32)
    queries = generator.choice([-2, 1, 3], (len(words), 1)).astype(np.float32)
    scores, items = index(dense, rows, alpha=alpha, depth=depth).search(queries, SparseVectors.of_rows(words, 6, SPACE), k)
    for row, word in enumerate(words):
        expected = slow(dense, rows, queries[row], word, k, alpha, depth)
        np.testing.assert_allclose(scores[row], [score for score, _ in expected], atol=1e-6)
        by_item = {item: score for score, item in slow(dense, rows, queries[row], word, len(rows), alpha, depth)}
        np.testing.assert_allclose([by_item[item] for item in items[row].tolist()], scores[row], atol=1e-6)


def test_saved_and_loaded(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    built = index(generator.standard_normal((9, 4)).astype(np.float32), [{number % 6: 1.0, 5 - number % 3: 2.0} for number in range(9)])
    built.save(tmp_path)
    loaded = HybridIndex.load(tmp_path, space_id=SPACE)
    queries = generator.standard_normal((3, 4)).astype(np.float32), built.sparse.take(np.array([0, 4, 8]))
    for mine, other in zip(built.search(*queries, 5), loaded.search(*queries, 5), strict=True):
        np.testing.assert_array_equal(mine, other)
    with pytest.raises(SpaceMismatchError):
        HybridIndex.load(tmp_path, space_id="other")


def test_parts_and_queries_must_fit() -> None:
    dense = np.ones((2, 3), dtype=np.float32)
    rows: list[dict[int, float]] = [{}, {1: 1.0}]
    with pytest.raises(ArtifactError, match="2 dense but 1 sparse"):
        index(dense, rows[:1])
    with pytest.raises(SpaceMismatchError):
        HybridIndex(ItemIndex.build(dense, SPACE), SparseVectors.of_rows(rows, 6, "other"))
    built = index(dense, rows)
    for queries in (SparseVectors.of_rows(rows, 6, "other"), SparseVectors.of_rows(rows, 7, SPACE), SparseVectors.of_rows(rows[:1], 6, SPACE)):
        with pytest.raises(SpaceMismatchError):
            built.search(dense, queries, 2)
    scores, items = built.search(dense[:0], SparseVectors.of_rows([], 6, SPACE), 5)
    assert scores.shape == items.shape == (0, 2)
