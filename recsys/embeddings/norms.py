"""Norm layers with the same sums as transformers', faster on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """The same sums as transformers' LlamaRMSNorm, but the mean of squares as one product: several times faster on a CPU."""

    def __init__(self, weight: nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight = weight
        self.epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        values = hidden.float()
        variance = torch.linalg.vecdot(values, values).unsqueeze(-1) / values.shape[-1]
        return self.weight * (values * torch.rsqrt(variance + self.epsilon)).to(hidden.dtype)


_SAME_SUMS = {"LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"}


def speed_up_norms(model: nn.Module) -> None:
    """In place."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ in _SAME_SUMS:
                setattr(parent, name, RMSNorm(child.weight, child.variance_epsilon))  # type: ignore[arg-type]
