"""Nights on a Ray cluster whose driver is killed (SIGKILL) at random moments: `python -m benchmarks.night_kills --kills 30 --story FILE > log`.

Two shops with the same days: one is left alone, the other is killed again and again. The moment is drawn over what an undisturbed night would
still have to do, from when the process has opened its record of the night. After each kill what is published must be whole: the version of
before or that of the calm shop. Each night must end in the artifacts of the calm shop; then comes the next, until there were enough kills.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import yaml

from benchmarks.chaos import ENVIRONMENT, cluster
from pipelines.ledger import Ledger, code_version
from pipelines.night_record import NightBook
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import write_bytes
from recsys.rng import numpy_generator
from recsys.tracking import Tracker, default_tracking_uri
from tests.integration import days

NAME = "tiny-shop"
FORKS = multiprocessing.get_context("forkserver")
IMPORTED = ("pipelines.cli", "pipelines.nightly", "feature_store.publish", "feature_store.online", "feast", "mlflow.pyfunc", "ray.data", "recsys.serving.app")
TIMED = {"verdict.json", "manifest.json"}
"""Files that hold measured milliseconds, or the time of their writing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--a-night", type=int, default=4, help="Kills of one night at most.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--story", type=Path, help="A Markdown file; written anew after each night.")
    options = parser.parse_args()
    os.environ.pop("RECSYS_TRACKING_URI", None)
    os.environ |= ENVIRONMENT
    FORKS.set_forkserver_preload(list(IMPORTED))
    with tempfile.TemporaryDirectory(prefix="nights") as folder, cluster() as address:
        chaos(Path(folder), address, options.kills, options.a_night, options.seed, options.story)


def chaos(folder: Path, address: str, kills: int, a_night: int, seed: int, story: Path | None = None) -> None:
    """Raises AssertionError where anything is not as it should be."""
    calm, stormy = folder / "calm", folder / "stormy"
    generator = numpy_generator(seed, "benchmarks", "night_kills")
    told: list[dict[str, Any]] = []
    for shop in (calm, stormy):
        days.shop(shop, 2)
        assert ended(run(shop, 1, address)) == 0
    number = 1
    while sum("kill" in line for line in told) < kills:
        number += 1
        for shop in (calm, stormy):
            days.write_day(shop, number)
        length = undisturbed(calm, number, address)
        before, after, left = published(stormy), published(calm), length
        for _ in range(min(a_night, kills - sum("kill" in line for line in told))):
            process = run(stormy, number, address)
            opened(stormy, number, process, processes(stormy, number))
            delay = float(generator.uniform(0, left))
            ended(process, delay)
            process.kill()
            code = ended(process)
            now = published(stormy)
            assert now in (before, after), f"half published: {now}"
            if code != -signal.SIGKILL:
                assert code == 0, f"night {number} ended with {code}"
                break  # it was done before the moment came
            last = Ledger(stormy / "root").entries()[-1]
            said = {"after_seconds": round(delay, 2), "last": f"{last['event']} {last['step']}", "champion": "before" if now == before else "after"}
            told.append(say(night=number, kill=1 + sum("kill" in line for line in told), **said))
            left = max(left - delay, length / 3)
        assert ended(run(stormy, number, address)) == 0
        assert published(stormy) == after and artifacts(stormy) == artifacts(calm), f"night {number} ended otherwise"
        events = [entry["event"] for entry in Ledger(stormy / "root").entries()]
        ends = {event: events.count(event) for event in ("started", "finished", "recovered", "interrupted")}
        assert ends["started"] == ends["finished"] + ends["recovered"] + ends["interrupted"], ends
        told.append(say(night=number, undisturbed_seconds=round(length, 1), equal=True, version=after["version"], artifacts=len(artifacts(calm)), ledger=ends))
        if story is not None:
            write_bytes(story, story_of(told, seed).encode())


def story_of(told: list[dict[str, Any]], seed: int) -> str:
    kills, nights = ([line for line in told if kind in line] for kind in ("kill", "equal"))
    ledger = ", ".join(f"{count} {event}" for event, count in nights[-1]["ledger"].items())
    lines = [
        "# Nights that are killed",
        "",
        f"`python -m benchmarks.night_kills --kills {len(kills)} --seed {seed}`, code {code_version()}. " + " ".join((__doc__ or "").split("\n\n")[1].split()),
        "",
        f"{len(kills)} real `kill -9` of the driver of a nightly run on Ray, in {len(nights)} nights. After every one the published version was whole:",
        f"in {sum(line['champion'] == 'before' for line in kills)} cases that of the night before, in {sum(line['champion'] == 'after' for line in kills)} "
        "already the new one. Every night ended, when it was run again, in the same published",
        f"bundle and the same {nights[-1]['artifacts']} artifacts, file by file, as the undisturbed shop's. Of every step that the ledger says has begun",
        f"it says how it ended: {ledger}.",
        "",
        "| kill | night | seconds after its record was opened | last line of the ledger | published then |",
        "|---|---|---|---|---|",
        *(f"| {line['kill']} | {line['night']} | {line['after_seconds']} | {line['last']} | version of {line['champion']} |" for line in kills),
        "",
        "| night | seconds undisturbed | version | kills | ended as the undisturbed one |",
        "|---|---|---|---|---|",
        *(
            f"| {line['night']} | {line['undisturbed_seconds']} | {line['version']} | {sum(kill['night'] == line['night'] for kill in kills)} | yes |"
            for line in nights
        ),
        "",
    ]
    return "\n".join(lines)


def undisturbed(shop: Path, number: int, address: str) -> float:
    """Seconds from the opened record to the end."""
    process = run(shop, number, address)
    opened(shop, number, process, 0)
    began = time.monotonic()
    assert ended(process) == 0
    return time.monotonic() - began


def run(shop: Path, number: int, address: str) -> ForkServerProcess:
    """The command in a process of its own. It is forked from one that has imported what a night imports: that takes longer than the night."""
    values = days.config(Path())
    values["publish"]["gate"] |= {"tolerance": 0.9, "cold_tolerance": 0.9, "latency_ms": None}
    values["runtime"] |= {"executor": "ray", "ray_address": address}
    (shop / "nightly.yaml").write_text(yaml.safe_dump(values))
    process = FORKS.Process(target=command, args=(shop, ["pipeline", "nightly", "nightly.yaml", "--as-of", str(days.day(number)), "--json"]))
    process.start()
    return process


def command(shop: Path, arguments: list[str]) -> None:
    from pipelines import cli

    os.chdir(shop)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = ["recsys", *arguments]
    cli.main()


def ended(process: ForkServerProcess, seconds: float | None = None) -> int | None:
    """Exit code; None: it is still at work."""
    process.join(seconds)
    return process.exitcode


def processes(shop: Path, number: int) -> int:
    night = NightBook(shop / "root", NAME).read(days.day(number))
    return night.processes if night else 0


def opened(shop: Path, number: int, process: ForkServerProcess, before: int) -> None:
    """Waits until this process has written its first line of the night's record."""
    while processes(shop, number) == before and process.is_alive():
        time.sleep(0.02)


def published(shop: Path) -> dict[str, Any]:
    tracker = Tracker(default_tracking_uri(shop / "root"))
    champion = tracker.champion(NAME)
    assert champion is not None
    bundle = Artifact.open(tracker.resolve(f"models:/{NAME}@champion").path, kind="bundle")
    return {"version": champion.version, "key": bundle.key, "files": dict(bundle.manifest.files)}


def artifacts(shop: Path) -> dict[str, dict[str, str]]:
    root = shop / "root"
    found = [Artifact.open(path.parent) for path in sorted((root / "artifacts").glob("*/*/manifest.json"))]
    return {a.path.relative_to(root).as_posix(): {name: sha for name, sha in a.manifest.files.items() if Path(name).name not in TIMED} for a in found}


def say(**facts: Any) -> dict[str, Any]:
    print(json.dumps(facts), flush=True)
    return facts


if __name__ == "__main__":
    main()
