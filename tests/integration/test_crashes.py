"""A night that is killed at every named write and rename, one after the other, ends where an undisturbed one does; in between, whoever looks
finds what was published before or what is published now, whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from feature_store.publish import current_version
from pipelines.ledger import Ledger
from pipelines.night_record import NightBook
from recsys.artifacts.artifact import Artifact
from recsys.serving.bundle import load_bundle
from recsys.tracking import Tracker, default_tracking_uri
from tests.integration import days

Ask = Callable[[Path, int, Path | None], int]
TIMED = {"verdict.json", "manifest.json"}
"""Files that hold measured milliseconds, or the time of their writing (of a bundle inside an artifact)."""


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    environment.pop("RECSYS_TRACKING_URI", None)
    log = (tmp_path_factory.mktemp("driver") / "stderr").open("w+")
    command = [sys.executable, "-m", "tests.integration.crash_driver"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as driver:
        assert driver.stdin is not None and driver.stdout is not None
        asked, answers = driver.stdin, driver.stdout

        def ask(folder: Path, number: int, seen: Path | None = None) -> int:
            asked.write(json.dumps({"folder": str(folder), "day": number, "seen": str(seen) if seen else None}) + "\n")
            asked.flush()
            answer = answers.readline()
            assert answer, Path(log.name).read_text()[-3000:]
            return int(answer)

        yield ask
        asked.close()
    log.close()


def published(root: Path) -> dict[str, Any]:
    """What the world sees; raises when any of it is not whole."""
    tracker = Tracker(default_tracking_uri(root))
    champion = tracker.champion("tiny-shop")
    assert champion is not None
    bundle = Artifact.open(tracker.resolve("models:/tiny-shop@champion").path, kind="bundle")
    features = current_version(root / "feature_store")
    assert features is not None and (root / "feature_store" / "versions" / features / "data" / "online_store.db").is_file()
    return {"version": champion.version, "key": bundle.key, "files": dict(bundle.manifest.files), "night": champion.tags["recsys.night"]}


def artifacts(root: Path) -> dict[str, dict[str, str]]:
    """Finished folder -> its files; opening checks each hash."""
    found = [Artifact.open(path.parent) for path in sorted((root / "artifacts").glob("*/*/manifest.json"))]
    return {a.path.relative_to(root).as_posix(): {name: sha for name, sha in a.manifest.files.items() if Path(name).name not in TIMED} for a in found}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_every_write_and_rename(night: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECSYS_TRACKING_URI", raising=False)
    calm, stormy, seen = days.shop(tmp_path / "calm", 3), days.shop(tmp_path / "stormy", 3), tmp_path / "seen"
    for shop in (calm, stormy):
        assert night(shop, 1, None) == 0
    assert night(calm, 2, None) == 0
    before, after = published(stormy / "root"), published(calm / "root")
    assert (before["night"], after["night"], after["version"]) == (str(days.day(1)), str(days.day(2)), "2")

    kills = 0
    while (status := night(stormy, 2, seen)) != 0:
        assert status == -signal.SIGKILL and kills < 500
        kills += 1
        now = published(stormy / "root")
        assert now["key"] in (before["key"], after["key"]) and now in (before, after | {"files": now["files"]}), seen.read_text().splitlines()[-1]
    points = seen.read_text().splitlines()
    assert len(points) == len(set(points)) == kills > 80
    for name in ("register a version", "version registered", "rename current", "move the alias", "alias moved", "rename artifact publish", "night ends"):
        assert name in points

    assert published(stormy / "root") == after
    assert artifacts(stormy / "root") == artifacts(calm / "root")
    for shop in (calm, stormy):
        tracker = Tracker(default_tracking_uri(shop / "root"))
        assert [v.version for v in tracker.versions("tiny-shop")] == ["1", "2"]
        assert len(list((shop / "root" / "feature_store" / "versions").iterdir())) == 2
        assert load_bundle(tracker.resolve("models:/tiny-shop@champion").path).users.ids[0] == "u0"
    _ledger_is_true(stormy / "root", kills)


def _ledger_is_true(root: Path, kills: int) -> None:
    """Every step that began has an end; every artifact was told of as finished, or recovered, exactly once."""
    entries = Ledger(root).entries()
    events = Counter(entry["event"] for entry in entries)
    assert events["started"] == events["finished"] + events["recovered"] + events["interrupted"] and events["interrupted"] > 10
    done = Counter(entry["key"] for entry in entries if entry["event"] in ("finished", "recovered"))
    there = {Artifact.open(path.parent).key for path in (root / "artifacts").glob("*/*/manifest.json")}
    assert set(done) == there and set(done.values()) == {1}
    book = NightBook(root, "tiny-shop").read(date.fromisoformat(str(days.day(2))))
    assert book is not None and (book.state, book.outcome, book.version) == ("done", "promoted", "2")
    assert kills - 10 <= book.processes <= kills + 1  # some are killed before the record is opened
