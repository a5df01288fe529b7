"""Stage `ingest`: raw tables -> clean interactions and catalog; bad rows stand in quarantine with their reason."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from pipelines.item_rows import PICTURES_A_GROUP
from pipelines.stage import Inputs, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import sha256_of
from recsys.config import Config
from recsys.data.catalog import IMAGE, ItemCatalog
from recsys.data.interactions import TIE_RULE, UNORDERED_TIE_RULE, Interactions
from recsys.data.sources.daily import DailySource
from recsys.data.sources.recbole import RecBoleSource
from recsys.data.sources.table import TableSource
from recsys.data.validation import ValidationConfig, clean
from recsys.data.vocabulary import Vocabulary
from recsys.errors import DataError

VERSION = 2


class IngestConfig(Config):
    source: Annotated[RecBoleSource | TableSource | DailySource, Field(discriminator="kind")]
    """Where the raw tables are: `kind: recbole`, `kind: table` or `kind: daily`."""
    validation: ValidationConfig = ValidationConfig()


def raw_digest(config: IngestConfig) -> str:
    """sha256 over the raw files' bytes. Raises DataError when the interactions are missing."""
    running = hashlib.sha256()
    for file in config.source.files():
        if file.is_file():
            running.update(sha256_of(file).encode())
        elif file == config.source.files()[0] or config.source.kind == "table":
            raise DataError(f"{file}: no such file")
    return running.hexdigest()


def run(config: IngestConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    data = clean(config.source.read_interactions(), config.source.read_items(), config.validation)
    data.interactions.to_frame().write_parquet(folder / "interactions.parquet")
    pl.DataFrame({"user_id": data.interactions.users.ids}).write_parquet(folder / "users.parquet")
    items = data.catalog.table
    items.write_parquet(folder / "items.parquet", row_group_size=PICTURES_A_GROUP if IMAGE in items.columns else None)
    quarantine = folder / "quarantine"
    quarantine.mkdir()
    data.quarantine.write_parquet(quarantine / "rows.parquet")
    counts = data.quarantine_counts()
    for reason, count in counts.items():
        surroundings.reporter.say(f"  [yellow]quarantine[/] {count:,} rows · {reason}")
    return {
        "ordered": config.source.ordered,
        "users": len(data.interactions.users),
        "items": len(data.catalog),
        "interactions": len(data.interactions),
        "quarantined": len(data.quarantine),
        "quarantine": counts,
        "notes": data.notes,
    }


@dataclass(frozen=True)
class Ingested:
    interactions: Interactions
    catalog: ItemCatalog


def load(artifact: Artifact) -> Ingested:
    """Without the bytes of pictures, which only `embed` looks at, by `ItemRows`."""
    catalog = ItemCatalog(pl.scan_parquet(artifact.file("items.parquet")).drop(IMAGE, strict=False).collect())
    users = Vocabulary(pl.read_parquet(artifact.file("users.parquet"))["user_id"].to_list())
    events = pl.read_parquet(artifact.file("interactions.parquet"))
    # Written in its final order, which may be finer than its whole seconds: ties stay as they stand, whatever the rule that put them so.
    interactions = Interactions.of_frame(events, catalog.items, users)
    rule = TIE_RULE if artifact.manifest.metadata["ordered"] else UNORDERED_TIE_RULE
    return Ingested(replace(interactions, tie_rule=rule), catalog)
