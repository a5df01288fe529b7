"""The seam between what is known of an item and its vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from recsys.embeddings.content import Content
from recsys.embeddings.space import EmbeddingSpace
from recsys.errors import NonFiniteError
from recsys.types import FloatArray


@runtime_checkable
class Encoder(Protocol):
    """Contents to vectors; equal contents give equal vectors within the dtype's tolerance, whatever else is in the batch."""

    @property
    def space(self) -> EmbeddingSpace: ...

    @property
    def dim(self) -> int: ...

    def encode(self, contents: Sequence[Content]) -> FloatArray:
        """float32 (n, dim), finite. Raises DataError (a content that this encoder cannot take) or NonFiniteError; nothing is returned then."""
        ...


def require_finite(vectors: FloatArray, contents: Sequence[Content], what: str) -> None:
    """Raises NonFiniteError that names the model and the first content whose vector holds NaN or infinity."""
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise NonFiniteError(f"{what}: {int(bad.sum())} of {len(contents)} vectors hold NaN or infinity, first for {contents[first]}")
