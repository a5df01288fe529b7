"""Drivers and actors of an embedding job killed at random moments, until it has been disturbed often enough; then it may finish.

The table and the quarantine must equal those of an undisturbed job, and no content may be encoded after its vector was stored.
Drivers are processes of their own, each with the local executor or with actors of a Ray cluster that runs apart; each is killed
(SIGKILL) when so many more contents have been encoded, or an actor of it is. Which, whom and when comes from the seed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks._progress import say
from pipelines import embed
from pipelines.executors import LocalExecutor, RayExecutor
from pipelines.progress import SilentReporter
from pipelines.stage import Surroundings
from recsys.artifacts.artifact import Artifact, Manifest, write_artifact
from recsys.embeddings.cache import EmbeddingCache
from recsys.embeddings.content import KeyArray
from recsys.embeddings.shard import Shard
from recsys.embeddings.table import EmbeddingTable
from recsys.embeddings.text import TextEncoderConfig
from recsys.rng import numpy_generator
from recsys.testing.encoders import LoadStandIn
from recsys.types import FloatArray

CONFIG = embed.EmbedConfig(encoder=TextEncoderConfig(name="words", model="hashed", template="{title}"))
REPOSITORY = Path(__file__).resolve().parent.parent
DRIVER_SECONDS = 600.0
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
"""Of the cluster and of who joins it: on the loopback address, and without a token of the user's."""


@dataclass(frozen=True)
class Kill:
    """after: contents encoded since the last one; then it waits `delay` seconds, so that it falls anywhere in a batch."""

    victim: str
    after: int
    delay: float


@dataclass(frozen=True)
class Life:
    """Of one driver: kills of its actors, and at the end its own; without any it may finish."""

    executor: str
    kills: tuple[Kill, ...] = ()


def run(*, small: bool = False, threads: int = 2) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="chaos") as folder, cluster() as address:
        lives = plan(3 if small else 20, seed=0)
        return {**chaos(Path(folder), lives, address, items=2_000 if small else 8_000, seconds=0.002), "threads": threads}


def plan(count: int, seed: int, executors: tuple[str, ...] = ("local", "ray"), most: int = 300) -> list[Life]:
    """`count` kills in all. A local driver has no actors; one with actors loses up to three of them before its own end."""
    generator = numpy_generator(seed, "benchmarks", "chaos")
    lives: list[Life] = []
    while count:
        executor = executors[int(generator.integers(len(executors)))]
        actors = min(int(generator.integers(1, 4)), count - 1) if executor == "ray" else 0
        victims = ["actor"] * actors + ["driver"]
        lives.append(Life(executor, tuple(Kill(victim, int(generator.integers(most)), float(generator.uniform(0, 0.3))) for victim in victims)))
        count -= len(victims)
    return [*lives, Life(executors[-1])]


def chaos(folder: Path, lives: list[Life], address: str | None, *, items: int, seconds: float) -> dict[str, Any]:
    """seconds: that the encoder takes for an item. Raises AssertionError that says what differs."""
    make_items(folder / "data", items)
    disturbed, calm = folder / "disturbed", folder / "calm"
    drive(str(folder), str(calm), "local", None, 0.0)
    started = time.perf_counter()
    events: list[dict[str, Any]] = []
    before: list[tuple[int, set[str]]] = []
    for number, life in enumerate(lives):
        before.append((time.time_ns(), stored_keys(disturbed)))
        driver = start_driver(folder, disturbed, life.executor, address if life.executor == "ray" else None, seconds)
        try:
            for kill in life.kills:
                _kill(driver, disturbed, kill)
                facts = {"driver": number + 1, "executor": life.executor, "victim": kill.victim, "encoded": len(encoded(disturbed))}
                events.append({"kill": len(events) + 1, **facts, "stored": len(stored_keys(disturbed))})
                say(f"chaos: kill {len(events)}: {kill.victim} under {life.executor}, {events[-1]['stored']:,} of {items:,} stored")
            code = driver.wait(timeout=DRIVER_SECONDS)
            assert code == (-signal.SIGKILL if life.kills else 0), f"the driver ended with {code}: {(disturbed / 'driver.log').read_text()[-2000:]}"
        finally:
            driver.kill()
            driver.wait()
    check = compare(disturbed, calm, before)
    notes = [" ".join(part.split()) for part in (__doc__ or "").split("\n\n")]
    return {"kills": events, "items": items, "drivers": len(lives), **check, "seconds": round(time.perf_counter() - started, 1), "notes": notes}


def _kill(driver: subprocess.Popen[bytes], target: Path, kill: Kill) -> None:
    """Raises AssertionError: the driver ended first, and there is nothing to kill."""
    count, deadline = len(encoded(target)) + kill.after, time.monotonic() + DRIVER_SECONDS
    while time.monotonic() < deadline:
        assert driver.poll() is None, f"the driver ended with {driver.poll()} before the kill: {(target / 'driver.log').read_text()[-2000:]}"
        lines = encoded(target)
        if len(lines) > count:
            time.sleep(kill.delay)
            if kill.victim == "driver":
                driver.kill()
                return
            try:
                os.kill(int(lines[-1][1]), signal.SIGKILL)
                return
            except ProcessLookupError:  # it is gone already: the next line is another's
                count = len(lines)
        time.sleep(0.01)
    raise AssertionError("no progress: nothing to kill")


def compare(disturbed: Path, calm: Path, before: list[tuple[int, set[str]]]) -> dict[str, Any]:
    ours, theirs = EmbeddingTable.load(disturbed / "out"), EmbeddingTable.load(calm / "out")
    assert ours.vocabulary.ids == theirs.vocabulary.ids, "other items"
    cosine = _lowest_cosine(ours.values, theirs.values)
    assert cosine >= 0.9999, f"the lowest cosine of a vector with the undisturbed one is {cosine}"
    quarantines = [(folder / "out" / embed.QUARANTINE).read_bytes() for folder in (disturbed, calm)]
    assert quarantines[0] == quarantines[1], "another quarantine"
    lines = encoded(disturbed)
    stored = {key: int(when) for when, key in (line.split() for line in (disturbed / "stored.log").read_text().splitlines())}
    twice = [key for when, _, key in lines if int(when) > stored.get(key, int(when))]
    for (when, keys), following in zip(before, [*(at for at, _ in before[1:]), time.time_ns()], strict=True):
        twice += [key for at, _, key in lines if when < int(at) <= following and key in keys]
    assert not twice, f"{len(twice)} contents were encoded again after their vector was stored"
    return {
        "lowest_cosine": round(float(cosine), 6),
        "quarantined": quarantines[0].count(b"\n") - 1,
        "distinct_contents": len({key for _, _, key in lines}),
        "encoded": len(lines),
        "encoded_again_before_it_was_stored": len(lines) - len({key for _, _, key in lines}),
        "encoded_again_after_it_was_stored": len(twice),
    }


def make_items(path: Path, items: int) -> Artifact:
    """Titles of several lengths, some shared; 3 % are poisoned: empty, with a control character, or refused by the encoder."""
    titles: list[str | None] = [f"film {i - i % 50 if i % 50 == 7 else i} " + "word " * (i % 11) for i in range(items)]
    for i in range(0, items, 100):
        titles[i], titles[i + 1], titles[i + 2] = None, f"a \x07 bell {i}", f"this is not finite {i}"

    def write(folder: Path) -> None:
        pl.DataFrame({"item_id": [f"i{i}" for i in range(items)], "title": titles}).write_parquet(folder / "items.parquet")

    return write_artifact(path, Manifest(kind="ingest", key="chaos", config_hash=""), write)


class LoggedCache(EmbeddingCache):
    """Writes down what is on the disk, and when it is."""

    log: Path

    def put_keys(self, keys: KeyArray, vectors: FloatArray) -> None:
        super().put_keys(keys, vectors)
        now = time.time_ns()
        with self.log.open("a", encoding="ascii") as file:
            file.write("".join(f"{now} {key.tobytes().hex()}\n" for key in keys))


def drive(folder: str, target: str, executor: str, address: str | None, seconds: float) -> None:
    """The driver, in a process of its own: the stage, as `recsys embed` runs it."""
    place = Path(target)
    scratch = place / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    load = LoadStandIn(seconds=seconds, log=place / "encoded.log")
    chosen = LocalExecutor(load=load) if executor == "local" else RayExecutor(address, load=load)
    surroundings = Surroundings(SilentReporter(), chosen, place / "embeddings", scratch)
    LoggedCache.log = place / "stored.log"
    embed.EmbeddingCache = LoggedCache  # type: ignore[misc]
    out = place / "out"
    out.mkdir(exist_ok=True)
    embed.run(CONFIG, {"data": Artifact.open(Path(folder) / "data")}, out, surroundings)
    if isinstance(chosen, RayExecutor):
        chosen.close()


def start_driver(folder: Path, target: Path, executor: str, address: str | None, seconds: float) -> subprocess.Popen[bytes]:
    target.mkdir(exist_ok=True)
    arguments = json.dumps([str(folder), str(target), executor, address, seconds])
    with (target / "driver.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "benchmarks.chaos", arguments], cwd=REPOSITORY, stdout=log, stderr=log, env=os.environ | ENVIRONMENT)


def encoded(target: Path) -> list[list[str]]:
    """[time in ns, process, key] of each content, in the order of time; a line that a kill cut in two is none."""
    file = target / "encoded.log"
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [line for line in lines if len(line) == 3 and len(line[2]) == 64]


def stored_keys(target: Path) -> set[str]:
    cache = EmbeddingCache(target / "embeddings", CONFIG.encoder.space())
    return {key.tobytes().hex() for shard in (*cache._big.shards, *cache._small.shards) for key in Shard.keys(shard)}


def _lowest_cosine(ours: FloatArray, theirs: FloatArray) -> float:
    """A zero row must meet a zero row."""
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    zeros = ~ours.any(axis=1)
    assert np.array_equal(zeros, ~theirs.any(axis=1)), "a vector is missing, or there is one too many"
    return float(((ours * theirs).sum(axis=1)[~zeros] / norms[~zeros]).min())


@contextmanager
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of one node, started apart and stopped at the end."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # A short name: Ray's sockets live there.
    with tempfile.TemporaryDirectory(prefix="rc") as temporary:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", str(port), "--num-cpus", "4"]
        options = ["--include-dashboard", "false", "--object-store-memory", str(80 * 2**20), "--temp-dir", temporary]
        node = subprocess.Popen([*command, *options], env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline and node.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            node.terminate()
            try:
                node.wait(timeout=60)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()


if __name__ == "__main__":
    drive(*json.loads(sys.argv[1]))
