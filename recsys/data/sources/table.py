"""CSV, JSON lines and Parquet files with column names of anyone's choosing."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from recsys.config import Config
from recsys.data.catalog import IMAGE, IMAGE_FIELDS
from recsys.data.sources.raw import ROW, RawTable, read_utf8, select_columns
from recsys.errors import ConfigError, DataError

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}

GUESSES: dict[str, tuple[str, ...]] = {
    "user_id": ("user_id", "user", "userid", "reviewerid", "customer_id", "customer", "visitor_id", "uid"),
    "item_id": ("item_id", "item", "itemid", "parent_asin", "asin", "product_id", "product", "movie_id", "movieid", "sku", "iid"),
    "time": ("time", "timestamp", "ts", "datetime", "date", "event_time", "created_at", "unixreviewtime", "position"),
    "rating": ("rating", "overall", "stars"),
    "title": ("title", "name", "movie_title", "product_name", "item_name"),
    "year": ("year", "release_year"),
    "brand": ("brand", "store", "manufacturer"),
    "categories": ("categories", "genres", "category", "genre", "tags", "class"),
    "description": ("description", "desc", "plot", "overview", "summary"),
    "image": ("image_bytes",),  # a column "image" holds names or addresses as often as bytes
    "image_path": ("image_path", "image_file", "picture_path", "poster_path"),
    "image_url": ("image_url", "imageurl", "imurl", "img_url", "poster_url"),
}
INTERACTION_FIELDS = ("user_id", "item_id", "time", "rating")
ITEM_FIELDS = ("item_id", "title", "year", "brand", "categories", "description", *IMAGE_FIELDS)
PICTURE_FIELDS = ("item_id", IMAGE)


class TableFile(Config):
    path: Path
    """CSV, TSV, JSONL or Parquet, told apart by the ending."""
    columns: dict[str, str]
    """Our name -> the file's name."""
    list_separator: str = "|"
    """Splits `categories` where the file holds plain text rather than lists."""

    def load(self) -> RawTable:
        frame, unreadable = read_frame(self.path)
        table = select_columns(self.path, frame, self.columns, unreadable)
        if table.frame.schema.get("categories") == pl.String:
            split = pl.col("categories").str.split(self.list_separator).list.eval(pl.element().str.strip_chars())
            return RawTable(table.file, table.frame.with_columns(split), unreadable)
        return table


class TableSource(Config):
    kind: Literal["table"] = "table"
    interactions: TableFile
    """Needs user_id and item_id; time and rating where there are any."""
    items: TableFile | None = None
    """Needs item_id; title, year, brand, categories, description, and image (bytes, in Parquet), image_path, image_url where there are any."""
    pictures: Annotated[TableFile | None, Field(exclude_if=lambda file: file is None)] = None
    """Pictures of the items in a Parquet file of their own: item_id and image (bytes), at most one row an item; not every item needs one.
    Where there is no such file it is in no digest: artifacts made before there were any are still found."""
    ordered: bool = True
    """False: the order of the rows in the file means nothing, and events of one time are put in the order of their item ids."""

    def files(self) -> list[Path]:
        return [file.path for file in (self.interactions, self.items, self.pictures) if file is not None]

    def read_interactions(self) -> RawTable:
        require_columns(self.interactions, ("user_id", "item_id"), INTERACTION_FIELDS)
        return replace(self.interactions.load(), ordered=self.ordered)

    def read_items(self) -> RawTable | None:
        if self.items is None:
            if self.pictures is not None:
                raise ConfigError(f"{self.pictures.path}: pictures of items need a file of items to be joined to; set source.items")
            return None
        require_columns(self.items, ("item_id",), ITEM_FIELDS)
        items = self.items.load()
        return items if self.pictures is None else replace(items, frame=_illustrated(items.frame, self.pictures))


def guess_columns(names: list[str], fields: tuple[str, ...]) -> dict[str, str]:
    """Our name -> the file's name, for each field that a column's name suggests."""
    by_lower = {name.lower(): name for name in reversed(names)}
    guessed = {}
    for field in fields:
        found = next((by_lower[guess] for guess in GUESSES[field] if guess in by_lower), None)
        if found is not None:
            guessed[field] = found
    return guessed


def read_frame(path: Path) -> tuple[pl.DataFrame, tuple[tuple[int, str, str], ...]]:
    """The whole file, and the lines of it that could not be parsed. Raises DataError that names file and row."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path}: unknown ending {path.suffix!r}; known: {', '.join(FORMATS)}")
    if kind == "parquet":
        try:
            return pl.read_parquet(path), ()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{path}: not readable as Parquet: {str(error).splitlines()[0]}") from None
    text = read_utf8(path)
    if kind == "jsonl":
        return _read_jsonl(path, text)
    try:
        separator = "\t" if kind == "tsv" else ","
        return pl.read_csv(StringIO(text), separator=separator, infer_schema=False), ()
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: not readable as {kind.upper()}: {str(error).splitlines()[0]}") from None


def _read_jsonl(path: Path, text: str) -> tuple[pl.DataFrame, tuple[tuple[int, str, str], ...]]:
    rows: list[dict[str, Any]] = []
    unreadable = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            unreadable.append((number, "not JSON", line[:1000]))
            continue
        if isinstance(value, dict):
            # numbers travel as text, like in CSV; NaN and Infinity are judged later, with their row
            rows.append({ROW: number, **{k: _plain(v) for k, v in value.items()}})
        else:
            unreadable.append((number, "not a JSON object", line[:1000]))
    if not rows:
        raise DataError(f"{path}: no row is a JSON object")
    lists = {k for row in rows for k, v in row.items() if isinstance(v, list)}
    for row in rows:
        for key in lists & row.keys():
            row[key] = row[key] if isinstance(row[key], list) or row[key] is None else [row[key]]
    names = dict.fromkeys(k for row in rows for k in row)
    schema: dict[str, Any] = {k: pl.Int64 if k == ROW else pl.List(pl.String) if k in lists else pl.String for k in names}
    return pl.DataFrame(rows, schema=schema), tuple(unreadable)


def _plain(value: object) -> object:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return [str(v) for v in value if v is not None]
    return json.dumps(value)


def _illustrated(items: pl.DataFrame, file: TableFile) -> pl.DataFrame:
    """`items` with the column `image`, null where the file has none."""
    require_columns(file, PICTURE_FIELDS, PICTURE_FIELDS)
    if IMAGE in items.columns:
        raise ConfigError(f"{file.path}: the items have a column {IMAGE!r} of their own; take it from one place")
    pictures = file.load().frame.select(pl.col("item_id").str.strip_chars(), IMAGE).drop_nulls()
    if twice := pictures.filter(pictures["item_id"].is_duplicated())["item_id"].unique(maintain_order=True).to_list():
        raise DataError(f"{file.path}: {len(twice)} items have more than one picture, such as {twice[0]!r}; leave one each")
    return items.with_columns(pl.col("item_id").str.strip_chars()).join(pictures, on="item_id", how="left", maintain_order="left")


def require_columns(file: TableFile, needed: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    missing = [name for name in needed if name not in file.columns]
    unknown = [name for name in file.columns if name not in allowed]
    if missing or unknown:
        problem = f"the column mapping lacks {missing[0]!r}" if missing else f"the column mapping names {unknown[0]!r}"
        raise ConfigError(f"{file.path}: {problem}; needed: {', '.join(needed)}, possible: {', '.join(allowed)}")
