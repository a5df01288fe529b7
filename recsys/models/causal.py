"""`CausalEncoder`: what the user encoders have in common, blocks one after the other and a norm, of all places or of the last alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, cast

from torch import Tensor, nn

from recsys.models.attention import padding_of


class _LooksFromTheLast(Protocol):
    def last(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """float (B, 1, d)."""
        ...


class CausalEncoder(nn.Module, ABC):
    """Item vectors of histories -> user states. Knows no item table, so IDs, text or both may feed it. Subclasses set both parts."""

    blocks: nn.ModuleList
    norm: nn.Module

    def forward(self, vectors: Tensor, valid: Tensor) -> Tensor:
        """float (B, L, d), bool (B, L) with padding on the left -> float (B, L, d). Values at padding mean nothing and
        never reach a valid position."""
        return cast(Tensor, self.norm(self._through(self.blocks, vectors, padding_of(valid))))

    def last(self, vectors: Tensor, valid: Tensor) -> Tensor:
        """`forward` of the last place alone, float (B, d), which must be valid: the last block looks from there only."""
        padding = padding_of(valid)
        x = self._through(self.blocks[:-1], vectors, padding)
        block = cast(_LooksFromTheLast, self.blocks[-1])
        return cast(Tensor, self.norm(block.last(x, padding))[:, 0])

    @abstractmethod
    def _through(self, blocks: nn.ModuleList, vectors: Tensor, valid: Tensor | None) -> Tensor:
        """float (B, L, d) after `blocks`, the first of the encoder's. valid: None without padding."""
