"""Nights on a Ray cluster whose driver is killed (SIGKILL) at random moments: `python -m benchmarks.night_kills --kills 30 > log`.

Two shops with the same days: one is left alone, the other is killed again and again, at a moment drawn over the length of an undisturbed
night after its record was opened. After each kill what is published must be whole; each night must end in the artifacts of the calm shop.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.chaos import ENVIRONMENT, cluster
from pipelines.ledger import Ledger
from pipelines.night_record import NightBook
from recsys.artifacts.artifact import Artifact
from recsys.rng import numpy_generator
from recsys.tracking import Tracker, default_tracking_uri
from tests.integration import days

NAME = "tiny-shop"
TIMED = {"verdict.json", "manifest.json"}
"""Files that hold measured milliseconds, or the time of their writing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--nights", type=int, default=3, help="Kills are spread over so many nights.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.pop("RECSYS_TRACKING_URI", None)
    with tempfile.TemporaryDirectory(prefix="nights") as folder, cluster() as address:
        say(**chaos(Path(folder), address, options.kills, options.nights, options.seed))


def chaos(folder: Path, address: str, kills: int, nights: int, seed: int) -> dict[str, Any]:
    """Raises AssertionError where anything is not as it should be."""
    calm, stormy = (days.shop(folder / name, nights + 2) for name in ("calm", "stormy"))
    generator = numpy_generator(seed, "benchmarks", "night_kills")
    for shop in (calm, stormy):
        assert run(shop, 1, address).wait() == 0
    done = 0
    for number in range(2, nights + 2):
        process = run(calm, number, address)
        opened(calm, number, process, 0)
        began = time.monotonic()
        assert process.wait() == 0
        length = time.monotonic() - began
        before, after = published(stormy), published(calm)
        for _ in range(kills // nights + (number - 2 < kills % nights)):
            process = run(stormy, number, address)
            opened(stormy, number, process, processes(stormy, number))
            delay = float(generator.uniform(0, length))
            time.sleep(delay)
            survived = process.poll() is not None
            process.kill()
            code = process.wait()
            now = published(stormy)
            assert now in (before, after), f"half published: {now}"
            done += not survived
            last = Ledger(stormy / "root").entries()[-1]
            say(night=number, after_seconds=round(delay, 2), exit_code=code, last=f"{last['event']} {last['step']}", champion=now["version"])
            if survived:
                break
        assert run(stormy, number, address).wait() == 0
        assert published(stormy) == after and artifacts(stormy) == artifacts(calm), f"night {number} ended otherwise"
        say(night=number, calm_seconds=round(length, 1), equal=True, version=after["version"])
    events = [entry["event"] for entry in Ledger(stormy / "root").entries()]
    assert events.count("started") == sum(events.count(end) for end in ("finished", "recovered", "interrupted"))
    return {"kills": done, "nights": nights, "ledger": {event: events.count(event) for event in sorted(set(events))}, "equal": True}


def run(shop: Path, number: int, address: str) -> subprocess.Popen[bytes]:
    values = days.config(Path())
    values["publish"]["gate"] |= {"tolerance": 0.9, "cold_tolerance": 0.9, "latency_ms": None}
    values["runtime"] |= {"executor": "ray", "ray_address": address}
    (shop / "nightly.yaml").write_text(yaml.safe_dump(values))
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "pipelines.cli", "pipeline", "nightly", "nightly.yaml", "--as-of", str(days.day(number)), "--json"]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": path}
    return subprocess.Popen(command, cwd=shop, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def processes(shop: Path, number: int) -> int:
    night = NightBook(shop / "root", NAME).read(days.day(number))
    return night.processes if night else 0


def opened(shop: Path, number: int, process: subprocess.Popen[bytes], before: int) -> None:
    """Waits until this process has written its first line of the night's record."""
    while processes(shop, number) == before and process.poll() is None:
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


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
