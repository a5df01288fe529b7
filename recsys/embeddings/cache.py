"""`EmbeddingCache`: vectors by (embedding space, key of the content), in atomic shards. This is what makes a killed run resume."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.artifacts.atomic import write_bytes, write_json
from recsys.embeddings.content import KEY_BYTES, Content
from recsys.embeddings.encoder import require_finite
from recsys.embeddings.space import EmbeddingSpace
from recsys.errors import ArtifactError
from recsys.types import FloatArray


class EmbeddingCache:
    """Shards live in `root/<space_id>/<sha256 of the shard>.npy`: structured rows (key: 32 bytes, vector: float32 (d,)).

    The name is the digest of the bytes, so that each shard is verified when it is read, and two processes that
    write the same shard agree. Only `root` decides the place; the space decides the folder.

    Raises:
        ArtifactError: a shard whose bytes do not match its name or whose shape is not the space's.
    """

    def __init__(self, root: Path, space: EmbeddingSpace) -> None:
        self.space = space
        self.folder = root / space.space_id
        self._dtype = np.dtype([("key", np.uint8, (KEY_BYTES,)), ("vector", np.float32, (space.dim,))])
        self._rows: dict[bytes, int] = {}
        self._blocks: list[FloatArray] = []
        self._flat: FloatArray = np.zeros((0, space.dim), dtype=np.float32)
        for shard in sorted(self.folder.glob("*.npy")):
            if not shard.name.startswith("."):
                self._read(shard)

    def __len__(self) -> int:
        return len(self._rows)

    def missing(self, contents: Sequence[Content]) -> list[Content]:
        """The distinct contents without a stored vector, in order of first appearance."""
        return [content for content in dict.fromkeys(contents) if content.key not in self._rows]

    def put(self, contents: Sequence[Content], vectors: FloatArray) -> None:
        """Store float32 (n, d) vectors of n contents as one shard; on return they are on the disk. Contents already stored are skipped.

        Raises:
            NonFiniteError: nothing is stored then.  ValueError: a shape that is not (n, d).
        """
        if vectors.shape != (len(contents), self.space.dim):
            raise ValueError(f"{len(contents)} contents in a space of {self.space.dim} dimensions, got vectors {vectors.shape}")
        require_finite(vectors, contents, self.space.model)
        keys = [content.key for content in contents]
        fresh = {key: row for row, key in enumerate(keys) if key not in self._rows}
        if not fresh:
            return
        block = np.empty(len(fresh), dtype=self._dtype)
        block["key"] = np.frombuffer(b"".join(fresh), dtype=np.uint8).reshape(-1, KEY_BYTES)
        block["vector"] = vectors[list(fresh.values())]
        buffer = io.BytesIO()
        np.save(buffer, block, allow_pickle=False)
        data = buffer.getvalue()
        if not (self.folder / "space.json").exists():
            write_json(self.folder / "space.json", self.space.model_dump(mode="json"))
        write_bytes(self.folder / f"{hashlib.sha256(data).hexdigest()}.npy", data)
        self._add(block)

    def get(self, contents: Sequence[Content]) -> FloatArray:
        """float32 (n, d). Raises ArtifactError that counts the contents without a stored vector."""
        rows = [self._rows.get(content.key, -1) for content in contents]
        if -1 in rows:
            first = contents[rows.index(-1)]
            raise ArtifactError(f"{self.folder}: {rows.count(-1)} of {len(contents)} contents are not stored, first {first}; run the embed stage")
        if len(self._flat) != len(self._rows):
            self._flat = np.concatenate([self._flat, *self._blocks])
            self._blocks = []
        found: FloatArray = self._flat[np.asarray(rows, dtype=np.int64)]
        return found

    def _read(self, shard: Path) -> None:
        data = shard.read_bytes()
        if hashlib.sha256(data).hexdigest() != shard.stem:
            raise ArtifactError(f"{shard}: sha256 differs from its name, the shard was changed or damaged; delete this file, its items are then embedded again")
        try:
            block = np.load(io.BytesIO(data), allow_pickle=False)
        except ValueError as error:
            raise ArtifactError(f"{shard}: not readable: {error}; delete this file") from None
        if block.dtype != self._dtype or block.ndim != 1:
            raise ArtifactError(f"{shard}: holds {block.dtype}, space {self.space.space_id} needs {self._dtype}; delete this file")
        self._add(block)

    def _add(self, block: npt.NDArray[Any]) -> None:
        raw = np.ascontiguousarray(block["key"]).tobytes()
        start = len(self._rows)
        keys = [raw[i : i + KEY_BYTES] for i in range(0, len(raw), KEY_BYTES)]
        kept: list[int] = []
        for row, key in enumerate(keys):  # two drivers may have stored one content in two shards: the first wins
            if key not in self._rows:
                self._rows[key] = start + len(kept)
                kept.append(row)
        self._blocks.append(np.ascontiguousarray(block["vector"][kept]))
