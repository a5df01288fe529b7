"""`Gnn`: GCN, GraphSAGE, GAT and LightGCN of torch-geometric behind one call, and an MLP that looks at no edge."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.nn.conv.gat_conv import GATConv
from torch_geometric.nn.conv.gcn_conv import GCNConv
from torch_geometric.nn.conv.graph_conv import GraphConv
from torch_geometric.nn.conv.lg_conv import LGConv

from recsys.errors import DataError
from recsys.graph.config import GnnConfig
from recsys.graph.dropout import dropout
from recsys.graph.messages import Messages

__all__ = ["Gnn", "GnnConfig"]


class Gnn(nn.Module):
    """float (n, inputs) -> (n, outputs).

    mapped: of lightgcn alone: x is mapped to `outputs` by a linear layer first; False takes x as layer 0 (learned vectors).

    Self-loops, duplicates and the normalisation: `recsys.graph.messages`. On a piece of a graph the sums of that piece
    count; a sampler that is to be true to the whole graph draws from the `Messages` of the whole.
    """

    def __init__(self, config: GnnConfig, inputs: int, outputs: int, *, mapped: bool = True) -> None:
        super().__init__()
        self.config, self.inputs, self.outputs = config, inputs, outputs
        if config.kind == "lightgcn":
            if not mapped and inputs != outputs:
                raise DataError(f"lightgcn without a map gives vectors as wide as its input ({inputs}), not {outputs}")
            # Attributes may be absent: a module that is not used must not be in a checkpoint.
            self.map = nn.Linear(inputs, outputs) if mapped else None
            self.layers = nn.ModuleList(_FusedLightGcn(normalize=False) for _ in range(config.layers))
            self.norms = nn.ModuleList()
            return
        widths = [inputs, *[config.hidden] * (config.layers - 1), outputs]
        self.layers = nn.ModuleList(_layer(config, widths[k], widths[k + 1], last=k == config.layers - 1) for k in range(config.layers))
        self.norms = nn.ModuleList(_norm(config.norm, config.hidden) for _ in range(config.layers - 1))

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """float (n, k), int64 (2, E) [source, target], float (E,) or None for all 1 -> float (n, d).

        Prepares the edges anew; whoever runs many passes over one graph calls `messages` once and `propagate` after.

        Raises:
            DataError: see `recsys.graph.messages.tidied`.
        """
        return self.propagate(x, self.messages(edge_index, edge_weight, len(x)))

    def messages(self, edge_index: Tensor, edge_weight: Tensor | None, n_nodes: int) -> Messages:
        return Messages.of(self.config.kind, edge_index, edge_weight, n_nodes)

    def propagate(self, x: Tensor, messages: Messages) -> Tensor:
        """float (n, k) -> (n, d). messages: of this kind."""
        if x.ndim != 2 or x.shape[1] != self.inputs or len(x) != messages.n_nodes:
            raise DataError(f"x: float ({messages.n_nodes}, {self.inputs}) is needed, a row a node, got {tuple(x.shape)}")
        weights = messages.weights.to(x.dtype)
        # The sparse product knows no gradient of its weights.
        edges = messages.edge_index if weights.requires_grad or self.config.kind in ("gat", "mlp") else messages.fused
        if self.config.kind == "lightgcn":
            return self._smoothed(x, edges, weights)
        for k, layer in enumerate(self.layers):
            x = dropout(x, self.config.dropout, self.training)
            x = layer(x) if self.config.kind == "mlp" else layer(x, edges, weights)
            if k < len(self.norms):
                x = torch.relu(self.norms[k](x))
        return x

    def _smoothed(self, x: Tensor, edges: Tensor, weights: Tensor) -> Tensor:
        x = dropout(x, self.config.dropout, self.training)
        layer = x if self.map is None else self.map(x)
        total = layer
        for smooth in self.layers:
            layer = smooth(layer, edges, weights)
            total = total + layer
        return total / (len(self.layers) + 1)


class _Fused:
    """Lets a layer that sums weighted messages do so by torch-geometric's sparse product."""

    SUPPORTS_FUSED_EDGE_INDEX = True

    def message_and_aggregate(self, edge_index: EdgeIndex, x: Tensor, edge_weight: Tensor) -> Tensor:
        product: Tensor = edge_index.matmul(x, input_value=edge_weight, reduce="sum", transpose=True)
        return product


class _FusedGcn(_Fused, GCNConv):  # type: ignore[misc]
    pass


class _FusedLightGcn(_Fused, LGConv):  # type: ignore[misc]
    pass


def _layer(config: GnnConfig, inputs: int, outputs: int, *, last: bool) -> nn.Module:
    layer: nn.Module
    match config.kind:
        case "gcn":
            layer = _FusedGcn(inputs, outputs, normalize=False)
        case "sage":
            # SAGEConv knows no weights; over weights of sum 1 GraphConv's sum is the mean.
            layer = GraphConv(inputs, outputs, aggr="add")
        case "gat":
            width = outputs if last else outputs // config.heads
            layer = GATConv(inputs, width, config.heads, concat=not last, dropout=config.dropout, add_self_loops=False, edge_dim=1)
        case _:
            layer = nn.Linear(inputs, outputs)
    return layer


def _norm(kind: str, width: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm1d(width)
    return nn.LayerNorm(width) if kind == "layer" else nn.Identity()
