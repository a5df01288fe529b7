"""The trainable part of the fused ranker: gated item vectors, the head and the sequence encoder.

e_i = g_id(i) id_i + sum over signals s of g_s(i) A_s(z_s,i), where z are frozen, prepared vectors, A their adapters (linear ones
give the additive form of the text-plus-ID SASRec) and the gates g see how often training saw the item and what is known of it.
An item without interactions has no ID share. During training some items are treated as such, in input and output alike: cold
items are in distribution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.heads.adapters import make_adapter
from recsys.heads.config import FusionConfig
from recsys.heads.projection import ProjectionHead
from recsys.models.encoder import make_encoder


class ItemTower(nn.Module):
    """Item vectors. n_items: rows of the ID table.  signals: name -> k, the width of its prepared vectors."""

    _nothing: Tensor

    def __init__(self, config: FusionConfig, n_items: int, signals: dict[str, int]) -> None:
        super().__init__()
        d = config.encoder.dim
        self.names = list(signals)
        self._dim, self._id_axes = d, config.id_axes or d
        self.register_buffer("_nothing", torch.zeros(()), persistent=False)
        # Attributes may be absent: modules that a configuration does not use must not be in its checkpoints.
        self.ids = nn.Embedding(n_items, self._id_axes) if config.use_ids else None
        if self.ids is not None:
            nn.init.zeros_(self.ids.weight) if config.id_init == "zero" else nn.init.xavier_normal_(self.ids.weight)
        self.maps = nn.ModuleDict({_key(name): make_adapter(config.of(name), k, d) for name, k in signals.items()})
        self.gate = Gate(1 + len(signals), presence=config.gate_presence) if config.gate and signals else None

    def id_vectors(self, n_items: int) -> Tensor:
        """float (n, d): zeros outside the axes of the IDs."""
        if self.ids is None:
            return self._nothing.expand(n_items, self._dim)
        return self.ids.weight if self._id_axes == self._dim else F.pad(self.ids.weight, (self._dim - self._id_axes, 0))

    def components(self, id_vectors: Tensor, signals: dict[str, Tensor], present: Tensor, counts: Tensor) -> Tensor:
        """float (n, 1 + S, d): the share of the ID and of each signal in the item vector; their sum is the vector.

        id_vectors: (n, d).  signals: name -> prepared (n, k).  present: bool (n, 1 + S), column 0 for the ID.
        counts: float (n,), training interactions, 0 where the ID is not present.
        """
        parts = torch.stack([id_vectors, *(self.maps[_key(name)](signals[name]) for name in self.names)], dim=1)
        weights = present.to(parts.dtype) if self.gate is None else self.gate(present, counts)
        return parts * weights[..., None]

    def all_components(self, signals: dict[str, Tensor], present: Tensor, counts: Tensor) -> Tensor:
        """`components` of the trained IDs."""
        return self.components(self.id_vectors(len(counts)), signals, present, counts)

    def item_vectors(self, signals: dict[str, Tensor], present: Tensor, counts: Tensor) -> Tensor:
        """float (n, d): the sum of `all_components`. Rows of items without any signal carry no meaning."""
        if not self.names:
            return self.id_vectors(len(counts))
        return self.all_components(signals, present, counts).sum(dim=1)


class FusionNetwork(ItemTower):
    """The tower of the items that are read, the encoder, and the head: a map, or a tower of the items that are ranked."""

    def __init__(self, config: FusionConfig, n_items: int, signals: dict[str, int]) -> None:
        super().__init__(config, n_items, signals)
        self.projection = ProjectionHead(config.encoder.dim) if config.projection else None
        self.encoder = make_encoder(config.encoder)
        self.head = ItemTower(config, n_items, signals) if config.head == "free" else None
        self.temperature = config.temperature

    @property
    def towers(self) -> list[ItemTower]:
        return [self] if self.head is None else [self, self.head]

    def projected(self, components: Tensor) -> Tensor:
        """float (n, 1 + S, d) -> (n, 1 + S, d): the shares (of a free head, its own) as they are ranked. All that is done to them is linear,
        but for the length of their sum, by which a cosine divides them all alike: they still add up to the score."""
        ranked = components if self.projection is None else self.projection(components)
        return ranked if self.temperature is None else ranked * self._factor(ranked.sum(dim=-2))[..., None, :]

    def ranked_vectors(self, read: Tensor, signals: dict[str, Tensor], present: Tensor, counts: Tensor) -> Tensor:
        """float (n, d), the vectors that are ranked. read: `item_vectors` of the same arguments."""
        return self.ranked_sum(read if self.head is None else self.head.item_vectors(signals, present, counts))

    def ranked_sum(self, vectors: Tensor) -> Tensor:
        """float (n, d) -> (n, d): the sum of `projected`, from the sum of the shares."""
        ranked = vectors if self.projection is None else self.projection(vectors)
        return ranked if self.temperature is None else ranked * self._factor(ranked)

    def compared(self, states: Tensor) -> Tensor:
        """float (N, d): states as training compares them. Serving leaves their length, which moves no user's ranking."""
        return states if self.temperature is None else F.normalize(states, dim=-1)

    def _factor(self, vectors: Tensor) -> Tensor:
        """float (n, d) -> (n, 1): to length 1 / temperature."""
        assert self.temperature is not None
        lengths: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        return 1.0 / (self.temperature * lengths.clamp(min=1e-12))


class Gate(nn.Module):
    """Softmax weights of an item's signals, times the number of signals it has; begins with all weights 1 (the sum).

    presence: it also sees which signals there are. Without, a missing one only leaves its weight to the others.
    """

    def __init__(self, n_signals: int, hidden: int = 16, *, presence: bool = False) -> None:
        super().__init__()
        self._presence = presence
        self.hidden, self.out = nn.Linear(1 + n_signals if presence else 2, hidden), nn.Linear(hidden, n_signals)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, present: Tensor, counts: Tensor) -> Tensor:
        """bool (n, 1 + S), float (n,) -> float (n, 1 + S), 0 where a signal is not present."""
        seen = (present if self._presence else present[:, :1]).to(counts.dtype)
        features = torch.cat([(torch.log1p(counts) / 5.0)[:, None], seen], dim=1)
        logits = self.out(torch.tanh(self.hidden(features)))
        # An item with nothing at all: a finite floor instead of -inf keeps its (unused) weights from being NaN.
        weights = torch.softmax(logits.masked_fill(~present, -1e9), dim=1) * present
        return weights * present.sum(dim=1, keepdim=True)


def _key(name: str) -> str:
    """Module names may not hold dots; signal names may."""
    return name.replace(".", "__dot__")
