"""What a classifier of nodes looks at: vectors that stand still, or ranked labels whose vectors are learned with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recsys.errors import DataError, NonFiniteError
from recsys.types import FloatArray, IntArray


@dataclass(frozen=True)
class Vectors:
    """values: float32 (n, d), a row a node; zero where nothing is known of it."""

    values: FloatArray

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype.name != "float32":
            raise DataError(f"vectors of nodes are float32 (n, d), got {self.values.dtype} {self.values.shape}")
        if not np.isfinite(self.values).all():
            raise NonFiniteError("vectors of nodes: NaN or infinity among them")

    def __len__(self) -> int:
        return len(self.values)

    def module(self) -> NodeInput:
        return NodeInput(torch.tensor(self.values), int(self.values.shape[1]))


@dataclass(frozen=True)
class Ranks:
    """values: int64 (n, k), the k likeliest classes, the likeliest first, -1 from where there are no more (TAPE, section 4.2).

    Each rank's class becomes a learned vector of `width` numbers; the k vectors stand side by side.
    """

    values: IntArray
    n_classes: int
    width: int = 128

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype.name != "int64":
            raise DataError(f"ranked classes of nodes are int64 (n, k), got {self.values.dtype} {self.values.shape}")
        if self.values.size and not (self.values.min() >= -1 and self.values.max() < self.n_classes):
            raise DataError(f"ranked classes are -1 to {self.n_classes - 1}, got {self.values.min()} to {self.values.max()}")

    def __len__(self) -> int:
        return len(self.values)

    def module(self) -> NodeInput:
        return NodeInput(torch.from_numpy(self.values + 1), self.values.shape[1] * self.width, nn.Embedding(self.n_classes + 1, self.width, padding_idx=0))


NodeFeatures = Vectors | Ranks


class NodeInput(nn.Module):
    """int64 (m,) nodes, None for all -> float (m, width)."""

    def __init__(self, values: Tensor, width: int, embedding: nn.Embedding | None = None) -> None:
        super().__init__()
        self.width = width
        self.embedding = embedding
        self._values = values

    def forward(self, nodes: Tensor | None = None) -> Tensor:
        values = self._values if nodes is None else self._values[nodes]
        return values if self.embedding is None else self.embedding(values).flatten(1)
