"""What a new item lacks for want of interactions, measured on items that have some: the score that is given back to new ones.

A graph's vectors say less of an item without co-interactions, and so its scores are lower and nearer to each other. Among all items it then
stands behind known ones that fit no better. Known items are therefore looked at as if they were new, and the bonus is the one with which
they are found as often as with all their edges. No held-out item is looked at.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recsys.data.split import Cases
from recsys.graph.encoders import GraphEncoder
from recsys.graph.flat import FlatGraph
from recsys.graph.scorer import GraphScorer
from recsys.rng import numpy_generator
from recsys.types import BoolArray, FloatArray

FOLDS = 10
TOP = 10
"""Found: among so many."""
CHUNK = 512


def as_new(encoder: GraphEncoder, graph: FlatGraph, inputs: Tensor, known: BoolArray, *, seed: int) -> FloatArray:
    """float32 (n_items, d): each known item as if it had no interactions, a tenth of them at a time; the others as they are."""
    fold = numpy_generator(seed, "folds of levelling").integers(0, FOLDS, graph.n_items)
    vectors = np.zeros((graph.n_items, 0), dtype=np.float32)
    for number in range(FOLDS):
        hidden = known & (fold == number)
        cold = torch.zeros(graph.n_nodes, dtype=torch.bool)
        cold[: graph.n_items] = torch.from_numpy(hidden)
        seen = torch.where(cold[:, None], 0.0, inputs) if encoder.config.features == "ids" else inputs
        with torch.no_grad():
            found = encoder.with_text(encoder(seen, graph.messages(encoder.config.gnn, cold)), seen)[: graph.n_items].numpy()
        vectors = found.copy() if not vectors.shape[1] else vectors
        vectors[hidden] = found[hidden]
    return vectors


def new_item_bonus(scorer: GraphScorer, new: FloatArray, known: BoolArray, cases: Cases) -> float:
    """What, added to the score of its target as if it were new, puts as many targets of `cases` among the first ten of the known items as their
    own scores do. new: see `as_new`.  known: bool (n_items,).  0 where no target is found either way, or no target is known."""
    rows = np.flatnonzero(known[cases.targets])
    found, needed = np.zeros(len(rows), dtype=np.bool_), np.zeros(len(rows))
    items, queries = scorer.items(), cases.queries()
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        targets = cases.targets[some]
        states = scorer.represent(type(queries)(queries.user_nums[some], [queries.histories[row] for row in some.tolist()]))
        scores = states @ items.T
        own, as_if = (states * items[targets]).sum(axis=1), (states * new[targets]).sum(axis=1)
        for place, row in enumerate(some.tolist()):
            scores[place, cases.seen[row]] = -np.inf
        scores[:, ~known] = -np.inf
        scores[np.arange(len(some)), targets] = -np.inf
        bar = -np.partition(-scores, min(TOP, scores.shape[1]) - 1, axis=1)[:, min(TOP, scores.shape[1]) - 1]
        found[start : start + CHUNK], needed[start : start + CHUNK] = own > bar, bar - as_if
    wanted, needed = int(found.sum()), np.sort(needed)
    if not wanted:
        return 0.0
    # Any bonus between the two finds just as many; none, if it is one of them.
    low, high = float(needed[wanted - 1]), float(needed[wanted]) if wanted < len(needed) else float(needed[wanted - 1]) + 1e-4
    return 0.0 if low < 0 <= high else (low + high) / 2
