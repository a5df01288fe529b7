"""`ItemIndex`: inner-product search over item vectors that knows which embedding space it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from recsys.artifacts.atomic import read_json, write_json, write_npy
from recsys.errors import ArtifactError, NonFiniteError, SpaceMismatchError
from recsys.types import FloatArray, IntArray

EXACT_BELOW = 200_000
"""Items up to which every vector is compared: 50k x 64 takes 0.3 ms a query, and nothing is missed."""
LINKS, BUILD_BREADTH, SEARCH_BREADTH = 32, 200, 128
"""HNSW above that (Malkov and Yashunin, 2020)."""


class ItemIndex:
    """Rows are item_num. Made by `build` or `load`.

    space_id: of the vectors. vocabulary_digest: of the item vocabulary; "" when the maker did not state one.
    """

    def __init__(self, index: Any, space_id: str, vocabulary_digest: str, kind: str) -> None:
        self.space_id, self.vocabulary_digest, self.kind = space_id, vocabulary_digest, kind
        self._stored = index
        # Only the exact index has a GPU form. The CPU wheel has the function too, and answers 0.
        on_gpu = kind == "flat" and faiss.get_num_gpus() > 0
        self._search = faiss.index_cpu_to_all_gpus(index) if on_gpu else index

    @property
    def n_items(self) -> int:
        return int(self._stored.ntotal)

    @property
    def dim(self) -> int:
        return int(self._stored.d)

    @classmethod
    def build(cls, values: FloatArray, space_id: str, vocabulary_digest: str = "", *, exact_below: int = EXACT_BELOW) -> ItemIndex:
        """values: float32 (n, d), row r is item_num r.

        Raises:
            NonFiniteError: NaN or infinity, which would take part in every answer.
        """
        vectors = _vectors(values, "item vectors")
        exact = len(vectors) < exact_below
        index: Any
        if exact:
            index = faiss.IndexFlatIP(vectors.shape[1])
        else:
            index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction, index.hnsw.efSearch = BUILD_BREADTH, SEARCH_BREADTH
        index.add(vectors)
        return cls(index, space_id, vocabulary_digest, "flat" if exact else "hnsw")

    def search(self, vectors: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Best first: (scores float32 (B, m), item_nums int64 (B, m)) with m = min(k, n_items).

        vectors: float32 (B, d) in the space of the index.
        """
        queries = _vectors(vectors, "query vectors")
        if queries.shape[1] != self.dim:
            raise SpaceMismatchError(f"query vectors have {queries.shape[1]} dimensions, the index of space {self.space_id!r} has {self.dim}")
        kept = min(k, self.n_items)
        if kept < 1 or not len(queries):
            return np.zeros((len(queries), max(kept, 0)), dtype=np.float32), np.zeros((len(queries), max(kept, 0)), dtype=np.int64)
        scores, item_nums = self._search.search(queries, kept)
        return scores, item_nums.astype(np.int64)

    def save(self, folder: Path) -> None:
        """`index.npy` (faiss's own bytes, no pickle) and `index.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_npy(folder / "index.npy", faiss.serialize_index(self._stored))
        facts = {"space_id": self.space_id, "vocabulary_digest": self.vocabulary_digest, "kind": self.kind, "n_items": self.n_items, "dim": self.dim}
        write_json(folder / "index.json", facts)

    @classmethod
    def load(cls, folder: Path, *, space_id: str, vocabulary_digest: str | None = None) -> ItemIndex:
        """Refuses an index of another space, and of another vocabulary when `vocabulary_digest` is given.

        Raises:
            SpaceMismatchError: the index holds another space or vocabulary.
            ArtifactError: the files are missing or contradict each other.
        """
        try:
            facts = read_json(folder / "index.json")
            found_space, found_vocabulary, kind = facts["space_id"], facts["vocabulary_digest"], facts["kind"]
            # Refuse by name before reading what may be large.
            if found_space != space_id:
                raise SpaceMismatchError(f"{folder}: the index holds embedding space {found_space!r}, wanted is {space_id!r}: build it again from that space")
            if vocabulary_digest is not None and found_vocabulary != vocabulary_digest:
                raise SpaceMismatchError(
                    f"{folder}: the index was built on vocabulary {found_vocabulary[:12]!r}, wanted is {vocabulary_digest[:12]!r}: build it again"
                )
            index = faiss.deserialize_index(np.load(folder / "index.npy", allow_pickle=False))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ArtifactError(f"{folder}: not a readable item index: {error}") from None
        if (index.ntotal, index.d) != (facts["n_items"], facts["dim"]) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise ArtifactError(
                f"{folder}: index.npy holds {index.ntotal} x {index.d}, index.json says {facts['n_items']} x {facts['dim']}: the files are of two builds"
            )
        return cls(index, found_space, found_vocabulary, kind)


def _vectors(values: FloatArray, what: str) -> FloatArray:
    if values.ndim != 2:
        raise ValueError(f"{what}: (n, d) is needed, got shape {values.shape}")
    vectors: FloatArray = np.ascontiguousarray(values, dtype=np.float32)
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise NonFiniteError(f"{what}: {int(bad.sum())} rows hold NaN or infinity, first row {int(bad.argmax())}")
    return vectors
