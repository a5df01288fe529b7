"""`KeyIndex`: which of ten million keys are there, and in which row; twenty bytes a key, and no look at the disk."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.embeddings.content import KeyArray
from recsys.embeddings.shard import Shard, gather
from recsys.types import BoolArray, FloatArray, IntArray

Halves = npt.NDArray[np.uint64]


class KeyIndex:
    """Shards, and the first sixteen bytes of their keys, sorted, with the row of each. Rows are numbered through all shards.

    Sixteen bytes of a sha256: that two of ten million contents share them has a probability of 1e-25.
    """

    def __init__(self) -> None:
        self.shards: list[Shard] = []
        self._starts = np.zeros(1, dtype=np.int64)
        self._first: Halves = np.zeros(0, dtype=np.uint64)
        self._second: Halves = np.zeros(0, dtype=np.uint64)
        self._rows: npt.NDArray[np.uint32] = np.zeros(0, dtype=np.uint32)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, shard: Shard, keys: KeyArray, fresh: BoolArray) -> None:
        """keys: of the shard's rows, ascending. fresh: bool (n,); rows that are not stand elsewhere already and are left out."""
        first, second = halves_of(keys[fresh])
        rows = (np.flatnonzero(fresh) + self._starts[-1]).astype(np.uint32)
        places = np.searchsorted(self._first, first, side="right")
        self._first = np.insert(self._first, places, first)
        self._second = np.insert(self._second, places, second)
        self._rows = np.insert(self._rows, places, rows)
        self.shards.append(shard)
        self._starts = np.append(self._starts, self._starts[-1] + shard.rows)

    def add_all(self, shards: list[Shard]) -> None:
        """Many at once, into an empty index; of a key that stands twice the first counts."""
        self.shards = list(shards)
        self._starts = np.cumsum([0, *(shard.rows for shard in shards)]).astype(np.int64)
        first, second = np.empty(self._starts[-1], dtype=np.uint64), np.empty(self._starts[-1], dtype=np.uint64)
        for shard, start, stop in zip(shards, self._starts[:-1].tolist(), self._starts[1:].tolist(), strict=True):
            first[start:stop], second[start:stop] = halves_of(shard.keys())
        order = np.argsort(first, kind="stable").astype(np.uint32)
        first, second = first[order], second[order]
        # Stable: of equal keys the earlier shard's stands first. Neighbours suffice, for three that share eight bytes do not happen by luck.
        again = np.zeros(len(order), dtype=np.bool_)
        again[1:] = (first[1:] == first[:-1]) & (second[1:] == second[:-1])
        self._first, self._second, self._rows = first[~again], second[~again], order[~again]

    def find(self, keys: KeyArray) -> IntArray:
        """int64 (m,): the row of each key, -1 where it is not held. keys: uint8 (m, 32)."""
        first, second = halves_of(keys)
        # Neighbours in the order of the keys are neighbours in memory.
        order = np.argsort(first)
        found = np.full(len(keys), -1, dtype=np.int64)
        places = np.searchsorted(self._first, first[order])
        while len(order):
            inside = places < len(self._first)
            order, places = order[inside], places[inside]
            alike = self._first[places] == first[order]
            order, places = order[alike], places[alike]
            equal = self._second[places] == second[order]
            found[order[equal]] = self._rows[places[equal]]
            order, places = order[~equal], places[~equal] + 1
        return found

    def vectors(self, rows: IntArray) -> FloatArray:
        """float32 (len(rows), dim)."""
        return gather(self.shards, self._starts, rows)


def halves_of(keys: KeyArray) -> tuple[Halves, Halves]:
    """uint64 (n,) each: bytes 0 to 7, ordered as the keys are, and bytes 8 to 15."""
    pairs = np.ascontiguousarray(keys[:, :16]).view(">u8").astype(np.uint64)
    return np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
