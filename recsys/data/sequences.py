"""`Sequences`: ragged rows of item numbers in two flat arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from recsys.types import IntArray


@dataclass(frozen=True)
class Sequences(Sequence[IntArray]):
    """n rows; row r is `item_nums[offsets[r]:offsets[r+1]]`, oldest first. Both arrays int64 and read-only."""

    offsets: IntArray
    item_nums: IntArray

    def __post_init__(self) -> None:
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.item_nums) or (np.diff(self.offsets) < 0).any():
            raise ValueError("offsets do not describe item_nums")
        for array in (self.offsets, self.item_nums):
            array.flags.writeable = False

    @classmethod
    def of_rows(cls, rows: Sequence[IntArray]) -> Sequences:
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        flat = np.concatenate(rows).astype(np.int64) if len(rows) else np.zeros(0, dtype=np.int64)
        return cls(offsets, flat)

    @property
    def lengths(self) -> IntArray:
        return np.diff(self.offsets)

    def row_nums(self) -> IntArray:
        """int64 (E,): the row of each entry of `item_nums`."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> IntArray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequences: ...
    def __getitem__(self, index: int | slice) -> IntArray | Sequences:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError("rows can only be sliced with step 1")
            offsets = self.offsets[start : max(start, stop) + 1]
            return Sequences(offsets - offsets[0], self.item_nums[offsets[0] : offsets[-1]].copy())
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row = index % len(self)
        return self.item_nums[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[IntArray]:
        for row in range(len(self)):
            yield self.item_nums[self.offsets[row] : self.offsets[row + 1]]

    def counts(self, n_items: int) -> IntArray:
        """int64 (n_items,): how often each item occurs."""
        return np.bincount(self.item_nums, minlength=n_items).astype(np.int64)
