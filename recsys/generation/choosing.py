"""The next token of each row: greedy, or drawn with temperature and top-p."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.errors import NonFiniteError
from recsys.generation.sampling import Sampling

_HEAD = 256
"""Tokens that are sorted first; only a row whose probability is flatter than that is sorted whole."""


def choose(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> Tensor:
    """int64 (B,) from logits (B, V) and one number of [0, 1) a row (unused when greedy).

    A row's number picks its token by inverting the cumulative distribution, so that equal numbers give equal tokens in any batch.

    Raises:
        NonFiniteError: a row without a finite highest logit.
    """
    highest, greedy = logits.max(dim=-1)
    if not torch.isfinite(highest).all():
        raise NonFiniteError(f"the model's logits hold NaN or infinity in {int((~torch.isfinite(highest)).sum())} of {len(logits)} rows; try dtype float32")
    if sampling.temperature == 0:
        return greedy
    # Divided after the highest was taken away: a tiny temperature cannot overflow.
    probabilities = torch.softmax((logits.float() - highest.float().unsqueeze(1)) / sampling.temperature, dim=-1)
    if sampling.top_p == 1:
        return _inverted(probabilities, uniforms)
    head, tokens = probabilities.topk(min(_HEAD, probabilities.shape[1]))
    chosen = tokens.gather(1, _inverted(_nucleus(head, sampling.top_p), uniforms).unsqueeze(1)).squeeze(1)
    flat = (head.sum(1) < sampling.top_p).nonzero().squeeze(1)
    if len(flat):
        ordered, tokens = probabilities[flat].sort(descending=True, stable=True)
        chosen[flat] = tokens.gather(1, _inverted(_nucleus(ordered, sampling.top_p), uniforms[flat]).unsqueeze(1)).squeeze(1)
    return chosen


def log_probabilities(logits: Tensor, tokens: Tensor) -> Tensor:
    """float32 (B,): of tokens (B,) under logits (B, V)."""
    values = logits.float()
    return values.gather(1, tokens.unsqueeze(1)).squeeze(1) - values.logsumexp(dim=-1)


def _nucleus(ordered: Tensor, top_p: float) -> Tensor:
    """Descending probabilities, zero from where those before already hold `top_p`; the first always stays."""
    return ordered * (ordered.cumsum(1) - ordered < top_p)


def _inverted(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The column where the cumulative share first exceeds the row's number; only columns with weight."""
    cumulative = weights.double().cumsum(1)
    target = uniforms.double().unsqueeze(1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp_(max=weights.shape[1] - 1)
