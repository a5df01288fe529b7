"""SASRec (Kang & McAuley 2018, arXiv 1808.09781) in its original form: LayerNorm on the queries only, item vectors
scaled by sqrt(d), causal attention, position embeddings counted from the end."""

from __future__ import annotations

from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from recsys.config import Config
from recsys.models.attention import CausalAttention, causal_mask
from recsys.models.causal import CausalEncoder


class SasRecConfig(Config):
    kind: Literal["sasrec"] = "sasrec"
    dim: Annotated[int, Field(ge=1)] = 64
    blocks: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    max_length: Annotated[int, Field(ge=1)] = 50
    """Last items of a history that are read."""
    scale_items: bool = True
    """Multiply the item vectors by sqrt(dim) before the positions are added, as the paper's code does."""

    @model_validator(mode="after")
    def _heads_divide(self) -> SasRecConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        return self


class SasRecEncoder(CausalEncoder):
    """Item vectors of histories -> user states, by SASRec's blocks."""

    def __init__(self, config: SasRecConfig) -> None:
        super().__init__()
        self.config = config
        self.positions = nn.Embedding(config.max_length, config.dim)
        nn.init.xavier_normal_(self.positions.weight)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.dim, eps=1e-8)

    def _through(self, blocks: nn.ModuleList, vectors: Tensor, valid: Tensor | None) -> Tensor:
        scaled = vectors * self.config.dim**0.5 if self.config.scale_items else vectors
        x: Tensor = F.dropout(scaled + self.positions.weight[-vectors.shape[1] :], self.config.dropout, self.training)
        x = x if valid is None else x * valid[..., None]
        mask = causal_mask(valid) if len(blocks) else None
        for block in blocks:
            x = block(x, mask)
            x = x if valid is None else x * valid[..., None]
        return x


class _Block(nn.Module):
    def __init__(self, config: SasRecConfig) -> None:
        super().__init__()
        d = config.dim
        self.dropout = config.dropout
        self.query_norm, self.feed_norm = nn.LayerNorm(d, eps=1e-8), nn.LayerNorm(d, eps=1e-8)
        self.attention = CausalAttention(d, config.heads, config.dropout)
        self.widen, self.narrow = nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        queries = self.query_norm(x)
        return self._fed(queries + self.attention(queries, x, mask))

    def last(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """float (B, 1, d)."""
        queries = self.query_norm(x[:, -1:])
        return self._fed(queries + self.attention.last(queries, x, valid))

    def _fed(self, attended: Tensor) -> Tensor:
        x: Tensor = self.feed_norm(attended)
        hidden = F.dropout(F.relu(self.widen(x)), self.dropout, self.training)
        return x + F.dropout(self.narrow(hidden), self.dropout, self.training)
