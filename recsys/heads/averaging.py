"""`WithAverage`: a network in training and the running mean of its weights, as one module, so that a checkpoint holds both."""

from __future__ import annotations

import copy

import torch
from torch import nn

from recsys.heads.network import FusionNetwork


class WithAverage(nn.Module):
    """decay: what a step leaves of the past. The first steps leave less, or the mean would be that of the random beginning:
    min(decay, (1 + t) / (10 + t)) after t steps."""

    steps: torch.Tensor

    def __init__(self, network: FusionNetwork, decay: float) -> None:
        super().__init__()
        self.network = network
        self.average = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self) -> None:
        """After each step."""
        t = int(self.steps)
        decay = min(self._decay, (1 + t) / (10 + t))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - decay)
        self.steps += 1
