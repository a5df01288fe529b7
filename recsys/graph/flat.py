"""`FlatGraph`: the node types of a graph one behind the other and its relations added up, as one network passes over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from recsys.errors import ConfigError, DataError
from recsys.graph.build import FROM_INTERACTIONS, ITEM, USER
from recsys.graph.config import GnnConfig
from recsys.graph.messages import Messages

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData


@dataclass(frozen=True)
class FlatGraph:
    """Node n is node n - starts[kind] of its kind; items come first, so that item_num is the node.

    edge_index: int64 (2, E), both directions of each edge, distinct, sorted by (target, source).  weights: float32 (E,).
    lasting: float32 (E,), the part of the weight that knows of no interaction: what is left of an edge of an item that
        nobody has met yet. 0 where nothing is.
    scales: relation -> what its weights were multiplied by before they were added up.
    """

    starts: Mapping[str, int]
    n_nodes: int
    edge_index: Tensor
    weights: Tensor
    lasting: Tensor
    scales: Mapping[str, float]

    @property
    def n_items(self) -> int:
        return min((start for start in self.starts.values() if start), default=self.n_nodes)

    def messages(self, config: GnnConfig, cold: Tensor | None = None) -> Messages:
        """cold: bool (n_nodes,): nodes whose edges keep their lasting part alone, at both ends."""
        index, weights = self.edge_index, self.weights
        if cold is not None:
            weights = torch.where(cold[index[0]] | cold[index[1]], self.lasting, weights)
            index, weights = index[:, weights > 0], weights[weights > 0]
        return Messages.of(config.kind, index, weights, self.n_nodes)

    def averages(self, features: Tensor) -> Tensor:
        """float32 (n_items, k), rows of items; 0 where there is none -> (n_nodes, k): a node that is no item gets the mean of its items.

        The mean of those that have a row, by the weight of the edge; 0 for a node without such items.
        """
        sources, targets = self.edge_index.numpy()
        weights = self.weights.numpy()
        present = (features != 0).any(dim=1).numpy()
        chosen = (sources < self.n_items) & (targets >= self.n_items)
        chosen[chosen] = present[sources[chosen]]
        shape = (self.n_nodes - self.n_items, self.n_items)
        matrix = sp.csr_array((weights[chosen], (targets[chosen] - self.n_items, sources[chosen])), shape=shape)
        totals = np.asarray(matrix.sum(axis=1)).reshape(-1, 1)
        means = (matrix @ features.numpy()) / np.where(totals > 0, totals, 1.0)
        return torch.cat([features, torch.from_numpy(means.astype(np.float32))])

    @cached_property
    def reached(self) -> Tensor:
        """bool (n_nodes,): an edge comes in."""
        return torch.zeros(self.n_nodes, dtype=torch.bool).index_fill_(0, self.edge_index[1], True)


def flatten(data: HeteroData, *, users: bool, relations: Mapping[str, float] | None = None) -> FlatGraph:
    """users: with user nodes and their interactions; else items and attribute values alone.

    relations: name -> factor, 1 where none is given, 0 leaves the relation out. The weights of a relation are divided by their mean and
    multiplied by its factor, and those of one pair of nodes are added up: cosines of texts are large numbers, shares
    of meetings small ones, and neither means more for it.

    Raises:
        ConfigError: `relations` names one that the graph does not have.  DataError: no edge is left.
    """
    factors = dict(relations or {})
    known = sorted({kind[1] for kind in data.edge_types})
    if unknown := sorted(set(factors) - set(known)):
        raise ConfigError(f"relations: the graph has no {', '.join(unknown)}; it has: {', '.join(known)}")
    edges = [kind for kind in data.edge_types if factors.get(kind[1], 1.0) > 0 and (users or USER not in (kind[0], kind[2]))]
    if not edges:
        raise DataError(f"the graph has no edge {'' if users else 'between items '}that is wanted; its relations: {', '.join(known) or 'none'}")
    starts, n_nodes = {}, 0
    for kind in (ITEM, *(kind for kind in data.node_types if kind != ITEM)):
        if kind == ITEM or any(kind in (edge[0], edge[2]) for edge in edges):
            starts[kind] = n_nodes
            n_nodes += int(data[kind].num_nodes)
    scales = {relation: factors.get(relation, 1.0) / _mean_weight(data, relation) for relation in sorted({edge[1] for edge in edges})}
    codes, weights, lasting = [], [], []
    for source, relation, target in edges:
        store = data[source, relation, target]
        values = store.edge_weight * scales[relation]
        from_node, to_node = store.edge_index[0] + starts[source], store.edge_index[1] + starts[target]
        ways = [(from_node, to_node)] if source == target else [(from_node, to_node), (to_node, from_node)]
        for a, b in ways:
            codes.append(b * n_nodes + a)
            weights.append(values)
            lasting.append(torch.zeros_like(values) if relation in FROM_INTERACTIONS else values)
    distinct, places = torch.unique(torch.cat(codes), return_inverse=True)
    total, rest = (torch.zeros(len(distinct)).index_add_(0, places, torch.cat(parts)) for parts in (weights, lasting))
    return FlatGraph(starts, n_nodes, torch.stack([distinct % n_nodes, distinct // n_nodes]), total, rest, scales)


def _mean_weight(data: HeteroData, relation: str) -> float:
    """Over all edge types of this name."""
    return float(torch.cat([data[kind].edge_weight for kind in data.edge_types if kind[1] == relation]).mean())
