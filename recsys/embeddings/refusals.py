"""`encode_each`: a batch in which single contents may be refused, without losing the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.embeddings.content import Content
from recsys.embeddings.encoder import Encoder
from recsys.errors import DataError, NonFiniteError
from recsys.types import FloatArray, IntArray


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
            blocks.append(encoder.encode(contents[start:stop]))
            kept += range(start, stop)
        except (DataError, NonFiniteError) as error:
            if stop - start == 1:
                refused.append((start, str(error)))
            else:
                middle = (start + stop) // 2
                waiting += [(middle, stop), (start, middle)]
    vectors = np.concatenate([np.zeros((0, encoder.dim), dtype=np.float32), *blocks])
    return Encoded(vectors, np.array(kept, dtype=np.int64), tuple(refused), tokens_of(encoder) - before)


def tokens_of(encoder: Encoder) -> int:
    """Tokens encoded so far, where the encoder has a counter of that name; else 0."""
    return int(getattr(encoder, "tokens", 0))
