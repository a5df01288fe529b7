"""Item projection head (after Lite-LLM4Rec, arXiv 2402.09543), tied: score = u . P(e_i).

The paper's free matrix has a column an item and cannot rank an item it never saw; projecting the item's own vector can.
P is linear without bias, so that a score stays the sum of its signals' shares.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """float (n, d) -> (n, d). Begins as the identity: at the start input and output vectors are tied as in SASRec."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(dim))

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors @ self.weight.T
