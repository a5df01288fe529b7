"""Items with a hidden vector each, which the recommender sees turned one way and the text another; users stay within one theme."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recsys.data.sequences import Sequences
from recsys.data.split import Cases, Split
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.table import EmbeddingTable
from recsys.types import BoolArray, FloatArray, Queries

ITEMS, COLD, THEMES = 60, 12, 6
"""The last `COLD` items have no interactions."""


class FakeBackbone:
    """State: mean of the history's vectors, times 4.  noise: what dropout would add; a frozen model has none."""

    def __init__(self, items: FloatArray, scorable: BoolArray, noise: float = 0.0) -> None:
        self._items, self._scorable, self.noise = items, scorable, noise
        self._random = np.random.default_rng(0)

    @property
    def n_items(self) -> int:
        return len(self._items)

    def items(self) -> FloatArray:
        return self._items

    def scorable_items(self) -> BoolArray:
        return self._scorable

    def represent(self, queries: Queries) -> FloatArray:
        rows = [4 * self._items[history].mean(axis=0) if len(history) else np.zeros(self._items.shape[1]) for history in queries.histories]
        states = np.array(rows).reshape(len(rows), -1)
        return (states + self.noise * self._random.standard_normal(states.shape)).astype(np.float32)


@dataclass(frozen=True)
class Planted:
    split: Split
    backbone: FakeBackbone
    texts: EmbeddingTable
    truth: FloatArray
    """The recommender's vectors as they would be of every item, cold ones too."""


def planted(*, users: int = 80, seed: int = 0) -> Planted:
    random = np.random.default_rng(seed)
    theme = np.arange(ITEMS) % THEMES
    hidden = np.eye(THEMES)[theme] + 0.15 * random.standard_normal((ITEMS, THEMES))
    truth = (hidden @ random.standard_normal((THEMES, 10))).astype(np.float32)
    texts = np.concatenate([hidden @ random.standard_normal((THEMES, 14)), 0.05 * random.standard_normal((ITEMS, 4))], axis=1).astype(np.float32)
    warm = np.arange(ITEMS) < ITEMS - COLD
    rows = [random.permutation(np.flatnonzero((theme == user % THEMES) & warm))[:6] for user in range(users)]
    none = Cases.of_rows([])
    vocabulary = Vocabulary(f"i{n}" for n in range(ITEMS))
    people = Vocabulary(f"u{n}" for n in range(users))
    train = Sequences.of_rows(rows)
    cold = Cases.of_rows([(user, rows[user], rows[user], int(random.choice(np.flatnonzero((theme == user % THEMES) & ~warm)))) for user in range(users)])
    split = Split("held_out_items", people, vocabulary, train, none, none, cold, ~warm, "planted")
    space = EmbeddingSpace(
        model="text", revision="r", tokenizer="t", template="", max_length=8, layer=-1, pooling="mean", attention="causal", normalise=False,
        dtype="float32", dim=texts.shape[1],
    )  # fmt: skip
    # The recommender knows nothing of cold items: their rows are noise.
    known = np.where(warm[:, None], truth, random.standard_normal(truth.shape)).astype(np.float32)
    return Planted(split, FakeBackbone(known, warm), EmbeddingTable(texts, vocabulary, space), truth)


def with_rows(problem: Planted, rows: list[list[int]]) -> Split:
    """The planted split with other training histories."""
    train = Sequences.of_rows([np.array(row, dtype=np.int64) for row in rows])
    return replace(problem.split, users=Vocabulary(f"u{n}" for n in range(len(rows))), train=train, cold=Cases.of_rows([]))
