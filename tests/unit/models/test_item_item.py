"""The checkerboard: even users like even items; each user's diagonal item is withheld and must be recommended."""

import numpy as np
import pytest

from recsys.data.sequences import Sequences
from recsys.data.split import Cases, Split
from recsys.data.vocabulary import Vocabulary
from recsys.models.ease import Ease, EaseConfig
from recsys.models.itemknn import ItemKNN, ItemKNNConfig
from recsys.models.popularity import Popularity
from recsys.types import Queries

N = 20


def board() -> Split:
    rows = [np.array([i for i in range(N) if i % 2 == u % 2 and i != u]) for u in range(N)]
    none = Cases.of_rows([])
    ids = Vocabulary(str(i) for i in range(N))
    return Split("leave_last_out", ids, ids, Sequences.of_rows(rows), none, none, none, np.zeros(N, dtype=bool), "d")


@pytest.mark.parametrize("model", [Ease.fit(EaseConfig(regularisation=1.0), board()), ItemKNN.fit(ItemKNNConfig(neighbours=50, shrinkage=0.0), board())])
def test_checkerboard(model: Ease | ItemKNN) -> None:
    split = board()
    scores = model.score(Queries(np.arange(N), split.train), np.arange(N))
    for user, history in enumerate(split.train):
        scores[user, history] = -np.inf
    assert scores.argmax(1).tolist() == list(range(N))
    single = model.score(Queries.of_history(split.train[3]), np.array([3, 0]))
    assert single[0, 0] > single[0, 1]


def test_popularity_counts_training_interactions() -> None:
    model = Popularity.fit(board())
    assert model.score(Queries.of_history(np.array([1])), np.arange(3)).tolist() == [[9.0, 9.0, 9.0]]
