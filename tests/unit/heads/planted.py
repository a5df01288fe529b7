"""A world with a known answer. Items belong to clusters, and whoever has taken an item of cluster c takes one of c + 1 next.

The text tells an item's cluster and nothing more. Which popular item of the next cluster follows a popular one is fixed, and only
interactions tell: that is the collaborative signal. Rare items are seen a few times, cold ones never.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.data.sequences import Sequences
from recsys.data.split import Cases, Split
from recsys.data.vocabulary import Vocabulary

CLUSTERS, POPULAR, RARE, COLD = 4, 5, 12, 3
WIDTH = 12


class Table:
    """Vectors of all items, float32 (n, d)."""

    def __init__(self, values: np.ndarray, space_id: str = "space") -> None:
        self.values, self.space_id = values.astype(np.float32), space_id

    def aligned_to(self, vocabulary: Vocabulary) -> np.ndarray:
        return self.values


@dataclass(frozen=True)
class World:
    """cluster: int (n,).  follows: popular item -> the popular item after it.  popular, rare, cold: item numbers."""

    split: Split
    text: Table
    cluster: np.ndarray
    follows: np.ndarray
    popular: np.ndarray
    rare: np.ndarray
    cold: np.ndarray


def world(seed: int = 0, users: int = 150, length: int = 12) -> World:
    rng = np.random.default_rng(seed)
    per = POPULAR + RARE + COLD
    n = CLUSTERS * per
    cluster, place = np.arange(n) // per, np.arange(n) % per
    popular, rare = np.flatnonzero(place < POPULAR), np.flatnonzero((place >= POPULAR) & (place < POPULAR + RARE))
    cold = np.flatnonzero(place >= POPULAR + RARE)
    follows = np.full(n, -1)
    for c in range(CLUSTERS):
        follows[popular[cluster[popular] == c]] = rng.permutation(popular[cluster[popular] == (c + 1) % CLUSTERS])
    rows = []
    for _ in range(users):
        row = [int(rng.choice(popular))]
        while len(row) < length:
            after = (cluster[row[-1]] + 1) % CLUSTERS
            known = follows[row[-1]]
            if rng.random() < 0.25:
                row.append(int(rng.choice(rare[cluster[rare] == after])))
            else:
                row.append(int(known if known >= 0 else rng.choice(popular[cluster[popular] == after])))
        rows.append(np.array(row))
    axes = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    text = np.eye(CLUSTERS, WIDTH)[cluster] @ axes + 0.05 * rng.normal(size=(n, WIDTH))
    none = Cases.of_rows([])
    names = Vocabulary(str(u) for u in range(users))
    held_out = np.zeros(n, dtype=bool)
    held_out[cold] = True
    split = Split("held_out_items", names, Vocabulary(str(i) for i in range(n)), Sequences.of_rows(rows), none, none, none, held_out, "planted")
    return World(split, Table(text), cluster, follows, popular, rare, cold)
