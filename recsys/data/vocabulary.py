"""`Vocabulary`: outside ids in row order, append-only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import repeat

import numpy as np
import polars as pl

from recsys.errors import SpaceMismatchError, UnknownIdError
from recsys.types import UNKNOWN_NUM, IntArray


class Vocabulary:
    """Immutable list of unique string ids; the row number of an id never changes.

    A vocabulary that grew is compatible with its beginning: models accept it, by length and hash of the prefix.

    >>> small = Vocabulary(["a", "b"])
    >>> grown = small.extended(["b", "c"])
    >>> grown.ids, grown.nums(["c", "a"]).tolist()
    (('a', 'b', 'c'), [2, 0])
    >>> grown.prefix_digest(len(small)) == small.digest
    True
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = tuple(ids)
        self._nums = {item_id: num for num, item_id in enumerate(self._ids)}
        if len(self._nums) != len(self._ids):
            raise ValueError("ids of a vocabulary are unique")

    @property
    def ids(self) -> tuple[str, ...]:
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, outside_id: str) -> bool:
        return outside_id in self._nums

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._ids == other._ids

    def __hash__(self) -> int:
        return hash(self._ids)

    @cached_property
    def digest(self) -> str:
        """sha256 over all ids in order."""
        return self.prefix_digest(len(self))

    def prefix_digest(self, length: int) -> str:
        """sha256 over the first `length` ids; each is length-prefixed, so that no two lists collide."""
        running = hashlib.sha256()
        for outside_id in self._ids[:length]:
            encoded = outside_id.encode()
            running.update(len(encoded).to_bytes(4, "big") + encoded)
        return running.hexdigest()

    def num(self, outside_id: str, *, noun: str = "item_id") -> int:
        """Raises UnknownIdError."""
        try:
            return self._nums[outside_id]
        except KeyError:
            raise UnknownIdError(noun, [outside_id], len(self)) from None

    def nums(self, outside_ids: Sequence[str] | pl.Series, *, noun: str = "item_id") -> IntArray:
        """int64 (n,). Raises UnknownIdError that lists all unknown ids."""
        found = self.nums_or_unknown(outside_ids)
        if (found == UNKNOWN_NUM).any():
            raise UnknownIdError(noun, [str(i) for i in outside_ids if i not in self._nums], len(self))
        return found

    def nums_or_unknown(self, outside_ids: Sequence[str] | pl.Series) -> IntArray:
        """int64 (n,), `UNKNOWN_NUM` where the id is not held. A polars column of strings is looked up without Python objects."""
        if isinstance(outside_ids, pl.Series):
            # The physical value of a category is its position, hence the row number.
            codes = outside_ids.cast(pl.Enum(self._ids), strict=False).to_physical().cast(pl.Int64)
            return codes.fill_null(UNKNOWN_NUM).to_numpy().astype(np.int64)
        return np.fromiter(map(self._nums.get, outside_ids, repeat(UNKNOWN_NUM)), dtype=np.int64, count=len(outside_ids))

    def ids_of(self, nums: IntArray) -> list[str]:
        return [self._ids[num] for num in nums.tolist()]

    def extended(self, more: Iterable[str]) -> Vocabulary:
        """A vocabulary with the ids of `more` that are new appended in their order."""
        return Vocabulary((*self._ids, *(i for i in dict.fromkeys(more) if i not in self._nums)))

    def require_prefix(self, length: int, digest: str, *, what: str) -> None:
        """Raises SpaceMismatchError unless this vocabulary begins with the one (`length`, `digest`) that `what` was made on."""
        if len(self) < length or self.prefix_digest(length) != digest:
            raise SpaceMismatchError(f"{what} was made on another vocabulary ({length} ids, {digest[:12]}); this one has {len(self)} ids, {self.digest[:12]}")
