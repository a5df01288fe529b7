"""The seam: an `Executor` turns batches of contents into `EncodedBatch`es."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from recsys.embeddings.configs import EncoderConfig
from recsys.embeddings.content import Content, KeyArray, keys_of
from recsys.embeddings.encoder import Encoder
from recsys.embeddings.refusals import encode_each
from recsys.errors import SpaceMismatchError
from recsys.types import FloatArray

Load = Callable[[EncoderConfig], Encoder]
NO_PROGRESS_SECONDS = 300.0
"""Loading a model counts too."""


@dataclass(frozen=True)
class EncodedBatch:
    """keys: uint8 (k, 32), content keys of vectors float32 (k, dim).  refused: key -> reason of the other contents of the batch.
    tokens: as the encoder counted them, 0 where it does not.  node, process: where it was computed."""

    keys: KeyArray
    vectors: FloatArray
    refused: Mapping[bytes, str]
    tokens: int
    node: str
    process: int

    def __len__(self) -> int:
        return len(self.keys) + len(self.refused)


class Executor(Protocol):
    """Stateless between calls; computes what it is given, and stores nothing."""

    @property
    def name(self) -> str: ...

    @property
    def workers(self) -> int: ...

    def encode(self, config: EncoderConfig, space_id: str, batches: Iterator[list[Content]]) -> Iterator[EncodedBatch]:
        """Every batch once, in any order, as each is finished. Batches are asked for as they are needed, and without one no model is loaded.

        Raises:
            SpaceMismatchError: the encoder makes vectors of another space.  ConfigError: it cannot be loaded.
            RetryableError: nothing was finished for too long, or workers were lost for good. What came until then counts.
        """
        ...


def encode_batch(encoder: Encoder, contents: Sequence[Content], node: str) -> EncodedBatch:
    """Single contents that the encoder refuses do not lose their batch."""
    keys = keys_of(contents)
    found = encode_each(encoder, contents)
    return EncodedBatch(keys[found.kept], found.vectors, {keys[row].tobytes(): reason for row, reason in found.refused}, found.tokens, node, os.getpid())


def require_space(encoder: Encoder, space_id: str) -> None:
    if encoder.space.space_id != space_id:
        raise SpaceMismatchError(f"the cache holds space {space_id}, this encoder makes {encoder.space.space_id}; every node needs the same weights")
