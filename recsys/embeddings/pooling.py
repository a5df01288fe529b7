"""Pooling over token positions. All of it is differentiable."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["mean", "last"]


def pool(hidden: Tensor, mask: Tensor | None, pooling: Pooling) -> Tensor:
    """States `hidden` (B, L, d) at the positions where `mask` (B, L) is non-zero -> float32 (B, d). None: every position counts."""
    return masked_mean(hidden, mask) if pooling == "mean" else last_state(hidden, mask)


def masked_mean(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `hidden` (B, L, d) over the positions where `mask` (B, L) is non-zero -> float32 (B, d).

    None means that every position counts. Summed in float32: bf16 sums lose digits with the length.
    Padding is removed by selection, not by multiplying with 0, so that a NaN at a padded position cannot leak.
    """
    values = hidden.float()
    if mask is None:
        return values.mean(dim=1)
    kept = mask.bool().unsqueeze(-1)
    return torch.where(kept, values, torch.zeros((), dtype=values.dtype, device=values.device)).sum(dim=1) / kept.sum(dim=1).clamp(min=1)


def last_state(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """The state at the last position where `mask` (B, L) is non-zero -> float32 (B, d). None: the last position."""
    if mask is None:
        return hidden[:, -1].float()
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    last = (mask.bool() * positions).amax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last].float()
