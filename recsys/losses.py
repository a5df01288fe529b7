"""Training losses over the catalogue.

Every position of a history has one target; the candidates are all items that training knows. None of the losses ever
holds the (N, C) logits as a whole: they are made and used block by block in one buffer that stays in the processor's cache.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys.config import Config

_BLOCK = 2**20
"""Logits held at once (4 MiB of float32). Larger blocks leave the cache: 2**24 takes twice as long."""
_GATHER_FROM = 64
"""Sampled losses read single candidates instead of all logits where the catalogue has this many times more items than
a position has logits."""


class SoftmaxLoss(Config):
    """Cross-entropy over the whole catalogue: exact, and the default below some 100,000 items."""

    kind: Literal["softmax"] = "softmax"


class SampledSoftmaxLoss(Config):
    """Cross-entropy over the target and uniform negatives of each position's own, without correction, as eSASRec has it."""

    kind: Literal["sampled_softmax"] = "sampled_softmax"
    negatives: Annotated[int, Field(ge=1)] = 256


class GbceLoss(Config):
    """gSASRec's generalised binary cross-entropy (Petrov and Macdonald, RecSys 2023, arXiv 2308.07192).

    `calibration: 0, negatives: 1` is SASRec's original loss.
    """

    kind: Literal["gbce"] = "gbce"
    negatives: Annotated[int, Field(ge=1)] = 256
    calibration: Annotated[float, Field(ge=0, le=1)] = 0.75
    """t of eq. 12: 0 is plain binary cross-entropy, 1 removes the overconfidence of sampling entirely."""


LossConfig = Annotated[SoftmaxLoss | SampledSoftmaxLoss | GbceLoss, Field(discriminator="kind")]


def catalogue_loss(config: SoftmaxLoss | SampledSoftmaxLoss | GbceLoss, states: Tensor, candidates: Tensor, targets: Tensor) -> Tensor:
    """The configured loss, a scalar: mean over the positions. Shapes as in `softmax_cross_entropy`.

    Negatives come from torch's generator.
    """
    if isinstance(config, SoftmaxLoss):
        return softmax_cross_entropy(states, candidates, targets)
    chosen = torch.cat([targets[:, None], uniform_negatives(targets, len(candidates), config.negatives)], dim=1)
    logits = chosen_logits(states, candidates, chosen)
    if isinstance(config, SampledSoftmaxLoss):
        return F.cross_entropy(logits, torch.zeros_like(targets))
    return generalised_bce(logits, len(candidates), config.calibration)


def generalised_bce(logits: Tensor, n_candidates: int, calibration: float) -> Tensor:
    """Mean over positions of -(beta log s(l_0) + sum over negatives of log(1 - s(l_j))) / (1 + k), s the logistic function.

    logits: float (N, 1 + k), the target's first. beta = a (t (1 - 1/a) + 1/a) with a = k / (C - 1) (eq. 12); the power of
    the probability, s(l)^beta, is taken in the logarithm, where it is a factor and loses no digits.
    """
    k = logits.shape[1] - 1
    sampled = k / (n_candidates - 1)
    beta = sampled * (calibration * (1 - 1 / sampled) + 1 / sampled)
    positive = beta * F.logsigmoid(logits[:, 0])
    return -((positive + F.logsigmoid(-logits[:, 1:]).sum(1)) / (1 + k)).mean()


def uniform_negatives(targets: Tensor, n_candidates: int, count: int) -> Tensor:
    """int64 (N, count): drawn with replacement for each position, uniform over all candidates but the position's target."""
    drawn = torch.randint(n_candidates - 1, (len(targets), count), device=targets.device)
    return drawn + (drawn >= targets[:, None])


def softmax_cross_entropy(states: Tensor, candidates: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the softmax over all candidates; a scalar.

    states: float (N, d), valid positions only (logits of padding would be most of the memory).
    candidates: float (C, d).  targets: int64 (N,), positions in `candidates`.
    The gradient is computed with the value, block by block; exact, unlike sampled softmax. The idea of cut cross-entropy
    (Wijmans et al. 2024, arXiv 2411.09009), without its kernels.

    Raises:
        ValueError: no positions, or shapes that do not fit.
    """
    _require_shapes(states, candidates, targets)
    loss: Tensor = _SoftmaxCrossEntropy.apply(states, candidates, targets)  # type: ignore[no-untyped-call]
    return loss


def chosen_logits(states: Tensor, candidates: Tensor, chosen: Tensor) -> Tensor:
    """float (N, m): states[n] . candidates[chosen[n, j]], with gradients. states (N, d), candidates (C, d), chosen int64 (N, m).

    A small catalogue is multiplied whole and read off, which is faster than collecting N x m single rows.

    Raises:
        ValueError: no positions, or shapes that do not fit.
    """
    _require_shapes(states, candidates, chosen[:, 0])
    if len(candidates) > _GATHER_FROM * chosen.shape[1]:
        return torch.einsum("nd,nmd->nm", states, F.embedding(chosen, candidates))
    logits: Tensor = _ChosenLogits.apply(states, candidates, chosen)  # type: ignore[no-untyped-call]
    return logits


def _require_shapes(states: Tensor, candidates: Tensor, targets: Tensor) -> None:
    if states.ndim != 2 or candidates.ndim != 2 or states.shape[1] != candidates.shape[1] or targets.shape != states.shape[:1]:
        raise ValueError(f"states {tuple(states.shape)}, candidates {tuple(candidates.shape)} and targets {tuple(targets.shape)} do not fit")
    if len(states) == 0:
        raise ValueError("a loss needs at least one valid position")


def _block_rows(n_candidates: int) -> int:
    return max(1, _BLOCK // n_candidates)


class _SoftmaxCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, candidates: Tensor, targets: Tensor) -> Tensor:
        needs_gradient = states.requires_grad or candidates.requires_grad
        d_states, d_candidates = torch.empty_like(states), torch.zeros_like(candidates)
        rows = min(_block_rows(len(candidates)), len(states))
        buffer = states.new_empty(rows, len(candidates))
        total = states.new_zeros(())
        for start in range(0, len(states), rows):
            block, wanted = states[start : start + rows], targets[start : start + rows, None]
            logits = torch.mm(block, candidates.T, out=buffer[: len(block)])  # (R, C)
            logits.sub_(logits.amax(1, keepdim=True))
            shifted = logits.gather(1, wanted)
            logits.exp_()
            sums = logits.sum(1, keepdim=True)
            total = total + (sums.log() - shifted).sum()
            if needs_gradient:
                # (softmax - target) is taken times `sums`; dividing the narrow factors saves a pass over the logits.
                logits.scatter_add_(1, wanted, -sums)
                torch.mm(logits, candidates, out=d_states[start : start + rows])
                d_states[start : start + rows].div_(sums)
                d_candidates.addmm_(logits.T, block / sums)
        ctx.save_for_backward(d_states, d_candidates)
        ctx.n = len(states)
        return total / len(states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor, Tensor, None]:
        d_states, d_candidates = ctx.saved_tensors
        scale = d_loss / ctx.n
        return d_states * scale, d_candidates * scale, None


class _ChosenLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, candidates: Tensor, chosen: Tensor) -> Tensor:
        ctx.save_for_backward(states, candidates, chosen)
        rows = min(_block_rows(len(candidates)), len(states))
        buffer = states.new_empty(rows, len(candidates))
        logits = states.new_empty(chosen.shape)
        for start in range(0, len(states), rows):
            block = states[start : start + rows]
            whole = torch.mm(block, candidates.T, out=buffer[: len(block)])
            torch.gather(whole, 1, chosen[start : start + rows], out=logits[start : start + rows])
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logits: Tensor) -> tuple[Tensor, Tensor, None]:
        states, candidates, chosen = ctx.saved_tensors
        d_states, d_candidates = torch.empty_like(states), torch.zeros_like(candidates)
        rows = min(_block_rows(len(candidates)), len(states))
        buffer = states.new_empty(rows, len(candidates))
        for start in range(0, len(states), rows):
            block = states[start : start + rows]
            # Negatives are drawn with replacement: what falls on one candidate adds up.
            whole = buffer[: len(block)].zero_().scatter_add_(1, chosen[start : start + rows], d_logits[start : start + rows])
            torch.mm(whole, candidates, out=d_states[start : start + rows])
            d_candidates.addmm_(whole.T, block)
        return d_states, d_candidates, None
