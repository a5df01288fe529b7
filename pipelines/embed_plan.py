"""What an embedding job would take: `recsys embed --plan`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from pipelines.config import RunConfig
from pipelines.embed import EmbedConfig, look
from pipelines.executors import LocalExecutor
from pipelines.progress import RichReporter, SilentReporter
from pipelines.run import run_plan
from pipelines.stage import Surroundings
from pipelines.throughput import expected_rate
from recsys.embeddings.content import KEY_BYTES

UNKNOWN = "unknown until the first run"


@dataclass(frozen=True)
class Estimate:
    """new: items without a vector, those that share a content included; `contents`: how many vectors that makes.
    seconds: None before the first job of this encoder.  cache_bytes: that the new vectors add.  table_bytes: of the whole table."""

    name: str
    space_id: str
    items: int
    new: int
    contents: int
    cached: int
    quarantined: int
    without_vector: int
    seconds: float | None
    cache_bytes: int
    table_bytes: int

    @property
    def time(self) -> str:
        if not self.contents:
            return "none"
        return UNKNOWN if self.seconds is None else f"about {_duration(self.seconds)}, and loading the model"

    @property
    def storage(self) -> str:
        return f"{_size(self.cache_bytes)} cache, {_size(self.table_bytes)} table"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "time": self.time, "storage": self.storage}


def estimate(config: RunConfig, console: Console, *, quiet: bool) -> list[Estimate]:
    """One an encoder. The items must be known, so `ingest` runs where it has not yet; no model is loaded and nothing else written."""
    data = run_plan(config, console, quiet=quiet, last_stage="ingest").artifacts["ingest"]
    root = config.runtime.root.absolute()
    surroundings = Surroundings(SilentReporter() if quiet else RichReporter(console), LocalExecutor(), root / "embeddings", root)
    found = []
    for encoder in config.embed:
        seen = look(EmbedConfig(encoder=encoder, limits=config.limits, images=config.images), data, surroundings)
        space = encoder.space()
        workers = config.runtime.workers if config.runtime.executor == "ray" else 1
        rate = expected_rate(surroundings.embedding_cache / space.space_id, config.runtime.executor, workers)
        vector = 4 * seen["dimension"]
        found.append(
            Estimate(
                name=encoder.name,
                space_id=space.space_id,
                items=seen["items"],
                new=seen["new"] + seen["same"],
                contents=seen["new"],
                cached=seen["cached"],
                quarantined=seen["quarantined"],
                without_vector=seen["without_vector"],
                seconds=seen["new"] / rate if rate else None,
                cache_bytes=seen["new"] * (KEY_BYTES + vector),
                table_bytes=seen["items"] * vector,
            )
        )
    return found


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
