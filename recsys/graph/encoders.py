"""`GraphEncoder`: nodes of a graph to vectors, from texts without any ID (after AlphaRec, Sheng et al., ICLR 2025) or from IDs (LightGCN)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from recsys.config import Config
from recsys.errors import DataError
from recsys.graph.flat import FlatGraph
from recsys.graph.layers import Gnn, GnnConfig
from recsys.graph.links import LinkConfig
from recsys.graph.messages import Messages


class GraphEncoderConfig(Config):
    features: Literal["text", "ids"] = "text"
    """text: the tables' vectors of an item; of any other node the mean of its items. Nothing is learned for a single node, so a new one needs no training.
    ids: a learned vector a node; an item of no interactions has none and is the mean of its neighbours alone."""
    users: bool = False
    """With user nodes: a user is its node. Else the graph has items and attribute values, and a user is the mean of its recent items."""
    relations: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Factors of relations, 1 where none is given; see `recsys.graph.flat.flatten`."""
    gnn: GnnConfig = GnnConfig(kind="sage", layers=2, hidden=128, dropout=0.2)
    dim: Annotated[int, Field(ge=1)] = 64
    """Of what is learned."""
    skip: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the text itself beside what is learned: after the training the text's unit vector, times the root of this, is appended to the vector,
    so that a score is that of the network plus `skip` times the cosine of the texts. New items need it most; where the text is a signal of its own, 0."""
    link: LinkConfig = LinkConfig()

    @model_validator(mode="after")
    def _text_to_skip(self) -> Self:
        if self.skip and self.features != "text":
            raise ValueError("skip appends the text; leave it out with features: ids")
        return self


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
