"""The trainable part of the fused ranker: gated item vectors, the projection head and the sequence encoder.

e_i = g_id(i) id_i + sum over signals s of g_s(i) W_s z_s,i, where z are frozen, normalised text vectors (the additive
form of the text-plus-ID SASRec) and the gates g see only how often training saw the item. An item without interactions has no
ID share. During training some items are treated as such, in input and output alike: cold items are in distribution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.heads.config import FusionConfig
from recsys.heads.projection import ProjectionHead
from recsys.models.encoder import make_encoder


class FusionNetwork(nn.Module):
    """n_items: rows of the ID table.  signals: name -> k, the width of its normalised vectors."""

    def __init__(self, config: FusionConfig, n_items: int, signals: dict[str, int]) -> None:
        super().__init__()
        d = config.encoder.dim
        self.names = list(signals)
        self.ids = nn.Embedding(n_items, d)
        nn.init.xavier_normal_(self.ids.weight)
        self.maps = nn.ModuleDict({_key(name): _linear(k, d) for name, k in signals.items()})
        # Attributes may be absent: modules that a configuration does not use must not be in its checkpoints.
        self.gate = Gate(1 + len(signals)) if config.gate and signals else None
        self.projection = ProjectionHead(d) if config.projection else None
        self.encoder = make_encoder(config.encoder)

    def components(self, id_vectors: Tensor, signals: dict[str, Tensor], present: Tensor, counts: Tensor) -> Tensor:
        """float (n, 1 + S, d): the share of the ID and of each signal in the item vector; their sum is the vector.

        id_vectors: (n, d).  signals: name -> normalised (n, k).  present: bool (n, 1 + S), column 0 for the ID.
        counts: float (n,), training interactions, 0 where the ID is not present.
        """
        parts = torch.stack([id_vectors, *(self.maps[_key(name)](signals[name]) for name in self.names)], dim=1)
        weights = present.to(parts.dtype) if self.gate is None else self.gate(present, counts)
        return parts * weights[..., None]

    def item_vectors(self, signals: dict[str, Tensor], present: Tensor, counts: Tensor) -> Tensor:
        """float (n, d): the sum of `components` of the trained IDs. Rows of items without any signal carry no meaning."""
        if not self.names:
            return self.ids.weight
        return self.components(self.ids.weight, signals, present, counts).sum(dim=1)

    def project(self, vectors: Tensor) -> Tensor:
        """float (..., d) -> (..., d), item vectors as they are ranked."""
        return vectors if self.projection is None else self.projection(vectors)


class Gate(nn.Module):
    """Softmax weights of an item's signals, times the number of signals it has; begins with all weights 1 (the sum)."""

    def __init__(self, n_signals: int, hidden: int = 16) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(2, hidden), nn.Linear(hidden, n_signals)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, present: Tensor, counts: Tensor) -> Tensor:
        """bool (n, 1 + S), float (n,) -> float (n, 1 + S), 0 where a signal is not present."""
        features = torch.stack([torch.log1p(counts) / 5.0, present[:, 0].to(counts.dtype)], dim=1)
        logits = self.out(torch.tanh(self.hidden(features)))
        # An item with nothing at all: a finite floor instead of -inf keeps its (unused) weights from being NaN.
        weights = torch.softmax(logits.masked_fill(~present, -1e9), dim=1) * present
        return weights * present.sum(dim=1, keepdim=True)


def _linear(k: int, d: int) -> nn.Linear:
    layer = nn.Linear(k, d, bias=False)
    nn.init.xavier_normal_(layer.weight)
    return layer


def _key(name: str) -> str:
    """Module names may not hold dots; signal names may."""
    return name.replace(".", "__dot__")
