"""`Messages`: the edges of a graph as a kind of layer reads them. One rule for self-loops and duplicates, and one normalisation.

Two rules hold for every graph:
- An edge that occurs twice is one edge, with the larger weight: writing a list of edges down twice changes nothing.
- A self-loop in the data is dropped. What a node keeps of itself is the layer's business: GCN and GAT give each node one
  loop of weight 1 (A + I), SAGE has a map of its own for it, LightGCN keeps layer 0 in the mean.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from recsys.errors import DataError

Kind = Literal["gcn", "sage", "gat", "lightgcn", "mlp"]


@dataclass(frozen=True)
class Messages:
    """E messages, sorted by (target, source).

    edge_index: int64 (2, E), row 0 sources, row 1 targets; distinct.  weights: float (E,), normalised for the kind.
    """

    edge_index: Tensor
    weights: Tensor
    n_nodes: int

    @classmethod
    def of(cls, kind: Kind, edge_index: Tensor, edge_weight: Tensor | None, n_nodes: int) -> Messages:
        """gcn: weights of A + I, each / sqrt(d_source d_target) with d the sum of weights that come in (Kipf and Welling, 2017, eq. 2).
        lightgcn: the same of A (He et al., 2020, eq. 3).  sage: each / the sum that comes in at the target, so that the sum of
        messages is the weighted mean (Hamilton et al., 2017).  gat: weights of A + I as they are, a feature of the edge.  mlp: none.

        d counts what comes in: give both directions of an undirected graph.

        Raises:
            DataError: see `tidied`.
        """
        index, weights = tidied(edge_index, edge_weight, n_nodes)
        if kind == "mlp":
            index, weights = index[:, :0], weights[:0]
        if kind in ("gcn", "gat"):
            loops = torch.arange(n_nodes, device=index.device).expand(2, -1)
            index, weights = _sorted(torch.cat([index, loops], dim=1), torch.cat([weights, weights.new_ones(n_nodes)]), n_nodes)
        sources, targets = index
        incoming = weights.new_zeros(n_nodes).index_add(0, targets, weights)
        if kind in ("gcn", "lightgcn"):
            shares = torch.where(incoming > 0, incoming, 1.0).rsqrt()  # 1: a node that nothing reaches divides by nothing
            weights = weights * shares[sources] * shares[targets]
        elif kind == "sage":
            weights = weights / torch.where(incoming > 0, incoming, 1.0)[targets]
        return cls(index, weights, n_nodes)

    @cached_property
    def fused(self) -> EdgeIndex:
        """As a sparse matrix, with its transpose for the gradient: a layer costs a tenth of gathering and scattering."""
        index = EdgeIndex(self.edge_index, sparse_size=(self.n_nodes, self.n_nodes), sort_order="col")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch says once a process that its sparse layouts are in beta
            index.to_sparse_csc()
            index.to_sparse_csr()
        return index.fill_cache_()


def tidied(edge_index: Tensor, edge_weight: Tensor | None, n_nodes: int) -> tuple[Tensor, Tensor]:
    """Distinct edges without self-loops, sorted by (target, source), and their weights: 1 where none are given.

    edge_index: int64 (2, E).  edge_weight: float (E,), positive.  Edges that are tidy already are returned as they came.

    Raises:
        DataError: wrong shapes or dtypes, nodes beyond 0..n_nodes-1, weights that are not finite and positive.
    """
    if edge_index.ndim != 2 or edge_index.shape[0] != 2 or edge_index.dtype != torch.int64:
        raise DataError(f"edge_index: int64 (2, E) is needed, got {edge_index.dtype} {tuple(edge_index.shape)}")
    if edge_index.numel() and (int(edge_index.min()) < 0 or int(edge_index.max()) >= n_nodes):
        raise DataError(f"edge_index names the nodes {int(edge_index.min())} to {int(edge_index.max())}; the graph has 0 to {n_nodes - 1}")
    weights = torch.ones(edge_index.shape[1], device=edge_index.device) if edge_weight is None else edge_weight
    if weights.shape != edge_index.shape[1:] or not weights.dtype.is_floating_point:
        raise DataError(f"edge_weight: float ({edge_index.shape[1]},) is needed, one an edge, got {weights.dtype} {tuple(weights.shape)}")
    if not bool((torch.isfinite(weights) & (weights > 0)).all()):
        raise DataError(
            f"edge_weight: finite positive numbers are needed, got {weights.min().item():g} to {weights.max().item():g}; leave edges of no weight out"
        )
    return _sorted(edge_index, weights, n_nodes, loops=False)


def _sorted(edge_index: Tensor, weights: Tensor, n_nodes: int, *, loops: bool = True) -> tuple[Tensor, Tensor]:
    sources, targets = edge_index
    if not loops and bool((looping := sources == targets).any()):
        edge_index, weights = edge_index[:, ~looping], weights[~looping]
        sources, targets = edge_index
    codes = targets * n_nodes + sources
    if not bool((codes[1:] > codes[:-1]).all()):
        codes, places = torch.unique(codes, return_inverse=True)
        largest = weights.new_zeros(len(codes)).scatter_reduce(0, places, weights, "amax", include_self=False)
        edge_index, weights = torch.stack([codes % n_nodes, codes // n_nodes]), largest
    return edge_index, weights
