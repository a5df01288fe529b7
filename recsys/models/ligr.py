"""The encoder of eSASRec (Tikhonovich et al., RecSys 2025, arXiv 2508.06450): LiGR layers (Borisyuk et al. 2025, arXiv
2502.03417), pre-LayerNorm with a learned gate on each residual branch, and SwiGLU feed-forward nets."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from recsys.config import Config
from recsys.models.attention import CausalAttention, causal_mask
from recsys.models.causal import CausalEncoder


class LigrConfig(Config):
    kind: Literal["ligr"] = "ligr"
    dim: Annotated[int, Field(ge=1)] = 64
    blocks: Annotated[int, Field(ge=1)] = 1
    heads: Annotated[int, Field(ge=1)] = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    max_length: Annotated[int, Field(ge=1)] = 50
    """Last items of a history that are read."""
    widening: Annotated[int, Field(ge=1)] = 4
    """Width of the feed-forward nets, in multiples of `dim`."""
    gated: bool = True
    """Multiply each residual branch by sigmoid(W x). False leaves a pre-LayerNorm transformer."""
    activation: Literal["swiglu", "gelu"] = "swiglu"
    scale_items: bool = False
    """Multiply the item vectors by sqrt(dim) before the positions are added, as SASRec does."""
    final_norm: bool = False
    """LayerNorm of the states, as SASRec has it: it fixes their length, and the scores' scale is learned by the items alone."""

    @model_validator(mode="after")
    def _heads_divide(self) -> LigrConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        return self


class LigrEncoder(CausalEncoder):
    """Item vectors of histories -> user states; x + sigmoid(W_g x) * branch(LN x), first attention, then feed-forward."""

    def __init__(self, config: LigrConfig) -> None:
        super().__init__()
        self.config = config
        self.positions = nn.Embedding(config.max_length, config.dim)
        nn.init.xavier_normal_(self.positions.weight)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.dim) if config.final_norm else nn.Identity()

    def _through(self, blocks: nn.ModuleList, vectors: Tensor, valid: Tensor | None) -> Tensor:
        scaled = vectors * self.config.dim**0.5 if self.config.scale_items else vectors
        x: Tensor = F.dropout(scaled + self.positions.weight[-vectors.shape[1] :], self.config.dropout, self.training)
        mask = causal_mask(valid) if len(blocks) else None
        for block in blocks:
            x = block(x, mask)
        return x


class _Block(nn.Module):
    def __init__(self, config: LigrConfig) -> None:
        super().__init__()
        d, wide = config.dim, config.widening * config.dim
        self.dropout = config.dropout
        self.attention_norm, self.feed_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention = CausalAttention(d, config.heads, config.dropout)
        self.widen, self.narrow = nn.Linear(d, wide, bias=False), nn.Linear(wide, d, bias=False)
        self.second = nn.Linear(d, wide, bias=False) if config.activation == "swiglu" else None
        self.attention_gate = nn.Linear(d, d) if config.gated else None
        self.feed_gate = nn.Linear(d, d) if config.gated else None
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_normal_(parameter)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        normed = self.attention_norm(x)
        return self._fed(x, self.attention(normed, normed, mask))

    def last(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """float (B, 1, d)."""
        normed = self.attention_norm(x)
        return self._fed(x[:, -1:], self.attention.last(normed[:, -1:], normed, valid))

    def _fed(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self._gated(self.attention_gate, x, attended)
        normed = self.feed_norm(x)
        hidden = F.gelu(self.widen(normed)) if self.second is None else F.silu(self.widen(normed)) * self.second(normed)
        return x + self._gated(self.feed_gate, x, self.narrow(F.dropout(hidden, self.dropout, self.training)))

    def _gated(self, gate: nn.Linear | None, x: Tensor, branch: Tensor) -> Tensor:
        branch = F.dropout(branch, self.dropout, self.training)
        return branch if gate is None else torch.sigmoid(gate(x)) * branch
