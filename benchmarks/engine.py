"""The embedding engine around the encoder: what Ray costs, how it scales, what a nightly increment and ten million items take.

The encoder sleeps for as long as SmolLM2 takes for an item's text on this machine, so that cores and model are no part of the
figures. Each job is the whole stage: looking the items up, computing, storing, writing the table.

Overhead: one actor beside the local executor, the start of Ray and of the actor in its seconds; and once
both have given their first batch. Scaling: actors on logical CPUs; a
rate counts from the moment when every actor has answered once. Increment: the same items again, one in a hundred changed.
Many items: vectors that cost nothing; memory is the peak of what the process has allocated itself (anonymous pages), the index of the
cache included; a lookup is hashing the text and finding the key, among all that are stored.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks._child import Child, own
from benchmarks._progress import say
from pipelines import embed
from pipelines.executors import Executor, LocalExecutor, RayExecutor
from pipelines.progress import SilentReporter
from pipelines.stage import Surroundings
from recsys.artifacts.artifact import Artifact, Manifest, write_artifact
from recsys.embeddings.cache import EmbeddingCache
from recsys.embeddings.content import Content, keys_of, of_texts
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.text import TextEncoderConfig
from recsys.rng import numpy_generator
from recsys.testing.encoders import LoadStandIn
from recsys.types import FloatArray

CONFIG = embed.EmbedConfig(encoder=TextEncoderConfig(name="words", model="hashed", template="{title}"))
SECONDS_AN_ITEM, LOADING = 0.0064, 2.5
"""SmolLM2: `benchmarks/results`, embedding."""
ACTORS = (1, 2, 4, 8)
CAP = 3000.0


def run(*, small: bool = False, threads: int = 2) -> dict[str, Any]:
    items, cost = (400, 0.002) if small else (10_000, SECONDS_AN_ITEM)
    with tempfile.TemporaryDirectory(prefix="engine") as temporary:
        folder = Path(temporary)
        overhead = ray_overhead(folder, items, cost, 0.1 if small else LOADING)
        scaling = actors(folder, (1, 2) if small else ACTORS, 128 * (3 if small else 5), cost)
    return {
        "threads": threads,
        **overhead,
        "scaling": scaling,
        "many_items": [figures for count in ((20_000, 50_000) if small else (200_000, 10_000_000)) if (figures := in_child(count, threads))],
        "notes": [" ".join(part.split()) for part in (__doc__ or "").split("\n\n")[1:]],
    }


def ray_overhead(folder: Path, items: int, cost: float, loading: float) -> dict[str, Any]:
    """And the increment, which needs the same full run."""
    load = LoadStandIn(seconds=cost, loading=loading)
    titles = [f"film {i}" for i in range(items)]
    local, local_rate = job(folder / "local", titles, LocalExecutor(load=load))
    say(f"engine: {items:,} items, local: {local:.1f} s")
    pool = RayExecutor(load=load)
    try:
        ray, ray_rate = job(folder / "ray", titles, pool)
        say(f"engine: {items:,} items, one actor: {ray:.1f} s")
    finally:
        pool.close()
    changed = [f"new {title}" if i % 100 == 0 else title for i, title in enumerate(titles)]
    increment, _ = job(folder / "local", changed, LocalExecutor(load=load))
    say(f"engine: {len(titles) // 100} of {items:,} changed: {increment:.2f} s")
    return {
        "items": items,
        "encoder_seconds_an_item": cost,
        "load_seconds": loading,
        "local_seconds": round(local, 2),
        "ray_seconds": round(ray, 2),
        "ray_overhead": round(ray / local - 1, 4),
        "ray_overhead_once_started": round(local_rate / ray_rate - 1, 4),
        "increment_seconds": round(increment, 2),
        "increment_seconds_without_load": round(increment - loading, 2),
        "increment_share_of_full": round((increment - loading) / (local - loading), 4),
    }


def actors(folder: Path, counts: Sequence[int], items_an_actor: int, cost: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for count in counts:
        pool = RayExecutor(workers=count, cpus_per_worker=1, load=LoadStandIn(seconds=cost))
        done: list[tuple[float, int]] = []
        try:
            pool.connect()
            started = time.perf_counter()
            together = None
            space = CONFIG.encoder.space().space_id
            contents = of_texts(f"film {i} of {count}" for i in range(items_an_actor * count * 2))
            for batch in pool.encode(CONFIG.encoder, space, (contents[i : i + 32] for i in range(0, len(contents), 32))):
                done.append((time.perf_counter() - started, len(batch)))
                if together is None and len(pool.processes) == count:
                    together = len(done) - 1
            assert together is not None, "not every actor took part: give them more items"
            items = sum(size for _, size in done[together + 1 :])
            rate = items / (done[-1][0] - done[together][0]) if items else float("nan")
        finally:
            pool.close()
        rows.append({"actors": count, "items_per_second": round(rate, 1), "times_one_actor": round(rate / rows[0]["items_per_second"], 2) if rows else 1.0})
        say(f"engine: {count} actors: {rate:,.0f} items/s")
    return rows


def in_child(count: int, threads: int) -> dict[str, Any] | None:
    with Child(own("benchmarks.engine:many", {"count": count}), cap=CAP, threads=threads) as child:
        found = list(child)
    say(f"engine: {count:,} items: {found[-1] if found else 'capped'}")
    return found[-1] if found else None


def many(count: int) -> Iterator[dict[str, Any]]:
    """In the child: a full job over `count` items of a made-up catalog, and lookups afterwards."""
    with tempfile.TemporaryDirectory(prefix="engine") as temporary:
        folder = Path(temporary)
        data = ingested(folder / "data", None, count)
        held = anonymous_mb()
        peak = Peak()
        started = time.perf_counter()
        place, facts = stage(folder / "job", data, LocalExecutor(load=Free))
        seconds = time.perf_counter() - started
        highest = peak.end()
        assert facts["computed"] == count
        started = time.perf_counter()
        cache = EmbeddingCache(place, CONFIG.encoder.space())
        opened = time.perf_counter() - started
        asked = [f"film {i}" for i in numpy_generator(0, "benchmarks", "engine").integers(0, count * 101 // 100, 200_000).tolist()]
        started = time.process_time()
        for start in range(0, len(asked), 16_384):
            cache.has(keys_of(of_texts(asked[start : start + 16_384])))
        lookup = (time.process_time() - started) / len(asked) * 1e6
        yield {
            "items": count,
            "seconds": round(seconds, 1),
            "items_per_second": round(count / seconds),
            "memory_before_mb": round(held, 1),
            "peak_mb": round(highest, 1),
            "peak_bytes_an_item": round((highest - held) * 1e6 / count, 1),
            "open_seconds": round(opened, 2),
            "lookup_microseconds": round(lookup, 2),
            "files": sum(path.is_file() for path in cache.folder.iterdir()),
        }


class Free:
    """An encoder whose vectors cost nothing. It is its own `load`."""

    def __init__(self, config: object) -> None:
        self._row = np.ones((1, HashedEncoder().dim), dtype=np.float32)

    @property
    def space(self) -> EmbeddingSpace:
        return CONFIG.encoder.space()

    @property
    def dim(self) -> int:
        return self._row.shape[1]

    def encode(self, contents: Sequence[Content]) -> FloatArray:
        return np.repeat(self._row, len(contents), axis=0)


class Peak:
    """The highest anonymous memory of this process, looked at ten times a second by a thread."""

    def __init__(self) -> None:
        import threading

        self._highest, self._over = anonymous_mb(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self._highest = max(self._highest, anonymous_mb())

    def end(self) -> float:
        self._over.set()
        self._thread.join()
        return max(self._highest, anonymous_mb())


def anonymous_mb() -> float:
    """Resident memory that is no file: what the kernel cannot simply read again."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024 / 1e6


def job(folder: Path, titles: Sequence[str], executor: Executor) -> tuple[float, float]:
    """Seconds of the stage, and items a second once the first batch was there."""
    data = ingested(folder / f"data{len(list(folder.glob('data*')))}", titles, len(titles))
    started = time.perf_counter()
    _, facts = stage(folder, data, executor)
    return time.perf_counter() - started, facts["items_per_second"]


def stage(folder: Path, data: Artifact, executor: Executor) -> tuple[Path, dict[str, Any]]:
    """Where the vectors are kept, and the stage's facts."""
    scratch, out = folder / "scratch", folder / f"out-{data.path.name}"
    for path in (scratch, out):
        path.mkdir(parents=True, exist_ok=True)
    facts = embed.run(CONFIG, {"data": data}, out, Surroundings(SilentReporter(), executor, folder / "embeddings", scratch))
    return folder / "embeddings", dict(facts)


def ingested(path: Path, titles: Sequence[str] | None, count: int) -> Artifact:
    def write(folder: Path) -> None:
        numbers = pl.LazyFrame({"n": pl.int_range(count, eager=True)})
        frame = numbers.select(item_id=pl.format("i{}", "n"), title=pl.format("film {}", "n") if titles is None else pl.Series(titles))
        frame.sink_parquet(folder / "items.parquet")

    return write_artifact(path, Manifest(kind="ingest", key=path.name, config_hash=""), write)
