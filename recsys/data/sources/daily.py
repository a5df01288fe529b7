"""A folder that a day's events and changed items land in: one file a day, named after it. What a nightly run reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Literal

import polars as pl

from recsys.config import Config
from recsys.data.sources.raw import ROW, RawTable
from recsys.data.sources.table import FORMATS, INTERACTION_FIELDS, ITEM_FIELDS, TableFile, require_columns
from recsys.errors import DataError


class DailySource(Config):
    """`folder/events/2026-11-22.csv` holds the events of a day, `folder/items/2026-11-22.csv` the items that are new or changed on it.

    Items keep the row of their first appearance, so that a vocabulary only grows; a later row of an item replaces the earlier one.
    """

    kind: Literal["daily"] = "daily"
    folder: Path
    """Holds `events/` and, where items have text, `items/`; CSV, TSV, JSONL or Parquet."""
    events: dict[str, str]
    """Our name -> the files' name; needs user_id, item_id and time."""
    items: dict[str, str] | None = None
    """The same for the items; null: items are known by their ids alone."""
    list_separator: str = "|"
    """Splits `categories` where the files hold plain text rather than lists."""
    through: date | None = None
    """The last day that is read; null: all. A nightly run sets it to the day it is for."""
    ordered: bool = True
    """False: the order of the rows means nothing."""

    def days(self) -> list[date]:
        """Days with events, oldest first. Raises DataError: none, or a file whose name is not a date."""
        found = sorted(self._files("events"))
        if not found:
            until = f" up to {self.through}" if self.through else ""
            raise DataError(f"{self.folder / 'events'}: no file of a day{until}; expected names like 2026-11-22.csv")
        return found

    def files(self) -> list[Path]:
        self.days()
        return [path for part in ("events", "items") for _, path in sorted(self._files(part).items())]

    def read_interactions(self) -> RawTable:
        return replace(_joined(self.folder / "events", [self.read_day(day) for day in self.days()]), ordered=self.ordered)

    def read_day(self, day: date) -> RawTable:
        """The events of one day as they came. Raises DataError: there is no file of that day."""
        files = self._files("events")
        if day not in files:
            last = max(files, default=None)
            raise DataError(f"{self.folder / 'events'}: no file of {day}; the last one is of {last}; wait for it to land, or run for another day")
        table = self._table(files[day], self.events)
        require_columns(table, ("user_id", "item_id", "time"), INTERACTION_FIELDS)
        return replace(table.load(), ordered=self.ordered)

    def read_items(self) -> RawTable | None:
        if self.items is None:
            return None
        tables = []
        for _, path in sorted(self._files("items").items()):
            table = self._table(path, self.items)
            require_columns(table, ("item_id",), ITEM_FIELDS)
            tables.append(table.load())
        if not tables:
            raise DataError(f"{self.folder / 'items'}: no file of items; expected names like 2026-11-22.csv, or no `items` in the config")
        return _newest(_joined(self.folder / "items", tables))

    def _table(self, path: Path, columns: Mapping[str, str]) -> TableFile:
        return TableFile(path=path, columns=dict(columns), list_separator=self.list_separator)

    def _files(self, part: str) -> dict[date, Path]:
        found: dict[date, Path] = {}
        for path in sorted((self.folder / part).glob("[!.]*")):
            try:
                day = date.fromisoformat(path.stem)
            except ValueError:
                raise DataError(f"{path}: the name of a file of a day is its date, such as 2026-11-22{path.suffix}; move this file elsewhere") from None
            if path.suffix.lower() not in FORMATS:
                raise DataError(f"{path}: unknown ending {path.suffix!r}; known: {', '.join(FORMATS)}")
            if day in found:
                raise DataError(f"{path}: {found[day].name} is of the same day; leave one")
            if self.through is None or day <= self.through:
                found[day] = path
        return found


def _joined(folder: Path, tables: list[RawTable]) -> RawTable:
    """One table; rows are numbered through all files."""
    frames, unreadable, offset = [], [], 0
    for table in tables:
        frames.append(table.frame.with_columns(pl.col(ROW) + offset))
        unreadable += [(row + offset, f"{reason} ({Path(table.file).name})", raw) for row, reason, raw in table.unreadable]
        offset += max([0, *table.frame[ROW].to_list()[-1:], *(row for row, _, _ in table.unreadable)])
    return RawTable(str(folder), pl.concat(frames, how="vertical"), tuple(unreadable))


def _newest(table: RawTable) -> RawTable:
    """The last row of each item, at the place of its first. Rows without an id stay, to be quarantined."""
    named = table.frame.with_columns(pl.col("item_id").str.strip_chars())
    key = pl.when(pl.col("item_id").fill_null("") == "").then(pl.format("\0{}", ROW)).otherwise(pl.col("item_id"))
    placed = named.with_columns(__key=key).with_columns(__first=pl.col(ROW).min().over("__key"))
    kept = placed.unique("__key", keep="last", maintain_order=True).sort("__first").drop("__key", "__first")
    return RawTable(table.file, kept, table.unreadable)
