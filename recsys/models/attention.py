"""Causal attention over left-padded histories."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalAttention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017); queries from one input, keys and values from another."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key_value, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        for layer in (self.query, self.key_value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """float (B, L, d), float (B, L, d), mask of `causal_mask` -> float (B, L, d)."""
        return self._attended(queries, keys, mask, causal=mask is None)

    def last(self, queries: Tensor, keys: Tensor, valid: Tensor | None) -> Tensor:
        """`forward` of the last place alone: float (B, 1, d), float (B, L, d), bool (B, L) with padding on the left, None without padding
        -> float (B, 1, d)."""
        return self._attended(queries, keys, None if valid is None else valid[:, None, None], causal=False)

    def _attended(self, queries: Tensor, keys: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor:
        B, asked, d = queries.shape
        q = self.query(queries).view(B, asked, self.heads, -1).transpose(1, 2)
        k, v = self.key_value(keys).view(B, keys.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0, is_causal=causal)
        return cast(Tensor, self.out(attended.transpose(1, 2).reshape(B, asked, d)))


def causal_mask(valid: Tensor | None) -> Tensor | None:
    """bool (B, L) with padding on the left -> bool (B, 1, L, L), True where attention may look; None, without padding: plain causal."""
    if valid is None:
        return None
    length = valid.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
    # The diagonal stays open: a padded row that may see nothing would be NaN.
    alone = torch.eye(length, dtype=torch.bool, device=valid.device)
    return ((causal & valid[:, None, :]) | alone)[:, None]


def padding_of(valid: Tensor) -> Tensor | None:
    """`valid` where there is padding, else None."""
    return None if bool(valid.all()) else valid
