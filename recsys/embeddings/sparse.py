"""`SparseVectors`: weights over a model's vocabulary, one row an item: what an inverted index would hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse

from recsys.artifacts.atomic import read_json, read_npy, write_json, write_npy
from recsys.errors import ArtifactError, NonFiniteError, SpaceMismatchError
from recsys.types import FloatArray, IntArray

FILES = ("starts", "tokens", "weights")


@dataclass(frozen=True)
class SparseVectors:
    """Row r holds `weights[starts[r]:starts[r + 1]]` at `tokens` of the same positions.

    starts: int64 (n + 1,).  tokens: int64 (m,), ids below `vocabulary_size`, ascending within a row.  weights: float32 (m,), above 0.
    space_id: of the encoder that made them; rows of two spaces must not meet.

    Raises:
        ArtifactError: arrays that do not make such rows.  NonFiniteError: NaN or infinity.
    """

    starts: IntArray
    tokens: IntArray
    weights: FloatArray
    vocabulary_size: int
    space_id: str

    def __post_init__(self) -> None:
        kinds = [str(array.dtype) for array in (self.starts, self.tokens, self.weights)]
        if kinds != ["int64", "int64", "float32"] or len(self.starts) == 0 or self.starts[0] != 0:
            raise ArtifactError(f"sparse vectors: starts from 0 and tokens as int64, weights as float32 are needed, got {', '.join(kinds)}")
        if not (np.diff(self.starts) >= 0).all() or self.starts[-1] != len(self.tokens) or len(self.tokens) != len(self.weights):
            raise ArtifactError(f"sparse vectors: {len(self.tokens)} tokens and {len(self.weights)} weights in rows up to {self.starts[-1]}")
        if not np.isfinite(self.weights).all():
            raise NonFiniteError("sparse vectors: NaN or infinity among the weights")
        if len(self.tokens) and not (self.tokens.min() >= 0 and self.tokens.max() < self.vocabulary_size and self.weights.min() > 0):
            raise ArtifactError(f"sparse vectors: tokens in [0, {self.vocabulary_size}) with weights above 0 are needed")
        inside = np.ones(max(len(self.tokens) - 1, 0), dtype=np.bool_)
        inside[self.starts[(self.starts > 0) & (self.starts < len(self.tokens))] - 1] = False
        if (np.diff(self.tokens)[inside] <= 0).any():
            raise ArtifactError("sparse vectors: the tokens of a row must ascend, without repetition")

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[int, float]], vocabulary_size: int, space_id: str) -> SparseVectors:
        """From token id -> weight, one mapping a row; weights of 0 are left out."""
        kept = [sorted((token, weight) for token, weight in row.items() if weight > 0) for row in rows]
        starts = np.cumsum([0, *map(len, kept)], dtype=np.int64)
        flat = [pair for row in kept for pair in row]
        tokens, weights = np.array([token for token, _ in flat], dtype=np.int64), np.array([weight for _, weight in flat], dtype=np.float32)
        return cls(starts, tokens, weights, vocabulary_size, space_id)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, number: int) -> dict[int, float]:
        """Token id -> weight."""
        start, stop = self.starts[number], self.starts[number + 1]
        return dict(zip(self.tokens[start:stop].tolist(), self.weights[start:stop].tolist(), strict=True))

    def to_csr(self) -> scipy.sparse.csr_array:
        """float32 (n, vocabulary_size); shares memory."""
        return scipy.sparse.csr_array((self.weights, self.tokens, self.starts), shape=(len(self), self.vocabulary_size))

    def take(self, rows: IntArray) -> SparseVectors:
        """The rows of these numbers, in this order."""
        taken = self.to_csr()[rows]
        return SparseVectors(taken.indptr.astype(np.int64), taken.indices.astype(np.int64), taken.data, self.vocabulary_size, self.space_id)

    def require_space(self, space_id: str) -> None:
        """Raises SpaceMismatchError unless the rows live in `space_id`."""
        if space_id != self.space_id:
            raise SpaceMismatchError(f"expected sparse vectors of space {space_id}, these are of {self.space_id}")

    def save(self, folder: Path) -> None:
        """`sparse.json` and one npy file an array."""
        for name in FILES:
            write_npy(folder / f"sparse_{name}.npy", getattr(self, name))
        write_json(folder / "sparse.json", {"vocabulary_size": self.vocabulary_size, "space_id": self.space_id})

    @classmethod
    def load(cls, folder: Path) -> SparseVectors:
        """Raises ArtifactError: missing, unreadable or contradicting files."""
        try:
            facts = read_json(folder / "sparse.json")
            starts, tokens, weights = (read_npy(folder / f"sparse_{name}.npy") for name in FILES)
            return cls(starts, tokens, weights, int(facts["vocabulary_size"]), str(facts["space_id"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{folder}: sparse vectors are not readable: {error}") from None
