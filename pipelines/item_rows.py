"""`ItemRows`: the rows of an items table, read a row group at a time: neither ten million items nor their pictures need fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from recsys.types import IntArray

PICTURES_A_GROUP = 512
"""Rows of a row group where the table holds the pictures' bytes."""


class ItemRows:
    """`at` is quick where rows come in ascending order: the row group that was read last is kept."""

    def __init__(self, file: Path) -> None:
        import pyarrow.parquet

        self._file = pyarrow.parquet.ParquetFile(file)
        groups = range(self._file.metadata.num_row_groups)
        self._starts = np.cumsum([0, *(self._file.metadata.row_group(group).num_rows for group in groups)])
        self._held: tuple[int, pl.DataFrame] | None = None

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def columns(self) -> list[str]:
        return list(self._file.schema_arrow.names)

    def at(self, rows: IntArray) -> pl.DataFrame:
        """rows: int64, ascending, at least one."""
        cuts = np.searchsorted(rows, self._starts)
        parts = []
        for group in np.flatnonzero(np.diff(cuts)).tolist():
            inside = rows[cuts[group] : cuts[group + 1]] - self._starts[group]
            frame = self._group(group)
            consecutive = inside[-1] - inside[0] + 1 == len(inside)
            parts.append(frame.slice(int(inside[0]), len(inside)) if consecutive else frame[inside])
        return pl.concat(parts)

    def ids(self) -> Iterator[str]:
        """Of all rows, in order."""
        for group in range(len(self._starts) - 1):
            yield from self._file.read_row_group(group, columns=["item_id"])["item_id"].to_pylist()

    def _group(self, group: int) -> pl.DataFrame:
        if self._held is None or self._held[0] != group:
            self._held = None  # before the next is read: memory holds one
            frame = pl.from_arrow(self._file.read_row_group(group))
            assert isinstance(frame, pl.DataFrame)
            self._held = (group, frame)
        return self._held[1]
