"""`classify`: a graph network that learns the classes of nodes, in full batches, stopped by the accuracy on validation nodes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from recsys.config import Config
from recsys.errors import DataError, NonFiniteError
from recsys.graph.config import GnnConfig
from recsys.graph.layers import Gnn
from recsys.graph.node_features import NodeFeatures
from recsys.graph.node_split import NodeSplit
from recsys.graph.text_graph import UNKNOWN
from recsys.rng import derive_seed
from recsys.types import FloatArray, IntArray


class NodeClassifierConfig(Config):
    gnn: GnnConfig = GnnConfig(kind="gcn", layers=2, hidden=128, dropout=0.5)
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    epochs: Annotated[int, Field(ge=1)] = 300
    patience: Annotated[int, Field(ge=1)] = 50
    """Epochs without a better validation accuracy (of equals: a lower validation loss) until training ends."""


@dataclass(frozen=True)
class Classified:
    """logits: float32 (n, C) of all nodes, of the best epoch, without dropout.  validation: accuracy then."""

    logits: FloatArray
    validation: float
    best_epoch: int
    epochs: int
    parameters: int


def classify(
    config: NodeClassifierConfig, features: NodeFeatures, edge_index: Tensor, labels: IntArray, split: NodeSplit, n_classes: int, *, seed: int,
    weights: FloatArray | None = None,
) -> Classified:  # fmt: skip
    """Learn from the labels of `split.train` alone. The labels of `split.validation` choose the epoch, those of `split.test` are not read.

    edge_index: int64 (2, E), both directions of an undirected graph.  labels: int64 (n,).  Equal seeds give equal logits.
    weights: float32, one a node of `split.train`, how much its loss counts; null: all the same.

    Raises:
        DataError: sizes that do not fit, or a node to learn from without a label.  NonFiniteError: the loss.
    """
    if len(features) != len(labels):
        raise DataError(f"features of {len(features)} nodes, labels of {len(labels)}")
    if weights is not None and weights.shape != split.train.shape:
        raise DataError(f"weights: one a node to learn from, ({len(split.train)},), got {weights.shape}")
    for name, part in (("train", split.train), ("validation", split.validation)):
        if (labels[part] == UNKNOWN).any():
            raise DataError(f"{name} nodes need labels, node {int(part[labels[part] == UNKNOWN][0])} has none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "node classifier"))
        inputs = features.module()
        network = nn.ModuleList([inputs, Gnn(config.gnn, inputs.width, n_classes)])
        return _trained(config, network, edge_index, labels, split, None if weights is None else torch.from_numpy(weights))


def accuracy(logits: FloatArray, labels: IntArray, nodes: IntArray) -> float:
    """Share of `nodes` whose highest logit is that of their label; NaN without nodes."""
    return float((logits[nodes].argmax(axis=1) == labels[nodes]).mean()) if len(nodes) else float("nan")


class _Pass:
    """Logits of all nodes, or of those that a training looks at: where no edge counts, the others need not be computed."""

    def __init__(self, network: nn.ModuleList, edge_index: Tensor, n_nodes: int, nodes: Tensor | None) -> None:
        self._inputs, self._gnn = network
        self._nodes = nodes
        assert isinstance(self._gnn, Gnn)
        self._messages = self._gnn.messages(edge_index, None, n_nodes) if nodes is None else self._gnn.messages(edge_index[:, :0], None, len(nodes))

    def __call__(self) -> Tensor:
        logits: Tensor = self._gnn.propagate(self._inputs(self._nodes), self._messages)  # type: ignore[operator]
        return logits


def _trained(
    config: NodeClassifierConfig, network: nn.ModuleList, edge_index: Tensor, labels: IntArray, split: NodeSplit, weights: Tensor | None
) -> Classified:
    train, validation = torch.from_numpy(split.train), torch.from_numpy(split.validation)
    learned, judged = (torch.from_numpy(labels[part].copy()) for part in (split.train, split.validation))
    whole = _Pass(network, edge_index, len(labels), None)
    seen = whole
    if config.gnn.kind == "mlp":
        seen = _Pass(network, edge_index, len(labels), torch.cat([train, validation]))
        train, validation = torch.arange(len(train)), torch.arange(len(train), len(train) + len(validation))
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    best, best_epoch, kept = (-1.0, float("-inf")), 0, copy.deepcopy(network.state_dict())
    epoch = 0
    for epoch in range(1, config.epochs + 1):
        network.train()
        optimiser.zero_grad()
        if weights is None:
            loss = F.cross_entropy(seen()[train], learned, label_smoothing=config.label_smoothing)
        else:
            loss = (F.cross_entropy(seen()[train], learned, label_smoothing=config.label_smoothing, reduction="none") * weights).sum() / weights.sum()
        if not torch.isfinite(loss):
            raise NonFiniteError(f"node classifier: the loss of epoch {epoch} is {loss.item()}; lower learning_rate ({config.learning_rate:g})")
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        # Without dropout: the accuracy of a forward pass that drops inputs is another model's.
        network.eval()
        with torch.no_grad():
            logits = seen()[validation]
        reached = (float((logits.argmax(1) == judged).float().mean()), -float(F.cross_entropy(logits, judged)))
        if reached > best:
            best, best_epoch, kept = reached, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= config.patience:
            break
    network.load_state_dict(kept)
    network.eval()
    with torch.no_grad():
        final: FloatArray = whole().numpy().astype(np.float32)
    return Classified(final, best[0], best_epoch, epoch, sum(parameter.numel() for parameter in network.parameters()))
