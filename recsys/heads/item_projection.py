"""The item projection heads of Lite-LLM4Rec (arXiv 2402.09543): scores of the whole catalogue in one product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FreeHead(nn.Module):
    """The paper's y = u W_p + b_p. The bias is the last coordinate of each item, beside a 1 in each state, so that a score is one dot product.

    A column is learned from the item's interactions alone: items without any are not to be ranked.
    """

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__()
        self.columns = nn.Parameter(torch.empty(n_items, dim))
        self.bias = nn.Parameter(torch.zeros(n_items, 1))
        nn.init.xavier_normal_(self.columns)

    def states(self, states: Tensor) -> Tensor:
        """float (P, d) -> (P, d + 1)."""
        return F.pad(states, (0, 1), value=1.0)

    def items(self, inputs: Tensor | None) -> Tensor:
        """float (n, d + 1). inputs: not looked at."""
        return torch.cat([self.columns, self.bias], dim=1)


class TiedHead(nn.Module):
    """y = u . P(v_i): an item is ranked by the vector it is read by, so one that training never saw is ranked too."""

    def __init__(self, in_dim: int, dim: int, scale: float) -> None:
        """scale: root mean square of the entries of v. P begins so that its outputs are of length about 1."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, in_dim))
        nn.init.normal_(self.weight, std=1.0 / (scale * (in_dim * dim) ** 0.5))

    def states(self, states: Tensor) -> Tensor:
        """float (P, d) -> (P, d), as they are."""
        return states

    def items(self, inputs: Tensor | None) -> Tensor:
        """float (n, d) of the mapped vectors float (n, in_dim)."""
        assert inputs is not None
        return inputs @ self.weight.T
