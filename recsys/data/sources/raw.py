"""`RawTable`: a file as it came, with row numbers, before any judgement on its rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.data.catalog import IMAGE
from recsys.errors import DataError

ROW = "__row"
"""1-based row number within the file's data rows; the header is not counted."""


@dataclass(frozen=True)
class RawTable:
    """frame: the wanted columns under our names plus `ROW` (int64). Scalars are strings, null where missing; a picture is bytes.

    unreadable: (row, reason, raw text) of lines that could not be parsed at all.
    ordered: False where the order of the rows means nothing; see `recsys.data.interactions.UNORDERED_TIE_RULE`.
    """

    file: str
    frame: pl.DataFrame
    unreadable: tuple[tuple[int, str, str], ...] = ()
    ordered: bool = True


def select_columns(path: Path, frame: pl.DataFrame, columns: dict[str, str], unreadable: tuple[tuple[int, str, str], ...] = ()) -> RawTable:
    """Rename `columns` (our name -> the file's name), stringify scalars, number the rows.

    Raises:
        DataError: a column is missing (lists those that exist) or the file holds no row.
    """
    for ours, theirs in columns.items():
        if theirs not in frame.columns:
            raise DataError(f"{path}: no column {theirs!r} (wanted for {ours!r}); it has: {', '.join(frame.columns)}")
    if frame.is_empty() and not unreadable:
        raise DataError(f"{path}: no rows")
    chosen = []
    for ours, theirs in columns.items():
        dtype = frame.schema[theirs]
        if ours == IMAGE:
            if not isinstance(dtype, pl.Binary):
                raise DataError(
                    f"{path}: column {theirs!r} (wanted for {ours!r}) holds {dtype}, expected bytes; map a column of names to image_path or image_url"
                )
            chosen.append(pl.col(theirs).alias(ours))
        elif isinstance(dtype, pl.List):
            chosen.append(pl.col(theirs).cast(pl.List(pl.String)).alias(ours))
        elif isinstance(dtype, pl.Datetime | pl.Date):
            chosen.append(pl.col(theirs).cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S%.6f").alias(ours))
        elif isinstance(dtype, pl.Struct | pl.Binary | pl.Object):
            raise DataError(f"{path}: column {theirs!r} (wanted for {ours!r}) holds {dtype}, expected text, numbers or a list of text")
        else:
            chosen.append(pl.col(theirs).cast(pl.String).alias(ours))
    if ROW not in frame.columns:
        frame = frame.with_row_index(ROW, offset=1)
    return RawTable(str(path), frame.select(pl.col(ROW).cast(pl.Int64), *chosen), unreadable)


def read_utf8(path: Path) -> str:
    """Raises DataError: no such file, empty, or not UTF-8 (names the row and the byte)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if not data.strip():
        raise DataError(f"{path}: the file is empty")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n")
        raise DataError(f"{path}: not UTF-8 at row {row} (byte {error.start}); convert it first, for example: iconv -f latin1 -t utf-8") from None
