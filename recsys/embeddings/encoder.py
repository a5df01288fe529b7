"""The seam between texts and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from recsys.embeddings.space import EmbeddingSpace
from recsys.errors import NonFiniteError
from recsys.types import FloatArray


@runtime_checkable
class Encoder(Protocol):
    """Texts to vectors; equal texts give equal vectors within the dtype's tolerance, whatever else is in the batch."""

    @property
    def space(self) -> EmbeddingSpace: ...

    @property
    def dim(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """float32 (n, dim), finite. Raises NonFiniteError."""
        ...


def require_finite(vectors: FloatArray, texts: Sequence[str], what: str) -> None:
    """Raises NonFiniteError that names the model and the first text whose vector holds NaN or infinity."""
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise NonFiniteError(f"{what}: {int(bad.sum())} of {len(texts)} vectors hold NaN or infinity, first for the text {texts[first][:80]!r}")
