"""Item-item edges of items that training sequences bring close together."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from recsys.config import Config
from recsys.data.pairs import co_occurrences
from recsys.data.sequences import Sequences
from recsys.graph.edges import AT_ONCE, Edges, top_of_rows


class CoInteractionConfig(Config):
    window: Annotated[int, Field(ge=1)] = 3
    """Two items meet where they are at most this many steps apart in one user's training sequence."""
    minimum: Annotated[int, Field(ge=1)] = 1
    """Pairs that met less often are no edge."""
    neighbours: Annotated[int, Field(ge=1)] = 20
    """Strongest edges that an item keeps of its own; others may add theirs to it."""


def co_interaction_edges(config: CoInteractionConfig, train: Sequences, n_items: int, *, at_once: int = AT_ONCE) -> Edges:
    """Weight of (i, j): c_ij / sqrt(c_i c_j), with c_ij the meetings of the two and c_i those of i with any item. In (0, 1].

    The cosine of ItemKNN with meetings in place of common users: two bestsellers that meet by chance have a small weight.
    Each item's strongest `neighbours`, in both directions. Memory: 8 bytes a distinct pair and direction, and blocks.
    """
    pairs = co_occurrences(train, n_items, config.window, minimum=config.minimum, at_once=at_once)
    meetings = np.bincount(pairs.left, pairs.counts, n_items) + np.bincount(pairs.right, pairs.counts, n_items)
    shares = np.divide(1.0, np.sqrt(meetings), out=np.zeros(n_items), where=meetings > 0).astype(np.float32)
    weights = pairs.counts * shares[pairs.left] * shares[pairs.right]
    upper = sp.csr_array((weights, (pairs.left, pairs.right)), shape=(n_items, n_items))
    del pairs, weights
    return Edges.of_matrix(top_of_rows(sp.csr_array(upper + upper.T), config.neighbours, at_once=at_once)).both_ways(n_items)
