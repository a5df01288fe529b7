"""From the prepared vectors of a signal to its share of the item vectors."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.heads.config import SignalOptions


class LinearAdapter(nn.Linear):
    """float (n, k) -> (n, d), without bias."""

    def __init__(self, k: int, d: int, std: float | None) -> None:
        super().__init__(k, d, bias=False)
        _initialise(self.weight, std)


class MlpAdapter(nn.Module):
    """float (n, k) -> (n, d): W2 gelu(W1 z + b1) + b2, the two layers that WhitenRec found enough."""

    def __init__(self, k: int, d: int, hidden: int, std: float | None) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(k, hidden), nn.Linear(hidden, d)
        _initialise(self.widen.weight, None)
        _initialise(self.narrow.weight, std)
        nn.init.zeros_(self.widen.bias)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        return cast(Tensor, self.narrow(F.gelu(self.widen(vectors))))


class FrozenAdapter(nn.Module):
    """float (n, k) -> (n, d): the vector with zeros behind it; nothing is learned."""

    def __init__(self, k: int, d: int) -> None:
        super().__init__()
        if k > d:
            raise ConfigError(f"adapter frozen: vectors of width {k} in item vectors of width {d}; use transform: whiten and components: {d} or fewer")
        self._behind = d - k

    def forward(self, vectors: Tensor) -> Tensor:
        return F.pad(vectors, (0, self._behind))


def make_adapter(options: SignalOptions, k: int, d: int) -> nn.Module:
    if options.adapter == "frozen":
        return FrozenAdapter(k, d)
    return MlpAdapter(k, d, options.hidden, options.adapter_std) if options.adapter == "mlp" else LinearAdapter(k, d, options.adapter_std)


def _initialise(weight: Tensor, std: float | None) -> None:
    if std is None:
        nn.init.xavier_normal_(weight)
    else:
        nn.init.normal_(weight, std=std)
