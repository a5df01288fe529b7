"""Pooling over token positions."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `hidden` (B, L, d) over the positions where `mask` (B, L) is non-zero -> float32 (B, d).

    None means that every position counts. Summed in float32: bf16 sums lose digits with the length.
    Padding is removed by selection, not by multiplying with 0, so that a NaN at a padded position cannot leak.
    """
    values = hidden.float()
    if mask is None:
        return values.mean(dim=1)
    kept = mask.bool().unsqueeze(-1)
    return torch.where(kept, values, torch.zeros((), dtype=values.dtype)).sum(dim=1) / kept.sum(dim=1).clamp(min=1)
