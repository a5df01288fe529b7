"""From raw tables to clean ones: each row is kept, or stands in quarantine with its reason. None is lost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pandera.polars as pa
import polars as pl

from recsys.config import Config
from recsys.data.catalog import IMAGE, IMAGE_PATH, IMAGE_URL, ItemCatalog
from recsys.data.interactions import Interactions, numeric_key
from recsys.data.sources.raw import ROW, RawTable
from recsys.data.text import clean_text
from recsys.errors import DataError

TEXT_FIELDS = ("title", "year", "brand", "description")
MILLISECONDS_FROM = 100_000_000_000
"""Numbers above this (the year 5138 in seconds) are read as milliseconds."""

CLEAN_INTERACTIONS = pa.DataFrameSchema(
    {
        "user_id": pa.Column(pl.String, pa.Check.str_length(min_value=1)),
        "item_id": pa.Column(pl.String, pa.Check.str_length(min_value=1)),
        "time": pa.Column(pl.Int64),
        "fine_time": pa.Column(pl.Int64),
    },
    strict=True,
)
CLEAN_ITEMS = pa.DataFrameSchema({"item_id": pa.Column(pl.String, pa.Check.str_length(min_value=1), unique=True)})


class ValidationConfig(Config):
    min_rating: float | None = None
    """Keep only events rated at least this; the others are counted in quarantine. Null: ratings decide nothing."""


@dataclass(frozen=True)
class CleanData:
    """quarantine: columns file, row (1-based data row), reason, raw (JSON of the row).  notes: counts of things kept but worth knowing."""

    interactions: Interactions
    catalog: ItemCatalog
    quarantine: pl.DataFrame
    notes: dict[str, int]

    def quarantine_counts(self) -> dict[str, int]:
        counts = self.quarantine.group_by("file", "reason").len().sort("file", "reason")
        return {f"{Path(file).name}: {reason}": count for file, reason, count in counts.iter_rows()}


def clean(raw_interactions: RawTable, raw_items: RawTable | None, config: ValidationConfig) -> CleanData:
    """Raises DataError when no event is left, or when neither a time nor the order of the rows tells which event is last."""
    if not raw_interactions.ordered and "time" not in raw_interactions.frame.columns:
        raise DataError(f"{raw_interactions.file}: no time column, and `ordered: false`: no event comes before another; map a time column or set ordered: true")
    quarantined: list[pl.DataFrame] = []
    notes: dict[str, int] = {}
    catalog = _clean_items(raw_items, quarantined, notes) if raw_items is not None else None
    events = _clean_events(raw_interactions, catalog, config, quarantined, notes)
    if events.is_empty():
        reasons = pl.concat(quarantined)["reason"].value_counts(sort=True).rows()
        raise DataError(f"{raw_interactions.file}: no event is left; reasons: " + ", ".join(f"{reason} ({count})" for reason, count in reasons))
    if catalog is None:
        ids = events["item_id"].unique(maintain_order=True)
        catalog = ItemCatalog(pl.DataFrame({"item_id": ids if raw_interactions.ordered else sorted(ids.to_list(), key=numeric_key)}))
        notes["items without text"] = len(catalog)
    CLEAN_INTERACTIONS.validate(events)
    CLEAN_ITEMS.validate(catalog.table)
    interactions = Interactions.of_frame(events, catalog.items, ordered=raw_interactions.ordered)
    lengths = interactions.sequences().lengths
    notes["users with fewer than 3 events (train only)"] = int((lengths < 3).sum())
    notes["items without interactions"] = len(catalog) - events["item_id"].n_unique()
    empty = pl.DataFrame(schema={"file": pl.String, "row": pl.Int64, "reason": pl.String, "raw": pl.String})
    return CleanData(interactions, catalog, pl.concat([empty, *quarantined]), {k: v for k, v in notes.items() if v})


def _clean_items(table: RawTable, quarantined: list[pl.DataFrame], notes: dict[str, int]) -> ItemCatalog:
    frame = table.frame.with_columns(pl.col("item_id").str.strip_chars())
    reason = (
        pl.when(pl.col("item_id").is_null() | (pl.col("item_id") == ""))
        .then(pl.lit("missing item_id"))
        .when(pl.col("item_id").is_first_distinct().not_())
        .then(pl.lit("duplicate item_id"))
    )
    kept = _divert(table, frame, reason, quarantined)
    texts = [c for c in TEXT_FIELDS if c in kept.columns]
    cleaned = kept.with_columns(pl.col(c).map_elements(clean_text, return_dtype=pl.String, skip_nulls=True).replace("", None) for c in texts)
    named = [c for c in (IMAGE_PATH, IMAGE_URL) if c in kept.columns]
    cleaned = cleaned.with_columns(pl.col(c).str.strip_chars().replace("", None) for c in named)
    if "year" in texts:
        cleaned = cleaned.with_columns(pl.col("year").str.replace(r"\.0$", ""))
    if "categories" in cleaned.columns:
        names = [[c for c in (clean_text(v) for v in row or [] if v is not None) if c] for row in cleaned["categories"].to_list()]
        cleaned = cleaned.with_columns(pl.Series("categories", names, dtype=pl.List(pl.String)))
    changed = sum(int((cleaned[c].fill_null("") != kept[c].fill_null("")).sum()) for c in texts if c != "year")
    notes["texts cleaned (entities, tags, control characters, white space)"] = changed
    has_text = [pl.col(c).is_not_null() for c in texts] + ([pl.col("categories").list.len() > 0] if "categories" in cleaned.columns else [])
    notes["items without text"] = len(cleaned) - (cleaned.select(pl.any_horizontal(has_text).sum()).item() if has_text else 0)
    return ItemCatalog(cleaned.drop(ROW))


def _clean_events(
    table: RawTable, catalog: ItemCatalog | None, config: ValidationConfig, quarantined: list[pl.DataFrame], notes: dict[str, int]
) -> pl.DataFrame:
    frame = table.frame.with_columns(pl.col("user_id", "item_id").str.strip_chars())
    if "time" in frame.columns:
        frame = frame.with_columns(time_text=pl.col("time").str.strip_chars()).with_columns(fine_time=_parse_time(pl.col("time_text")))
        frame = frame.with_columns(time=pl.col("fine_time") // 1_000_000)
        number = pl.col("time_text").str.to_lowercase().str.strip_prefix("-").is_in(["nan", "inf", "infinity"])
    else:
        frame = frame.with_columns(time=pl.col(ROW), fine_time=pl.col(ROW), time_text=pl.lit("0"))
        number = pl.lit(False)
        notes["events ordered by file row (no time column)"] = len(frame)
    known = pl.col("item_id").is_in(catalog.items.ids) if catalog is not None else pl.lit(True)
    reason = (
        pl.when(pl.col("user_id").is_null() | (pl.col("user_id") == ""))
        .then(pl.lit("missing user_id"))
        .when(pl.col("item_id").is_null() | (pl.col("item_id") == ""))
        .then(pl.lit("missing item_id"))
        .when(pl.col("time_text").is_null() | (pl.col("time_text") == ""))
        .then(pl.lit("missing time"))
        .when(number)
        .then(pl.lit("non-finite time"))
        .when(pl.col("time").is_null())
        .then(pl.lit("unparsable time"))
        .when(~known)
        .then(pl.lit("unknown item"))
    )
    if "rating" in frame.columns:
        frame = frame.with_columns(stars=pl.col("rating").str.strip_chars().cast(pl.Float64, strict=False))
        given = pl.col("rating").is_not_null() & (pl.col("rating") != "")
        reason = reason.when(given & (pl.col("stars").is_null() | pl.col("stars").is_finite().not_())).then(pl.lit("non-finite rating"))
        if config.min_rating is not None:
            reason = (
                reason.when(~given).then(pl.lit("missing rating")).when(pl.col("stars") < config.min_rating).then(pl.lit(f"rating below {config.min_rating:g}"))
            )
    kept = _divert(table, frame, reason, quarantined)
    if "time" in table.frame.columns:
        duplicate = pl.when(pl.struct("user_id", "item_id", "fine_time").is_first_distinct().not_()).then(pl.lit("duplicate event"))
        kept = _divert(RawTable(table.file, table.frame), kept, duplicate, quarantined)
    return kept.sort(ROW).select("user_id", "item_id", pl.col("time", "fine_time").cast(pl.Int64))


def _parse_time(text: pl.Expr) -> pl.Expr:
    """Unix microseconds from numbers (seconds or, recognised, milliseconds), ISO dates and date-times; null where none fits."""
    number = text.cast(pl.Float64, strict=False)
    scale = pl.when(number.abs() >= MILLISECONDS_FROM).then(1_000).otherwise(1_000_000)
    whole = number.floor()
    # The whole part goes through integers: a product of floats would lose its last digits. Beyond the limit microseconds leave int64.
    exact = whole.cast(pl.Int64, strict=False) * scale + ((number - whole) * scale).round().cast(pl.Int64, strict=False)
    from_number = pl.when(number.is_finite() & (number.abs() < 9e15)).then(exact)
    iso = text.str.replace("Z$", "").str.replace(" ", "T")
    formats = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M")
    parsed = [iso.str.to_datetime(f, strict=False, time_unit="us").dt.epoch("us") for f in formats]
    zoned = text.str.replace(" ", "T").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", strict=False, time_unit="us", time_zone="UTC").dt.epoch("us")
    days = [text.str.to_date(f, strict=False).cast(pl.Datetime("us")).dt.epoch("us") for f in ("%Y-%m-%d", "%Y/%m/%d")]
    return pl.coalesce(from_number, *parsed, zoned, *days)


def _divert(table: RawTable, frame: pl.DataFrame, reason: pl.Expr, quarantined: list[pl.DataFrame]) -> pl.DataFrame:
    """Move the rows with a reason to quarantine, return the others."""
    judged = frame.with_columns(__reason=reason)
    bad = judged.filter(pl.col("__reason").is_not_null()).select(ROW, "__reason")
    if len(bad):
        raw = bad.join(table.frame, on=ROW, how="left", maintain_order="left").drop("__reason", ROW).drop(IMAGE, strict=False)
        quarantined.append(
            _quarantine_frame(
                table.file, bad[ROW].to_list(), bad["__reason"].to_list(), [json.dumps(r, ensure_ascii=False)[:1000] for r in raw.iter_rows(named=True)]
            )
        )
    if table.unreadable:
        rows, reasons, raws = zip(*table.unreadable, strict=True)
        quarantined.append(_quarantine_frame(table.file, list(rows), list(reasons), list(raws)))
    return judged.filter(pl.col("__reason").is_null()).drop("__reason")


def _quarantine_frame(file: str, rows: list[int], reasons: list[str], raws: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"file": [file] * len(rows), "row": pl.Series(rows, dtype=pl.Int64), "reason": reasons, "raw": raws})
