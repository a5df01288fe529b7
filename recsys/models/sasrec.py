"""SASRec (Kang & McAuley 2018, arXiv 1808.09781) in its original form: LayerNorm on the queries only, item vectors
scaled by sqrt(d), causal attention, position embeddings counted from the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from recsys.config import Config
from recsys.errors import DataError
from recsys.models.attention import CausalAttention, causal_mask
from recsys.training.batches import PAD, left_padded
from recsys.types import BoolArray, FloatArray, IntArray, Queries


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


class SasRecEncoder(nn.Module):
    """Item vectors of histories -> user states. Knows no item table, so IDs, text or both may feed it."""

    def __init__(self, config: SasRecConfig) -> None:
        super().__init__()
        self.config = config
        self.positions = nn.Embedding(config.max_length, config.dim)
        nn.init.xavier_normal_(self.positions.weight)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.dim, eps=1e-8)

    def forward(self, vectors: Tensor, valid: Tensor) -> Tensor:
        """float (B, L, d), bool (B, L) with padding on the left -> float (B, L, d). Values at padding mean nothing and
        never reach a valid position."""
        length = vectors.shape[1]
        keep = valid[..., None]
        scaled = vectors * self.config.dim**0.5 if self.config.scale_items else vectors
        x = F.dropout(scaled + self.positions.weight[-length:], self.config.dropout, self.training) * keep
        mask = causal_mask(valid)
        for block in self.blocks:
            x = block(x, mask) * keep
        return cast(Tensor, self.norm(x))


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
        x = self.feed_norm(queries + self.attention(queries, x, mask))
        hidden = F.dropout(F.relu(self.widen(x)), self.dropout, self.training)
        return cast(Tensor, x + F.dropout(self.narrow(hidden), self.dropout, self.training))


class SasRec:
    """A fitted Backbone: an encoder, its input vectors and the output vectors in the space of its states. Immutable.

    inputs, outputs: float32 (n, d).  scorable: bool (n,).  default_state: float32 (d,), the state of an empty history.
    """

    def __init__(self, encoder: SasRecEncoder, inputs: Tensor, outputs: FloatArray, scorable: BoolArray, default_state: FloatArray | None = None) -> None:
        self._encoder = encoder.eval().requires_grad_(False)
        self._inputs = inputs.detach()
        # Aligned with `histories` by a spare last row: PAD (-1) indexes it.
        self._padded = torch.cat([self._inputs, self._inputs.new_zeros(1, self._inputs.shape[1])])
        self._outputs, self._scorable = outputs, scorable
        for array in (outputs, scorable):
            array.flags.writeable = False
        self._default = np.zeros(outputs.shape[1], dtype=np.float32) if default_state is None else default_state

    @property
    def encoder(self) -> SasRecEncoder:
        return self._encoder

    @property
    def default_state(self) -> FloatArray:
        return self._default

    @property
    def n_items(self) -> int:
        return len(self._outputs)

    def scorable_items(self) -> BoolArray:
        return self._scorable

    def items(self) -> FloatArray:
        return self._outputs

    def represent(self, queries: Queries) -> FloatArray:
        """float32 (B, d). Items without a vector are left out of the history; a history with nothing left gets the
        default state. Users are known by their histories alone.

        Raises:
            DataError: a history holds a number that is no item_num.
        """
        histories = [self._known(history) for history in queries.histories]
        states = np.tile(self._default, (len(histories), 1)).astype(np.float32)
        some = [row for row, history in enumerate(histories) if len(history)]
        if some:
            # One pass over all rows: callers chunk.
            states[some] = self._encode([histories[row] for row in some])
        return states

    def _encode(self, histories: Sequence[IntArray]) -> FloatArray:
        padded = torch.from_numpy(left_padded(histories, self._encoder.config.max_length))
        with torch.inference_mode():
            states = self._encoder(self._padded[padded], padded != PAD)
        return cast(FloatArray, states[:, -1].numpy())

    def _known(self, history: IntArray) -> IntArray:
        if len(history) and (history.min() < 0 or history.max() >= self.n_items):
            found = f"{int(history.min())}..{int(history.max())}"
            raise DataError(f"history holds item_num {found}; this model knows 0..{self.n_items - 1}; leave unknown items out")
        return history[self._scorable[history]]
