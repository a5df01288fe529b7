"""Several classifiers of the same nodes as one: the mean of their logits (TAPE, section 4.4), and a learned gate (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from recsys.config import Config
from recsys.errors import DataError
from recsys.types import FloatArray, IntArray


def mean_of_logits(kinds: Sequence[FloatArray]) -> FloatArray:
    """float32 (n, C) each. Raises DataError: none, or of different shapes."""
    found: FloatArray = _stacked(kinds).mean(dim=0).numpy()
    return found


class GateConfig(Config):
    penalty: Annotated[float, Field(ge=0)] = 0.01
    """On the distance from the mean: with few nodes the gate stays with it."""
    steps: Annotated[int, Field(ge=1)] = 100


@dataclass(frozen=True)
class Gate:
    """Node i listens to kind k by softmax over k of `bias` + `slope` x margin, the margin being how far k's likeliest class of
    i is above its second, in probability; logits are scaled by `scale` first. float32 (K,) each; zero, zero, one is the mean.
    """

    bias: Tensor
    slope: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, config: GateConfig, kinds: Sequence[FloatArray], labels: IntArray, nodes: IntArray) -> Self:
        """Cross-entropy on `nodes`, which must not be those that the classifiers learned from: there all of them look right.

        Raises:
            DataError: no nodes.
        """
        if not len(nodes):
            raise DataError("a gate is fitted on validation nodes, got none")
        logits, judged = _stacked(kinds)[:, nodes], torch.from_numpy(labels[nodes].copy())
        moved = torch.zeros(3, len(kinds), requires_grad=True)
        optimiser = torch.optim.LBFGS([moved], max_iter=config.steps, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            found = F.cross_entropy(_gated(logits, *moved), judged) + config.penalty * moved.square().sum()
            found.backward()  # type: ignore[no-untyped-call]
            return found

        optimiser.step(loss)  # type: ignore[no-untyped-call]
        bias, slope, log_scale = moved.detach()
        return cls(bias, slope, log_scale.exp())

    def apply(self, kinds: Sequence[FloatArray]) -> FloatArray:
        """float32 (n, C)."""
        found: FloatArray = _gated(_stacked(kinds), self.bias, self.slope, self.scale.log()).numpy()
        return found

    def shares(self, kinds: Sequence[FloatArray]) -> list[float]:
        """How much each kind counts, on the average over the nodes."""
        return [float(share) for share in _shares(_stacked(kinds), self.bias, self.slope, self.scale.log())[1].mean(dim=1)]


def _gated(logits: Tensor, bias: Tensor, slope: Tensor, log_scale: Tensor) -> Tensor:
    scaled, shares = _shares(logits, bias, slope, log_scale)
    return (scaled * shares[:, :, None]).sum(dim=0)


def _shares(logits: Tensor, bias: Tensor, slope: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled logits (K, n, C) and shares (K, n)."""
    scaled = logits * log_scale.exp()[:, None, None]
    likeliest = scaled.softmax(dim=2).topk(2, dim=2).values
    margins = likeliest[:, :, 0] - likeliest[:, :, 1]
    return scaled, (bias[:, None] + slope[:, None] * margins).softmax(dim=0)


def _stacked(kinds: Sequence[FloatArray]) -> Tensor:
    shapes = {kind.shape for kind in kinds}
    if len(shapes) != 1 or any(kind.ndim != 2 or kind.shape[1] < 2 for kind in kinds):
        raise DataError(f"logits of one shape (n, C), C of two or more, are fused; got {sorted(shapes) or 'none'}")
    return torch.from_numpy(np.stack(kinds))
