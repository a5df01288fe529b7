"""`Shard`: a file of vectors with their keys, named by its sha256, never changed once written."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.artifacts.atomic import sha256_of, write_by_digest
from recsys.embeddings.content import KEY_BYTES, KeyArray
from recsys.errors import ArtifactError
from recsys.types import FloatArray, IntArray

SUFFIX = ".npy"
_CHUNK = 1 << 16
"""Rows that are copied at a time."""


@dataclass(frozen=True)
class Shard:
    """One record `keys` uint8 (n, 32), ascending, and `vectors` float32 (n, dim): each block lies in one piece, so that the keys are read alone.

    Equal contents make equal bytes, hence equal names: two processes that write the same shard agree. Nothing is kept
    open: a file is mapped for the time of a read, so that memory and open files do not grow with the cache.
    """

    path: Path
    rows: int
    dim: int
    offset: int
    """Bytes of the header."""

    @property
    def bytes(self) -> int:
        """Of the data, the header not counted."""
        return self.rows * (KEY_BYTES + 4 * self.dim)

    def keys(self) -> KeyArray:
        """uint8 (n, 32), a copy in memory."""
        return np.fromfile(self.path, np.uint8, self.rows * KEY_BYTES, offset=self.offset).reshape(-1, KEY_BYTES)

    def vectors_at(self, rows: IntArray) -> FloatArray:
        """float32 (len(rows), dim)."""
        return np.memmap(self.path, np.float32, "r", self.offset + self.rows * KEY_BYTES, (self.rows, self.dim))[rows]

    @classmethod
    def write(cls, folder: Path, keys: KeyArray, vectors: FloatArray) -> Shard:
        """On return the file is on the disk. keys: distinct."""
        order = np.argsort(as_scalars(keys))
        return cls._write(folder, keys[order], iter([np.ascontiguousarray(vectors[order], dtype=np.float32)]), vectors.shape[1])

    @classmethod
    def merge(cls, folder: Path, shards: list[Shard]) -> Shard:
        """One shard of all rows; of a key that stands in several the first counts. Memory holds the keys and a chunk of vectors."""
        keys = np.concatenate([shard.keys() for shard in shards])
        _, order = np.unique(as_scalars(keys), return_index=True)
        starts = np.cumsum([0, *(shard.rows for shard in shards)])

        def vectors() -> Iterator[FloatArray]:
            for start in range(0, len(order), _CHUNK):
                yield gather(shards, starts, order[start : start + _CHUNK])

        return cls._write(folder, keys[order], vectors(), shards[0].dim)

    @classmethod
    def _write(cls, folder: Path, keys: KeyArray, vectors: Iterator[FloatArray], dim: int) -> Shard:
        header = io.BytesIO()
        kind = _dtype(len(keys), dim)
        np.lib.format.write_array_header_1_0(header, {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (1,)})

        def parts() -> Iterator[bytes | memoryview]:
            yield header.getvalue()
            yield np.ascontiguousarray(keys).data.cast("B")
            for block in vectors:
                yield block.data.cast("B")

        return cls(write_by_digest(folder, SUFFIX, parts()), len(keys), dim, len(header.getvalue()))

    @classmethod
    def open(cls, path: Path, dim: int) -> Shard:
        """Raises ArtifactError: bytes that do not match the name, or vectors of another width."""
        if sha256_of(path) != path.stem:
            raise ArtifactError(f"{path}: sha256 differs from its name, the shard was changed or damaged; delete this file, its items are then embedded again")
        try:
            record = np.load(path, mmap_mode="r", allow_pickle=False)
            rows = len(record[0]["keys"])
        except (ValueError, IndexError, EOFError) as error:
            raise ArtifactError(f"{path}: not readable: {error}; delete this file") from None
        if record.shape != (1,) or record.dtype != _dtype(rows, dim):
            raise ArtifactError(f"{path}: holds {record.dtype}, a shard of this space {_dtype(rows, dim)}; delete this file")
        return cls(path, rows, dim, record.offset)


def gather(shards: list[Shard], starts: IntArray, rows: IntArray) -> FloatArray:
    """float32 (len(rows), dim). rows: numbered through all shards, shard s begins at starts[s]."""
    out = np.empty((len(rows), shards[0].dim if shards else 0), dtype=np.float32)
    order = np.argsort(rows)
    cuts = np.searchsorted(rows[order], starts)
    for number in np.flatnonzero(np.diff(cuts)).tolist():
        places = order[cuts[number] : cuts[number + 1]]
        out[places] = shards[number].vectors_at(rows[places] - starts[number])
    return out


def as_scalars(keys: KeyArray) -> npt.NDArray[np.bytes_]:
    """bytes (n,): numpy compares them like memcmp, and all are of one length."""
    return np.ascontiguousarray(keys).view(f"S{KEY_BYTES}").reshape(-1)


def _dtype(rows: int, dim: int) -> np.dtype[Any]:
    return np.dtype([("keys", np.uint8, (rows, KEY_BYTES)), ("vectors", np.float32, (rows, dim))])
