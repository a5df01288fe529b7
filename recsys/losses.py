"""Training losses over the catalogue."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_ROWS = 2048
"""Positions a block: bounds the logits to 2048 x candidates float32; smaller blocks cost more in thread barriers."""


def softmax_cross_entropy(states: Tensor, candidates: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the softmax over all candidates; a scalar.

    states: float (N, d), valid positions only (logits of padding would be most of the memory).
    candidates: float (C, d).  targets: int64 (N,), positions in `candidates`.
    The gradient is computed with the value, block by block, so the (N, C) logits never exist as a whole; exact, unlike
    sampled softmax. The idea of cut cross-entropy (Wijmans et al. 2024, arXiv 2411.09009), without its kernels.

    Raises:
        ValueError: no positions, or shapes that do not fit.
    """
    if states.ndim != 2 or candidates.ndim != 2 or states.shape[1] != candidates.shape[1] or targets.shape != states.shape[:1]:
        raise ValueError(f"states {tuple(states.shape)}, candidates {tuple(candidates.shape)} and targets {tuple(targets.shape)} do not fit")
    if len(states) == 0:
        raise ValueError("a loss needs at least one valid position")
    loss: Tensor = _SoftmaxCrossEntropy.apply(states, candidates, targets)  # type: ignore[no-untyped-call]
    return loss


class _SoftmaxCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, candidates: Tensor, targets: Tensor) -> Tensor:
        needs_gradient = states.requires_grad or candidates.requires_grad
        d_states, d_candidates = torch.empty_like(states), torch.zeros_like(candidates)
        total = states.new_zeros(())
        for start in range(0, len(states), _ROWS):
            rows, wanted = states[start : start + _ROWS], targets[start : start + _ROWS, None]
            logits = rows @ candidates.T  # (R, C)
            logits.sub_(logits.amax(1, keepdim=True))
            shifted = logits.gather(1, wanted)
            logits.exp_()
            sums = logits.sum(1, keepdim=True)
            total = total + (sums.log() - shifted).sum()
            if needs_gradient:
                logits.div_(sums).scatter_add_(1, wanted, torch.full_like(shifted, -1.0))
                torch.mm(logits, candidates, out=d_states[start : start + _ROWS])
                d_candidates.addmm_(logits.T, rows)
        ctx.save_for_backward(d_states, d_candidates)
        ctx.n = len(states)
        return total / len(states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor, Tensor, None]:
        d_states, d_candidates = ctx.saved_tensors
        scale = d_loss / ctx.n
        return d_states * scale, d_candidates * scale, None
