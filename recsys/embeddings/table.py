"""`EmbeddingTable`: one vector an item, with the space they live in."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recsys.artifacts.atomic import read_json, read_npy, write_json, write_parts
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.space import EmbeddingSpace
from recsys.errors import ArtifactError, NonFiniteError, SpaceMismatchError
from recsys.types import FloatArray

VALUES, IDS, SPACE = "values.npy", "ids.json", "space.json"


@dataclass(frozen=True)
class EmbeddingTable:
    """Row r of `values` float32 (n, d), read-only, is the vector of id r of `vocabulary`.

    Raises:
        ArtifactError: shapes that do not fit.  NonFiniteError: NaN or infinity.
    """

    values: FloatArray
    vocabulary: Vocabulary
    space: EmbeddingSpace

    def __post_init__(self) -> None:
        expected = (len(self.vocabulary), self.space.dim)
        if self.values.shape != expected or self.values.dtype != np.float32:
            raise ArtifactError(f"an embedding table of space {self.space_id} is float32 {expected}, got {self.values.dtype} {self.values.shape}")
        if not np.isfinite(self.values).all():
            row = int(np.flatnonzero(~np.isfinite(self.values).all(axis=1))[0])
            raise NonFiniteError(f"embedding table of {self.space.model}: NaN or infinity in the vector of {self.vocabulary.ids[row]!r}")
        # A view: the caller's own array keeps its flags.
        view = self.values.view()
        view.flags.writeable = False
        object.__setattr__(self, "values", view)

    @property
    def space_id(self) -> str:
        return self.space.space_id

    @property
    def dim(self) -> int:
        return int(self.values.shape[1])

    def __len__(self) -> int:
        return len(self.vocabulary)

    def require_space(self, space_id: str) -> None:
        """Raises SpaceMismatchError unless this table lives in `space_id`."""
        if space_id != self.space_id:
            raise SpaceMismatchError(f"expected embedding space {space_id}, this table of {self.space.model!r} is in {self.space_id}")

    def aligned_to(self, vocabulary: Vocabulary) -> FloatArray:
        """float32 (len(vocabulary), d) in the order of `vocabulary`. Raises UnknownIdError unless all ids are covered."""
        return np.ascontiguousarray(self.values[self.vocabulary.nums(vocabulary.ids)])

    def save(self, folder: Path | str) -> None:
        write_table(Path(folder), self.vocabulary.ids, len(self), self.space, [np.ascontiguousarray(self.values)])

    @classmethod
    def load(cls, folder: Path, *, mapped: bool = False) -> EmbeddingTable:
        """Raises ArtifactError: missing or unreadable files, or a space whose id does not follow from its fields."""
        try:
            fields = dict(read_json(folder / SPACE))
            stated = fields.pop("space_id", None)
            space = EmbeddingSpace.parse(fields, source=str(folder / SPACE))
            vocabulary = Vocabulary(read_json(folder / IDS))
            values = read_npy(folder / VALUES, mapped=mapped)
        except FileNotFoundError as error:
            raise ArtifactError(f"{folder}: not an embedding table, {error.filename} is missing") from None
        except (ValueError, TypeError, EOFError) as error:
            raise ArtifactError(f"{folder}: embedding table not readable: {error}") from None
        if stated != space.space_id:
            raise SpaceMismatchError(f"{folder / SPACE} states space {stated}, its fields give {space.space_id}")
        return cls(values, vocabulary, space)


def write_table(folder: Path, ids: Iterable[str], count: int, space: EmbeddingSpace, blocks: Iterable[FloatArray]) -> None:
    """What `EmbeddingTable.load` reads, from `count` ids and their rows, float32 (b, dim) at a time: memory holds one piece.

    Raises:
        ArtifactError: rows or ids that are too many or too few.  NonFiniteError.
    """
    write_parts(folder / VALUES, _values(count, space, blocks))
    write_parts(folder / IDS, _ids(count, ids))
    write_json(folder / SPACE, {**space.model_dump(mode="json"), "space_id": space.space_id})


def _values(count: int, space: EmbeddingSpace, blocks: Iterable[FloatArray]) -> Iterator[bytes | memoryview]:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (count, space.dim)})
    yield header.getvalue()
    done = 0
    for block in blocks:
        if not np.isfinite(block).all():
            row = done + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
            raise NonFiniteError(f"embedding table of {space.model}: NaN or infinity in the vector of row {row}")
        done += len(block)
        if block.size:
            yield np.ascontiguousarray(block, dtype="<f4").data.cast("B")
    if done != count:
        raise ArtifactError(f"an embedding table of space {space.space_id} is float32 {(count, space.dim)}, got {done} rows")


def _ids(count: int, ids: Iterable[str]) -> Iterator[bytes]:
    """A JSON list, some thousand ids at a time."""
    done, waiting = 0, iter(ids)
    yield b"["
    while some := list(itertools.islice(waiting, 10_000)):
        yield ((",\n" if done else "\n") + ",\n".join(json.dumps(one, ensure_ascii=False) for one in some)).encode()
        done += len(some)
    yield b"\n]\n"
    if done != count:
        raise ArtifactError(f"an embedding table of {count} rows needs as many ids, got {done}")
