"""Random vectors and TF-IDF."""

import numpy as np
import pytest

from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.lexical import random_table, tfidf_table
from recsys.errors import ConfigError, DataError

ITEMS = Vocabulary([f"i{k}" for k in range(6)])
TEXTS = ["red nail lacquer", "blue nail lacquer", "shaving soap", "shaving brush soap", "", "unheard words"]
TRAINING = np.array([True, True, True, True, True, False])


def test_random_vectors_have_unit_length_and_follow_the_seed() -> None:
    table = random_table(ITEMS, 64, 0)
    np.testing.assert_allclose(np.linalg.norm(table.values, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(table.values, random_table(ITEMS, 64, 0).values)
    assert table.space_id != random_table(ITEMS, 64, 1).space_id
    assert np.abs(table.values @ table.values.T - np.eye(6)).max() < 0.6


def test_items_that_share_words_are_near() -> None:
    table = tfidf_table(TEXTS, ITEMS, TRAINING, "split", template="{title}", dim=2, seed=0)
    scores = table.values @ table.values.T
    assert scores[0, 1] > 0.9 and scores[2, 3] > 0.9 and abs(scores[0, 2]) < 0.1
    assert not table.values[4].any(), "no text"
    assert not table.values[5].any(), "no word that training items have"
    assert table.space.split_hash == "split"


def test_equals_the_singular_vectors() -> None:
    """All axes but one of a full decomposition keep what they span: cosines of the projections."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    matrix = TfidfVectorizer(sublinear_tf=True).fit_transform(TEXTS[:4]).toarray()
    _, _, axes = np.linalg.svd(matrix, full_matrices=False)
    projected = matrix @ axes[:3].T
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    found = tfidf_table(TEXTS, ITEMS, TRAINING, "split", template="{title}", dim=3, seed=0).values[:4]
    np.testing.assert_allclose(found @ found.T, projected @ projected.T, atol=1e-5)


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="dim 9 of 4 items"):
        tfidf_table(TEXTS, ITEMS, TRAINING, "split", template="{title}", dim=9, seed=0)
    with pytest.raises(DataError, match="no training item has a text"):
        tfidf_table([""] * 6, ITEMS, TRAINING, "split", template="{title}", dim=1, seed=0)
