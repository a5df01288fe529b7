"""`EmbeddingCache`: vectors by (embedding space, key of the content), in atomic shards. This is what makes a killed run resume."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from recsys.artifacts.atomic import write_json
from recsys.embeddings.cache_index import KeyIndex
from recsys.embeddings.content import Content, KeyArray, keys_of
from recsys.embeddings.encoder import require_finite
from recsys.embeddings.shard import SUFFIX, Shard, as_scalars
from recsys.embeddings.space import EmbeddingSpace
from recsys.errors import ArtifactError
from recsys.types import BoolArray, FloatArray

BIG = 64 * 2**20
"""Bytes from which a shard is left as it is."""
MANY = 256
"""Small shards that are merged into one."""
T = TypeVar("T")


class EmbeddingCache:
    """Shards live in `root/<space_id>/`. Only `root` decides the place; the space decides the folder.

    Every `put` is one small shard; many small ones are merged into a big one, which is written before they are removed.
    Memory: twenty bytes a key. Each shard's sha256 is checked once, when the cache is opened.
    Several processes may use one folder: what two of them store twice is the same, and one of the two counts.

    Raises:
        ArtifactError: a shard whose bytes do not match its name or whose shape is not the space's.
    """

    def __init__(self, root: Path, space: EmbeddingSpace, *, big: int = BIG, many: int = MANY) -> None:
        self.space = space
        self.folder = root / space.space_id
        self._limit, self._many = big, many
        self._big, self._small = KeyIndex(), KeyIndex()
        self._reload()

    def __len__(self) -> int:
        return len(self._big) + len(self._small)

    def has(self, keys: KeyArray) -> BoolArray:
        """bool (m,): whether a vector is stored under each of the keys uint8 (m, 32)."""
        return self._again(lambda: (self._big.find(keys) >= 0) | (self._small.find(keys) >= 0))

    def missing(self, contents: Sequence[Content]) -> list[Content]:
        """The distinct contents without a stored vector, in order of first appearance."""
        distinct = list(dict.fromkeys(contents))
        held = self.has(keys_of(distinct))
        return [content for content, known in zip(distinct, held.tolist(), strict=True) if not known]

    def put(self, contents: Sequence[Content], vectors: FloatArray) -> None:
        """Store float32 (n, d) vectors of n contents as one shard; on return they are on the disk. Contents already stored are skipped.

        Raises:
            NonFiniteError: nothing is stored then.  ValueError: a shape that is not (n, d).
        """
        if vectors.shape == (len(contents), self.space.dim):
            require_finite(vectors, contents, self.space.model)
        self.put_keys(keys_of(contents), vectors)

    def put_keys(self, keys: KeyArray, vectors: FloatArray) -> None:
        """The same by content keys, uint8 (n, 32); the vectors are finite."""
        if vectors.shape != (len(keys), self.space.dim):
            raise ValueError(f"{len(keys)} contents in a space of {self.space.dim} dimensions, got vectors {vectors.shape}")
        _, first = np.unique(as_scalars(keys), return_index=True)
        first = first[~self.has(keys[first])]
        if not len(first):
            return
        if not (self.folder / "space.json").exists():
            write_json(self.folder / "space.json", self.space.model_dump(mode="json"))
        shard = Shard.write(self.folder, keys[first], vectors[first])
        self._small.add(shard, keys[first], np.ones(len(first), dtype=np.bool_))
        if len(self._small.shards) >= self._many or self._small_bytes() >= self._limit:
            self.compact()

    def get(self, contents: Sequence[Content]) -> FloatArray:
        """float32 (n, d). Raises ArtifactError that counts the contents without a stored vector."""
        keys = keys_of(contents)
        without = np.flatnonzero(~self.has(keys))
        if len(without):
            first = contents[int(without[0])]
            raise ArtifactError(f"{self.folder}: {len(without)} of {len(contents)} contents are not stored, first {first}; run the embed stage")
        return self.read(keys)

    def read(self, keys: KeyArray) -> FloatArray:
        """float32 (n, d) by content keys, uint8 (n, 32). For more than memory holds, call it by pieces. Raises ArtifactError."""
        return self._again(lambda: self._read(keys))

    def compact(self) -> None:
        """Merge the small shards. Killed at any moment it leaves every vector in at least one shard; where another process is at it, nothing is done."""
        chosen = sorted(self._small.shards, key=lambda shard: -shard.bytes)
        while self._small_bytes() < self._limit and chosen and chosen[0].bytes > sum(shard.bytes for shard in chosen[1:]):
            del chosen[0]  # what was merged before waits until as much has come: a vector is written log(n) times, not n
        if len(chosen) < 2:
            return
        with self._alone() as alone:
            if not alone:
                return
            if not all(shard.path.exists() for shard in chosen):
                return self._reload()
            merged = Shard.merge(self.folder, chosen)
            for shard in chosen:
                if shard.path != merged.path:
                    shard.path.unlink(missing_ok=True)
        kept = [shard for shard in self._small.shards if shard not in chosen]
        self._small = KeyIndex()
        self._add([*kept, merged])

    def _small_bytes(self) -> int:
        return sum(shard.bytes for shard in self._small.shards)

    def _read(self, keys: KeyArray) -> FloatArray:
        out = np.empty((len(keys), self.space.dim), dtype=np.float32)
        left = np.arange(len(keys))
        for index in (self._big, self._small):
            rows = index.find(keys[left])
            held = rows >= 0
            if held.any():
                out[left[held]] = index.vectors(rows[held])
            left = left[~held]
        if len(left):
            raise ArtifactError(f"{self.folder}: {len(left)} of {len(keys)} contents are not stored; run the embed stage")
        return out

    def _reload(self) -> None:
        self._big, self._small = KeyIndex(), KeyIndex()
        shards = []
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if not path.name.startswith("."):
                try:
                    shards.append(Shard.open(path, self.space.dim))
                except FileNotFoundError:  # another process merged it meanwhile: its rows are in a shard of a later listing
                    return self._reload()
        self._big.add_all([shard for shard in shards if shard.bytes >= self._limit])
        self._add([shard for shard in shards if shard.bytes < self._limit])

    def _add(self, shards: list[Shard]) -> None:
        for shard in shards:
            keys = shard.keys()
            (self._big if shard.bytes >= self._limit else self._small).add(shard, keys, ~self.has(keys))

    def _again(self, look: Callable[[], T]) -> T:
        """Another process may have merged small shards away: then everything is read anew, once."""
        try:
            return look()
        except FileNotFoundError:
            self._reload()
            return look()

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True
