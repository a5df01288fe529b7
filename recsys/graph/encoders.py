"""`GraphEncoder`: nodes of a graph to vectors, from texts without any ID (after AlphaRec, Sheng et al., ICLR 2025) or from IDs (LightGCN)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.errors import DataError
from recsys.graph.config import GraphEncoderConfig
from recsys.graph.flat import FlatGraph
from recsys.graph.layers import Gnn
from recsys.graph.messages import Messages


class GraphEncoder(nn.Module):
    """n_nodes: of the graph that is learned on.  width: of the text features."""

    def __init__(self, config: GraphEncoderConfig, n_nodes: int, width: int) -> None:
        super().__init__()
        self.config = config
        ids = config.features == "ids"
        # Attributes may be absent: a module that is not used must not be in a checkpoint.
        self.ids = nn.Embedding(n_nodes, config.dim) if ids else None
        if self.ids is not None:
            nn.init.normal_(self.ids.weight, std=0.1)
        self.gnn = Gnn(config.gnn, config.dim if ids else width, config.dim, mapped=not ids)

    def forward(self, inputs: Tensor, messages: Messages, nodes: Tensor | None = None) -> Tensor:
        """float (n, dim), of length 1 where the configuration compares directions.

        inputs: see `node_inputs`, rows of all nodes.  messages: over the n nodes.  nodes: int64 (n,), which those are; None is all.
        """
        rows = inputs if nodes is None else F.embedding(nodes, inputs)
        if self.ids is not None:
            rows = rows * (self.ids.weight if nodes is None else self.ids(nodes))
        return self.propagate(rows, messages)

    def propagate(self, rows: Tensor, messages: Messages) -> Tensor:
        """The same of rows that are at hand: float (n, width), or (n, dim) with IDs."""
        vectors = self.gnn.propagate(rows, messages)
        return F.normalize(vectors) if self.config.link.cosine else vectors

    def with_text(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """float (n, dim), (n, width) -> (n, dim + width): see `skip`; without it the vectors as they are."""
        return torch.cat([vectors, self.config.skip**0.5 * F.normalize(rows)], dim=1) if self.config.skip else vectors


def node_inputs(config: GraphEncoderConfig, graph: FlatGraph, features: Tensor | None, known: Tensor) -> Tensor:
    """What the encoder reads of each node. text: float32 (n_nodes, k), of about unit variance, 0 for a node without text.
    ids: float32 (n_nodes, 1), 1 where the node's vector is learned.

    features: float32 (n_items, k).  known: bool (n_items,): items with training interactions.

    Raises:
        DataError: the graph has no text.
    """
    if config.features == "ids":
        return torch.cat([known, torch.ones(graph.n_nodes - len(known), dtype=torch.bool)]).float()[:, None]
    if features is None:
        raise DataError("features: text needs an embedding table, and the graph was built without one; build it with tables or choose ids")
    return graph.averages(scaled(features))


def scaled(features: Tensor) -> Tensor:
    """Rows of length 1 to entries of about unit variance, which is what a network's first weights are made for."""
    inputs: Tensor = features * float(features.shape[1]) ** 0.5
    return inputs
