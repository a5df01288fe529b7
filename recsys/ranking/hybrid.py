"""`HybridIndex`: dense and sparse search over one set of items, fused per query (PromptReps, Zhuang et al., EMNLP 2024, section 3.3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse

from recsys.embeddings.sparse import SparseVectors
from recsys.errors import ArtifactError, SpaceMismatchError
from recsys.ranking.index import ItemIndex
from recsys.ranking.topk import top_k
from recsys.types import FloatArray, IntArray

DEPTH = 1000
"""Items that each of the two searches hands to the fusion."""
CHUNK = 256
"""Queries at a time: the sparse scores of all items are (CHUNK, n) floats."""


class HybridIndex:
    """Rows are item_num. Score: `alpha` x dense + (1 - `alpha`) x sparse, each brought to [0, 1] for each query.

    Each search is a run: its `depth` best items; in the sparse run only such with a score above 0, which share a token with the query.
    A run is brought to [0, 1] by its own least and largest score; one without spread (a single item) becomes 1. An item that
    a run does not hold has 0 there. Equal fused scores go by the lower item_num.
    """

    def __init__(self, dense: ItemIndex, sparse: SparseVectors, *, alpha: float = 0.5, depth: int = DEPTH) -> None:
        if dense.n_items != len(sparse):
            raise ArtifactError(f"hybrid index: {dense.n_items} dense but {len(sparse)} sparse vectors; both must be of the same items")
        if not 0 <= alpha <= 1 or depth < 1:
            raise ValueError(f"alpha in [0, 1] and depth >= 1 are needed, got {alpha} and {depth}")
        sparse.require_space(dense.space_id)
        self.dense, self.sparse = dense, sparse
        self.alpha, self.depth = alpha, depth
        self._columns: scipy.sparse.csr_array = sparse.to_csr().T.tocsr()

    @property
    def n_items(self) -> int:
        return self.dense.n_items

    @property
    def space_id(self) -> str:
        return self.dense.space_id

    def search(self, dense: FloatArray, sparse: SparseVectors, k: int) -> tuple[FloatArray, IntArray]:
        """Best first: (scores float32 (B, m), item_nums int64 (B, m)) with m = min(k, n_items); items in neither run have score 0.

        dense: float32 (B, d), sparse: B rows; both of the index's space.

        Raises:
            SpaceMismatchError: vectors of another space or size.
        """
        sparse.require_space(self.space_id)
        if len(dense) != len(sparse) or sparse.vocabulary_size != self.sparse.vocabulary_size:
            raise SpaceMismatchError(
                f"{len(dense)} dense and {len(sparse)} sparse queries over {sparse.vocabulary_size} tokens; the index has {self.sparse.vocabulary_size}"
            )
        rows = sparse.to_csr()
        found = [self._chunk(dense[start : start + CHUNK], rows[start : start + CHUNK], k) for start in range(0, len(dense), CHUNK)]
        if not found:
            kept = min(k, self.n_items)
            return np.zeros((0, kept), dtype=np.float32), np.zeros((0, kept), dtype=np.int64)
        return np.concatenate([scores for scores, _ in found]), np.concatenate([items for _, items in found])

    def _chunk(self, dense: FloatArray, sparse: scipy.sparse.csr_array, k: int) -> tuple[FloatArray, IntArray]:
        fused = np.zeros((len(dense), self.n_items), dtype=np.float32)
        self._add(fused, self.alpha, *self.dense.search(dense, self.depth))
        overlap: FloatArray = (sparse @ self._columns).toarray().astype(np.float32)
        scores, items = top_k(np.where(overlap > 0, overlap, -np.inf), self.depth)
        self._add(fused, 1 - self.alpha, scores, items)
        return top_k(fused, k)

    def _add(self, fused: FloatArray, weight: float, scores: FloatArray, items: IntArray) -> None:
        """scores (B, m), -inf or item -1 where the run has ended."""
        held = np.isfinite(scores) & (items >= 0)
        low = np.where(held, scores, np.inf).min(axis=1, keepdims=True)
        high = np.where(held, scores, -np.inf).max(axis=1, keepdims=True)
        spread = high - low
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled = np.where(spread > 0, (scores - low) / spread, 1.0)
        rows, places = np.nonzero(held)
        fused[rows, items[rows, places]] += np.float32(weight) * scaled[rows, places].astype(np.float32)

    def save(self, folder: Path) -> None:
        """The files of both parts, side by side."""
        self.dense.save(folder)
        self.sparse.save(folder)

    @classmethod
    def load(cls, folder: Path, *, space_id: str, vocabulary_digest: str | None = None, alpha: float = 0.5, depth: int = DEPTH) -> HybridIndex:
        """Raises SpaceMismatchError (another space or item vocabulary) or ArtifactError, as `ItemIndex.load` does."""
        dense = ItemIndex.load(folder, space_id=space_id, vocabulary_digest=vocabulary_digest)
        return cls(dense, SparseVectors.load(folder), alpha=alpha, depth=depth)
