"""Stage `embed`: catalog -> one `EmbeddingTable` per encoder. Only contents that the cache lacks are computed."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipelines.embed_job import NEW, SAME, STORED, Survey, fill, rows_of, survey
from pipelines.ingest import IngestConfig
from pipelines.item_contents import ITEM, ItemContents
from pipelines.item_rows import ItemRows
from pipelines.stage import Inputs, Surroundings
from pipelines.throughput import Job, note_job
from recsys.artifacts.artifact import Artifact
from recsys.config import Config, digest_of
from recsys.data.catalog import IMAGE_PATH
from recsys.embeddings.cache import EmbeddingCache
from recsys.embeddings.configs import IMAGE, EncoderConfig, reads
from recsys.embeddings.image_source import ImageSource, ImageSourceConfig
from recsys.embeddings.limits import LimitsConfig
from recsys.embeddings.quarantine import Quarantine
from recsys.embeddings.table import EmbeddingTable, write_table
from recsys.errors import DataError

VERSION = 2
QUARANTINE = "quarantine.csv"


class EmbedConfig(Config):
    """What the stage reads."""

    encoder: EncoderConfig
    limits: LimitsConfig = LimitsConfig()
    images: ImageSourceConfig = ImageSourceConfig()

    def digest(self) -> str:
        """Without the folder of the pictures: a place. What lies in it is in `pictures_digest`; without pictures nothing of `images` counts."""
        values = self.model_dump(mode="json", exclude={"images": {"root"}} if IMAGE in reads(self.encoder) else {"images"})
        return digest_of(values)


def pictures_digest(data: IngestConfig, images: ImageSourceConfig) -> str:
    """Of name, size and time of change of each file that `image_path` names: a changed picture makes the stage run again, and reads none."""
    table = data.source.read_items()
    names = sorted(set(table.frame[IMAGE_PATH].drop_nulls().to_list())) if table is not None and IMAGE_PATH in table.frame.columns else []
    running = hashlib.sha256()
    for name in names:
        try:
            facts = ((images.root or Path()) / name).stat()
            running.update(f"{name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode("utf-8", "surrogatepass"))
        except (OSError, ValueError):
            running.update(f"{name}\0missing\n".encode("utf-8", "surrogatepass"))
    return running.hexdigest()


def run(config: EmbedConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    encoder, reporter, executor = config.encoder, surroundings.reporter, surroundings.executor
    with _opened(config, inputs["data"], surroundings) as (items, cache, found):
        missing, stored = found.count(NEW), found.count(STORED)
        with reporter.task(f"embed {encoder.name}", "items") as advance:
            outcome = fill(items, cache, found, executor, advance, max_refused_share=config.limits.max_refused_share)
        if not found.count(STORED):
            reasons = Counter(refusal.kind for refusal in found.refusals.values())
            raise DataError(
                f"encoder {encoder.name!r} has a vector for none of {len(items)} items: "
                f"{', '.join(f'{kind} ({count})' for kind, count in reasons.most_common())}; the catalog has: {', '.join(items.rows.columns)}"
            )
        write_table(folder, items.rows.ids(), len(items), cache.space, rows_of(found, cache))
        counts = _quarantine(found, items.rows, folder)
        count, without = len(items), len(items) - found.count(STORED)
        space = cache.space
        if outcome.computed:
            finished = datetime.now(UTC).isoformat(timespec="seconds")
            job = Job(
                finished=finished, executor=executor.name, workers=executor.workers, items=outcome.seen,
                tokens=outcome.tokens, seconds=round(outcome.seconds, 3), rate=round(outcome.rate, 3),
            )  # fmt: skip
            note_job(cache.folder, job)
    for kind, refused in counts.items():
        reporter.say(f"  [yellow]quarantine[/] {refused:,} items · {kind}")
    return {
        "name": encoder.name,
        "space_id": space.space_id,
        "items": count,
        "computed": outcome.computed,
        "cached": stored,
        "items_without_vector": without,
        "quarantined": len(found.refusals),
        "quarantine": counts,
        "dimension": space.dim,
        "executor": executor.name,
        "workers": executor.workers,
        "missing": missing,
        "refused": outcome.refused,
        "tokens": outcome.tokens,
        "seconds": round(outcome.seconds, 3),
        "items_per_second": round(outcome.rate or (outcome.computed / outcome.seconds if outcome.seconds else 0.0), 2),
    }


def look(config: EmbedConfig, data: Artifact, surroundings: Surroundings) -> dict[str, int]:
    """How many items are new, stored, refused; nothing is computed. new: distinct contents, `same`: items that share one of them."""
    with _opened(config, data, surroundings) as (items, cache, found):
        return {
            "items": len(items),
            "new": found.count(NEW),
            "same": found.count(SAME),
            "cached": found.count(STORED),
            "quarantined": len(found.refusals),
            "without_vector": sum(refusal.part == ITEM for refusal in found.refusals.values()),
            "dimension": cache.space.dim,
        }


def load(artifact: Artifact) -> EmbeddingTable:
    return EmbeddingTable.load(artifact.path)


def figures(artifact: Artifact) -> dict[str, float]:
    """Numbers of a run for the tracking server."""
    facts = artifact.manifest.metadata
    names = ("items", "computed", "cached", "items_without_vector", "quarantined", "refused", "tokens", "seconds", "items_per_second")
    rates = {"tokens_per_second": facts["tokens"] / facts["seconds"]} if facts["tokens"] and facts["seconds"] else {}
    return {f"embed/{facts['name']}/{name}": float(value) for name, value in {**{name: facts[name] for name in names}, **rates}.items()}


@contextmanager
def _opened(config: EmbedConfig, data: Artifact, surroundings: Surroundings) -> Iterator[tuple[ItemContents, EmbeddingCache, Survey]]:
    """With the items looked up. The scratch of a look is thrown away."""
    space = config.encoder.space()
    cache = EmbeddingCache(surroundings.embedding_cache, space)
    quarantine = Quarantine(cache.folder / "quarantine")
    images = ImageSource(config.images, surroundings.embedding_cache / "pictures")
    if surroundings.retry_quarantined:
        quarantine.forget()
        images.retry()
    items = ItemContents(config.encoder, ItemRows(data.file("items.parquet")), config.limits, images, quarantine)
    with tempfile.TemporaryDirectory(prefix="survey-", dir=surroundings.scratch) as scratch:
        with surroundings.reporter.task(f"look up {config.encoder.name}", "items") as advance:
            found = survey(items, cache, Path(scratch), advance)
        yield items, cache, found


def _quarantine(found: Survey, items: ItemRows, folder: Path) -> dict[str, int]:
    """Writes the file for the user, one row an item, in their order. Counts by kind."""
    rows = [found.refusals[row] for row in sorted(found.refusals)]
    ids = items.at(np.array([refusal.row for refusal in rows]))["item_id"].to_list() if rows else []
    columns = {"item_id": ids, "part": [r.part for r in rows], "reason": [r.reason for r in rows]}
    pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)).write_csv(folder / QUARANTINE)
    return dict(sorted(Counter(refusal.kind for refusal in rows).items()))
