"""`EdgePredictor`: which nodes of the real graph a new text would be linked with (LLM4NG, Yu et al., AAAI 2025, section 3.2)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from recsys.config import Config
from recsys.errors import DataError, NonFiniteError
from recsys.rng import derive_seed, numpy_generator
from recsys.types import FloatArray, IntArray

AT_ONCE = 8_000_000
"""Cosines that are held at once."""


class EdgePredictorConfig(Config):
    hidden: Annotated[int, Field(ge=1)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    epochs: Annotated[int, Field(ge=1)] = 150
    patience: Annotated[int, Field(ge=1)] = 15
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the edges that stops it."""


class LinkConfig(Config):
    threshold: Annotated[float, Field(ge=-1, le=1)] = 0.4
    """Pairs of at least this cosine are looked at. Of unit vectors 1.0 would leave none."""
    per_sample: Annotated[int, Field(ge=0)] = 5
    """Edges a new node at most, the likeliest ones; 0: none."""
    minimum: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability that an edge needs, the mean of both directions."""


@dataclass(frozen=True)
class EdgePredictor:
    """p(i, j) = sigmoid(w . tanh(W [x_i; x_j] + b) + c). auc: of held-out edges against as many pairs without an edge."""

    network: _Pairs
    auc: float
    epochs: int

    @classmethod
    def fit(cls, config: EdgePredictorConfig, values: FloatArray, edges: IntArray, *, seed: int) -> Self:
        """values: float32 (n, d).  edges: int64 (2, E), each undirected edge once, source < target. No label is read.

        Each epoch sees all edges, both ways, and as many pairs without an edge, drawn anew.

        Raises:
            DataError: fewer than two edges, or a graph so dense that pairs without an edge are not found.  NonFiniteError: the loss.
        """
        if edges.shape[1] < 2:
            raise DataError(f"an edge predictor learns from two edges or more, got {edges.shape[1]}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "edge predictor"))
            network = _Pairs(values.shape[1], config.hidden)
        return cls(network, *_fit(config, network, torch.tensor(values), edges, len(values), seed))

    @torch.no_grad()
    def probabilities(self, first: FloatArray, second: FloatArray, pairs: IntArray) -> FloatArray:
        """float32 (P,), the mean of both directions, of pairs int64 (2, P): row 0 rows of `first`, row 1 of `second`."""
        one, two = torch.tensor(first), torch.tensor(second)
        there = self.network.logits(one, two, torch.from_numpy(pairs)).sigmoid()
        back = self.network.logits(two, one, torch.from_numpy(pairs[::-1].copy())).sigmoid()
        found: FloatArray = ((there + back) / 2).numpy()
        return found

    def link(self, config: LinkConfig, samples: FloatArray, values: FloatArray) -> IntArray:
        """int64 (2, E): row 0 rows of `samples`, row 1 nodes. float32 (m, d) and (n, d), of length 1, zero where there is no text."""
        chosen: list[IntArray] = []
        step = max(1, AT_ONCE // max(len(values), 1))
        for start in range(0, len(samples) if config.per_sample else 0, step):
            block = samples[start : start + step]
            near = block @ values.T
            pairs = np.stack(np.nonzero((near >= config.threshold) & (near > 0)))
            likely = self.probabilities(block, values, pairs)
            order = np.lexsort((pairs[1], -likely, pairs[0]))
            rows = pairs[0][order]
            places = np.arange(len(rows)) - np.searchsorted(rows, rows)
            kept = order[(places < config.per_sample) & (likely[order] >= config.minimum)]
            chosen.append(np.stack([pairs[0][kept] + start, pairs[1][kept]]))
        return np.concatenate([np.zeros((2, 0), dtype=np.int64), *chosen], axis=1)


def pairs_without_edge(edges: IntArray, n_nodes: int, count: int, generator: np.random.Generator) -> IntArray:
    """int64 (2, count): i < j, no edge, uniform, with repetition. Memory: a number an edge; the n x n matrix is never made.

    Raises:
        DataError: hardly any such pair exists.
    """
    codes = np.sort(edges[0] * n_nodes + edges[1])
    found = np.zeros(0, dtype=np.int64)
    for _ in range(50):
        drawn = np.sort(generator.integers(0, n_nodes, (2, 2 * count + 16)), axis=0)
        drawn = drawn[:, drawn[0] != drawn[1]]
        pairs = drawn[0] * n_nodes + drawn[1]
        places = np.minimum(np.searchsorted(codes, pairs), max(len(codes) - 1, 0))
        free = pairs if not len(codes) else pairs[codes[places] != pairs]
        found = np.concatenate([found, free])[:count]
        if len(found) == count:
            return np.stack([found // n_nodes, found % n_nodes])
    raise DataError(f"{n_nodes} nodes with {len(codes)} edges: {count} pairs without an edge are not found")


class _Pairs(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.left = nn.Linear(inputs, hidden)
        self.right = nn.Linear(inputs, hidden, bias=False)
        self.out = nn.Linear(hidden, 1)

    def logits(self, first: Tensor, second: Tensor, pairs: Tensor) -> Tensor:
        """float (P,). W [x_i; x_j] is W_1 x_i + W_2 x_j: a product a node, not one a pair."""
        found: Tensor = self.out(torch.tanh(self.left(first)[pairs[0]] + self.right(second)[pairs[1]])).squeeze(1)
        return found


def _fit(config: EdgePredictorConfig, network: _Pairs, values: Tensor, edges: IntArray, n_nodes: int, seed: int) -> tuple[float, int]:
    generator = numpy_generator(seed, "edge predictor")
    order = generator.permutation(edges.shape[1])
    held = max(1, round(config.held_out * len(order)))
    judged, learned = edges[:, order[:held]], edges[:, order[held:]]
    strangers = pairs_without_edge(edges, n_nodes, held, generator)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    best, best_epoch, kept = float("inf"), 0, copy.deepcopy(network.state_dict())
    epoch = 0
    for epoch in range(1, config.epochs + 1):
        optimiser.zero_grad()
        loss = _loss(network, values, learned, pairs_without_edge(edges, n_nodes, learned.shape[1], generator))
        if not torch.isfinite(loss):
            raise NonFiniteError(f"edge predictor: the loss of epoch {epoch} is {loss.item()}; lower learning_rate ({config.learning_rate:g})")
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            reached = float(_loss(network, values, judged, strangers))
        if reached < best:
            best, best_epoch, kept = reached, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= config.patience:
            break
    network.load_state_dict(kept)
    network.eval().requires_grad_(False)
    scores = [network.logits(values, values, torch.from_numpy(pairs)).numpy() for pairs in (judged, strangers)]
    return _auc(*scores), epoch


def _auc(above: FloatArray, below: FloatArray) -> float:
    """Share of pairs (one of `above`, one of `below`) in that order; a tie counts half."""
    order = np.sort(below)
    return float((np.searchsorted(order, above, "left") + np.searchsorted(order, above, "right")).mean() / (2 * len(below)))


def _loss(network: _Pairs, values: Tensor, edges: IntArray, strangers: IntArray) -> Tensor:
    pairs = torch.from_numpy(np.concatenate([edges, edges[::-1], strangers, strangers[::-1]], axis=1))
    truth = torch.zeros(pairs.shape[1])
    truth[: 2 * edges.shape[1]] = 1.0
    return F.binary_cross_entropy_with_logits(network.logits(values, values, pairs), truth)
