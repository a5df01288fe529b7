"""`encode_each`: a batch in which single contents may be refused, without losing the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.embeddings.content import Content
from recsys.embeddings.encoder import Encoder, require_finite
from recsys.errors import DataError, ImageError, NonFiniteError
from recsys.types import FloatArray, IntArray

NOT_DECODED, NOT_FINITE, REFUSED = "picture not decoded", "vector not finite", "refused by the encoder"
"""Kinds of reasons: a reason is "kind: details"."""


@dataclass(frozen=True)
class Encoded:
    """vectors: float32 (k, dim) of the rows `kept`, int64 (k,), ascending.  refused: (row, reason) of the others.
    tokens: that the encoder counted for this batch, 0 where it counts none."""

    vectors: FloatArray
    kept: IntArray
    refused: tuple[tuple[int, str], ...]
    tokens: int


def encode_each(encoder: Encoder, contents: Sequence[Content]) -> Encoded:
    """Halve what raises until single contents are found: n refused ones cost about n log2(len(contents)) more calls.

    Only `DataError` and `NonFiniteError` are a content's fault; anything else (memory, a lost device) is raised.
    """
    before = tokens_of(encoder)
    blocks: list[FloatArray] = []
    kept: list[int] = []
    refused: list[tuple[int, str]] = []
    waiting = [(0, len(contents))] if len(contents) else []
    while waiting:
        start, stop = waiting.pop()
        try:
            vectors = encoder.encode(contents[start:stop])
            require_finite(vectors, contents[start:stop], encoder.space.model)
            blocks.append(vectors)
            kept += range(start, stop)
        except (DataError, NonFiniteError) as error:
            if stop - start == 1:
                refused.append((start, f"{_kind(error)}: {error}"))
            else:
                middle = (start + stop) // 2
                waiting += [(middle, stop), (start, middle)]
    found = np.concatenate([np.zeros((0, encoder.dim), dtype=np.float32), *blocks])
    return Encoded(found, np.array(kept, dtype=np.int64), tuple(refused), tokens_of(encoder) - before)


def _kind(error: Exception) -> str:
    return NOT_DECODED if isinstance(error, ImageError) else NOT_FINITE if isinstance(error, NonFiniteError) else REFUSED


def tokens_of(encoder: Encoder) -> int:
    """Tokens encoded so far, where the encoder has a counter of that name; else 0."""
    return int(getattr(encoder, "tokens", 0))
