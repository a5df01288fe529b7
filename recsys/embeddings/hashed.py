"""An encoder without weights: signed feature hashing of words. Deterministic on every machine; for tests and dry runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from recsys.embeddings.content import Content
from recsys.embeddings.space import EmbeddingSpace
from recsys.types import FloatArray

_WORD = re.compile(r"\w+|[^\w\s]")


class HashedEncoder:
    """Each word adds a fixed pseudo-random unit vector; the sum is normalised. An empty text is the zero vector, pictures are not looked at.

    `calls` counts the contents encoded so far.

    >>> from recsys.embeddings.content import of_texts
    >>> red, blue, other = HashedEncoder(256).encode(of_texts(["red wine", "blue wine", "jazz"]))
    >>> bool(red @ blue > red @ other)  # a shared word
    True
    """

    def __init__(self, dim: int = 64, *, template: str = "{title}") -> None:
        self._space = EmbeddingSpace(
            model="hashed", revision="1", tokenizer="words", template=template, max_length=1_000_000, layer=0,
            pooling="mean", attention="none", normalise=True, dtype="float32", dim=dim,
        )  # fmt: skip
        self.calls = 0

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def dim(self) -> int:
        return self._space.dim

    def encode(self, contents: Sequence[Content]) -> FloatArray:
        """float32 (n, dim)."""
        self.calls += len(contents)
        vectors = np.zeros((len(contents), self.dim), dtype=np.float32)
        for row, content in enumerate(contents):
            for word in _WORD.findall(content.text.lower()):
                vectors[row] += self._word(word)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)

    def _word(self, word: str) -> FloatArray:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
        vector = np.random.default_rng(seed).standard_normal(self.dim).astype(np.float32)
        return (vector / np.linalg.norm(vector)).astype(np.float32)
